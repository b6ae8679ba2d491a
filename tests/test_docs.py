"""Every Python block of the README and of docs/ runs, in order, in one namespace per page; links lead somewhere.

A block whose fence says more than `python` (as in "```python skip") is shown, not run.
"""

import re
from pathlib import Path

import pytest

import fastfactor

PACKAGE = Path(fastfactor.__file__).parent  # not beside the pages when it is installed
ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)

_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

if not PAGES[0].exists():
    pytest.skip("the pages are not beside the tests", allow_module_level=True)


def name_of(page):
    return str(page.relative_to(ROOT))


def find_blocks(text):
    """Yield the number of the line before each block, and its code."""
    for match in _FENCE.finditer(text):
        yield text.count("\n", 0, match.start(1)), match.group(1)


@pytest.mark.parametrize("page", [page for page in PAGES if "```python\n" in page.read_text()], ids=name_of)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for line, code in find_blocks(page.read_text()):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)  # tracebacks then show the page's own lines


def locate(page, target):
    path = (page.parent / target).resolve()
    if path.is_relative_to(ROOT / "fastfactor"):
        return PACKAGE / path.relative_to(ROOT / "fastfactor")
    return path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_within_the_project_lead_somewhere(page):
    text = _ANY_FENCE.sub("", page.read_text())
    targets = [target.split("#")[0] for target in _LINK.findall(text) if "://" not in target]
    missing = [target for target in targets if target and not locate(page, target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fences_are_closed(page):
    assert len(re.findall(r"^```", page.read_text(), re.MULTILINE)) % 2 == 0


def test_every_module_has_its_place_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = {path.name for path in PACKAGE.rglob("*.py")}
    assert modules
    assert not {name for name in modules if f"{name}`" not in text}
