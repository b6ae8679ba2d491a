"""The table of test errors in the docs, written from a result of the suite `accuracy`."""

from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench.suites.accuracy import ALLOWED, ALWAYS_ALLOWED, MEAN, OURS, PEER_FILES, SEEDS, TIMED

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- accuracy: written by `python -m bench accuracy` -->", "<!-- end of accuracy -->"
_PACKAGES = ("fastfactor", "numba", "numpy", "libmf", "cmfrec")


def write_accuracy(result: dict[str, Any], page: Path = PAGE) -> None:
    """Replace what stands between the marks in `page`.

    Raises
    ------
    ValueError
        If the marks are not there.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page.name} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{begin}\n\n{format_accuracy(result)}\n{end}{after}")


def format_accuracy(result: dict[str, Any]) -> str:
    """Return the table as Markdown, and below it how it came about."""
    values = {
        (item["case"], item["peer"], item["metric"]): item["value"]
        for item in result["measurements"]
        if item["suite"] == "accuracy"
    }
    cases = list(dict.fromkeys(case for case, _, _ in values))
    shown = [peer for peer in PEER_FILES if any((case, peer, "test_rmse") in values for case in cases)]
    ratio, share = (f"{OURS}/best peer", "rmse_ratio"), (f"{OURS}/allowed", "time_ratio")
    head = ["set", "the mean", *(f"{peer}, tuned" for peer in shown), "`fit(X)`", "over the better peer"]
    head += [*(f"{peer}, s" for peer in shown), "`fit(X)`, s", "of the time allowed"]
    rows = [head, ["---"] * len(head)]
    for case in cases:
        errors = [(peer, "test_rmse") for peer in (MEAN, *shown, OURS)]
        times = [(peer, "seconds") for peer in (*shown, OURS)]
        cells = [*((key, "{:.4f}") for key in errors), (ratio, "{:.4f}")]
        cells += [*((key, "{:.2f}") for key in times), (share, "{:.0%}")]
        rows.append([case, *(_show(values.get((case, *key)), style) for key, style in cells)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    ratios = [values[case, *ratio] for case in cases if (case, *ratio) in values]
    mean = f" Geometric mean over the better peer: {geometric_mean(ratios):.4f}." if ratios else ""
    return "\n".join([*lines, "", _describe(result) + mean, ""])


def _show(value: float | None, style: str) -> str:
    return "" if value is None else style.format(value)


def _describe(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in _PACKAGES if name in versions)
    return (
        f"Test RMSE, means of {len(SEEDS)} seeds; seconds are medians, in turns, selection included, compilation not. "
        f"Peers were tuned on the\nvalidation entries; all were then trained on train + validation. "
        f"Allowed: {ALLOWED} times one fit of {TIMED}, tuned, or {ALWAYS_ALLOWED:g} s.\n{result['date'][:10]}, "
        f"{machine['processor']}, {machine['cores']} cores, {result['n_threads']} threads, "
        f"Python {versions['python']}, {packages}."
    )
