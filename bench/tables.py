"""The table of test errors in the docs, written from a result of the suite `accuracy`."""

from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench.suites.accuracy import ALLOWED, ALWAYS_ALLOWED, MEAN, OURS, PEER_FILES, RANKS, SEEDS, TIMED, name_rank

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
    """Return the table of peers as Markdown, below it how it came about, and the table of given ranks."""
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
    ratios = [values[case, *ratio] for case in cases if (case, *ratio) in values]
    mean = f" Geometric mean over the better peer: {geometric_mean(ratios):.4f}." if ratios else ""
    return "\n".join([*_lines(rows), "", _describe(result) + mean, "", *_compare_ranks(values, cases), ""])


def _compare_ranks(values: dict[tuple[str, str, str], float], cases: list[str]) -> list[str]:
    """Return the table of errors with a given rank over those of the default."""
    head = ["set", *(f"`fit(X, rank={rank})`" for rank in RANKS), *(f"{rank}, over `fit(X)`" for rank in RANKS)]
    rows = [head, ["---"] * len(head)]
    for case in cases:
        keys = [(case, name_rank(rank), "test_rmse") for rank in RANKS]
        keys += [(case, f"{name_rank(rank)}/{OURS}", "rmse_ratio") for rank in RANKS]
        rows.append([case, *(_show(values.get(key), "{:.4f}") for key in keys)])
    return _lines(rows)


def _lines(rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]


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
