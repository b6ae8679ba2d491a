"""Every Python block of the README and of docs/ runs, in order, in one namespace per page; links lead somewhere.

A block whose fence says more than `python` (as in "```python skip") is shown, not run. Pages that walk through a job
start from files that are made here, and their `fastfactor` commands run too.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import fastfactor

PACKAGE = Path(fastfactor.__file__).parent  # not beside the pages when it is installed
ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)

_FENCE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

if not PAGES[0].exists():
    pytest.skip("the pages are not beside the tests", allow_module_level=True)


def name_of(page):
    return str(page.relative_to(ROOT))


def find_blocks(text):
    """Yield the number of the line before each block, its language, and its code."""
    for match in _FENCE.finditer(text):
        yield text.count("\n", 0, match.start(2)), match.group(1), match.group(2)


def write_ratings():
    """Ratings of 60 users for 50 items: planted rank 3 and noise; a tenth of them came later, some by a new user."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(11)
    A = 3 + rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50)) + 0.1 * rng.standard_normal((60, 50))
    rows, cols = np.nonzero(rng.random(A.shape) < 0.4)
    later = (rng.random(len(rows)) < 0.1) | (rows == 59)
    for name, chosen in (("ratings", ~later), ("new-ratings", later)):
        users, items = [f"user-{r:04}" for r in rows[chosen]], [f"item-{c:04}" for c in cols[chosen]]
        table = pa.table({"user": users, "item": items, "rating": A[rows[chosen], cols[chosen]]})
        pq.write_table(table, f"{name}.parquet")


def write_texts():
    """Texts of five words each, from one of four topics with ten words of their own."""
    rng = np.random.default_rng(12)
    lines = [" ".join(f"word{t}x{w}" for w in rng.integers(10, size=5)) for t in rng.integers(4, size=200)]
    Path("texts.txt").write_text("\n".join(lines))


WALKS = {"docs/batch.md": write_ratings, "docs/out_of_core.md": write_ratings, "docs/text.md": write_texts}


def run_commands(code):
    app = pytest.importorskip("fastfactor.cli.app", reason="the command line needs the extra cli")
    for line in code.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "fastfactor"
        assert app.run(arguments) == 0, line


@pytest.mark.parametrize("page", [page for page in PAGES if "```python\n" in page.read_text()], ids=name_of)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    walk = WALKS.get(name_of(page))
    if walk is not None:
        walk()
    namespace = {"__name__": "page"}
    for line, language, code in find_blocks(page.read_text()):
        if language == "bash":
            if walk is not None:
                run_commands(code)
            continue
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
