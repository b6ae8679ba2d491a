"""Every Python block of the README and of docs/ runs, in order, in one namespace per page; links lead somewhere.

A block whose fence says more than `python` (as in "```python skip") is shown, not run. Where a page walks through a job
on the command line, its `fastfactor` commands run too.
"""

import codeop
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import fastfactor
from bench import figures, tables
from bench.figures.pages import find_blocks

PACKAGE = Path(fastfactor.__file__).parent  # not beside the pages when it is installed
ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)

_ANY_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

if not PAGES[0].exists():
    pytest.skip("the pages are not beside the tests", allow_module_level=True)


def name_of(page):
    return str(page.relative_to(ROOT))


COMMANDS_TOO = {"docs/batch.md"}  # pages whose blocks of commands call `fastfactor` alone


def run_commands(code):
    app = pytest.importorskip("fastfactor.cli.app", reason="the command line needs the extra cli")
    for line in code.replace("\\\n", "").splitlines():
        name, *arguments = shlex.split(line)
        assert name == "fastfactor"
        assert app.run(arguments) == 0, line


WITH_CODE = [page for page in PAGES if "```python\n" in page.read_text()]


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_blocks_can_be_typed(page):
    """At Python's own prompt a loop or function ends with an empty line, and has none within."""
    for _, language, code in find_blocks(page.read_text()):
        typed = []
        for line in code.splitlines() if language == "python" else []:
            typed.append(line)
            if codeop.compile_command("\n".join(typed)) is not None:
                typed = []


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for line, language, code in find_blocks(page.read_text()):
        if language == "bash":
            if name_of(page) in COMMANDS_TOO:
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


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    if not (ROOT / "fastfactor").exists():
        pytest.skip("the reference is made from sources, which are not beside the pages")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=plain)
    assert done.returncode == 0, done.stderr
    assert '<div class="formula"><math' in (site / "derivation.html").read_text()
    assert not re.findall("<code>[^<]*`[^<]*</code>", (site / "reference.html").read_text())  # a type is code already
    assert not list(site.rglob("*.pyc"))  # docs/ has hooks.py, which Python compiles


def test_every_picture_is_made_by_a_script():
    assert {path.stem for path in (ROOT / "docs" / "images").glob("*.png")} == set(figures.NAMES)


def test_promises_name_tests_that_exist():
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    there = {
        name for path in (ROOT / "tests").glob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 30
    assert not named - there


def read_result(name):
    """Return the figures of a kept result by case, peer and metric."""
    items = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())["measurements"]
    return {(item["case"], item["peer"], item["metric"]): item["value"] for item in items}


def join(values, form):
    return " / ".join(format(value, form) for value in values)


def test_figures_of_the_pages_are_those_of_the_kept_results():
    epochs, times, dask = read_result("epochs"), read_result("time-to-rmse"), read_result("dask")
    speeds = [
        [epochs[f"20M, rank {rank}", peer, "updates_per_second"] for rank in (16, 32, 64, 128)]
        for peer in ("fastfactor", "libmf")
    ]
    ratios = [ours / theirs for ours, theirs in zip(*speeds, strict=True)]
    seconds = [
        [times[case, peer, "seconds_to_target"] for case in ("20M", "ml-1m")] for peer in ("fastfactor", "libmf")
    ]
    gains = join([theirs / ours for ours, theirs in zip(*seconds, strict=True)], ".1f")
    ours, theirs = (f"{join(side, '.0f')} M" for side in speeds)
    to_target = f"{join(seconds[0], '.2g')} s"
    svd, text = read_result("svd"), [f"text, flat, k={k}, 1e-10" for k in (50, 100)]
    triplets = f"{join([svd[case, 'fastfactor', 'seconds'] for case in text], '.2f')} s"
    faster = join([svd[case, "scipy/fastfactor", "time_ratio"] for case in text], ".1f")
    shown = {
        "README.md": [
            f"{ours} | {join(ratios, '.1f')} times LIBMF",
            f"{to_target} | {gains} times as fast",
            f"{triplets} | {faster} times as fast as scipy",
        ],
        "docs/comparison.md": [
            f"{ours} | LIBMF {theirs} | {join(ratios, '.1f')}",
            f"{to_target} | LIBMF {join(seconds[1], '.3g')} s | {gains}",
            f"{triplets} | arpack {join([svd[case, 'scipy-arpack', 'seconds'] for case in text], '.2f')} s | {faster}",
        ],
        "docs/performance.md": [
            f"| {rank} | {mine:.0f} | {other:.0f} | {ratio:.1f} |"
            for rank, mine, other, ratio in zip((16, 32, 64, 128), *speeds, ratios, strict=True)
        ]
        + [f"{ratio:.1f} |" for (case, _, metric), ratio in svd.items() if metric == "time_ratio" and "1e-" in case],
        "docs/scale.md": [
            "| {} million | {:.3f} s | {:.3f} s | {:.2f} |".format(
                size,
                dask[f"{size}M, rank 32", "dask, 2 workers", "epoch"],
                dask[f"{size}M, rank 32", "in process", "epoch"],
                dask[f"{size}M, rank 32", "dask, 2 workers", "epoch_over_process"],
            )
            for size in (20, 100)
        ],
    }
    for page, figures_shown in shown.items():
        text = (ROOT / page).read_text()
        assert not [figure for figure in figures_shown if figure not in text], page


@pytest.mark.parametrize("suite", tables.FORMATS)
def test_tables_that_a_command_writes_are_those_of_the_kept_results(suite):
    result = json.loads((ROOT / "bench" / "results" / f"{suite.replace('_', '-')}.json").read_text())
    begin, end = tables.find_marks(suite)
    assert f"{begin}\n\n{tables.FORMATS[suite](result)}\n{end}" in tables.PAGE.read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=name_of)
def test_pages_with_code_say_what_to_install(page):
    text = page.read_text()
    assert "```python\n" not in text or re.search("pip install '?[.]", text)
