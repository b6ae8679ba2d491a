"""The tables of the docs that are written from results: test errors, posterior averaging, lists, own losses."""

from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench.suites import implicit, own_loss, posterior
from bench.suites.accuracy import ALLOWED, ALWAYS_ALLOWED, MEAN, OURS, PEER_FILES, RANKS, SEEDS, TIMED, name_rank

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
_PACKAGES = ("fastfactor", "numba", "numpy")

Values = dict[tuple[str, str, str], float]


def find_marks(suite: str) -> tuple[str, str]:
    """Return the lines of the page between which the tables of a suite stand."""
    return f"<!-- {suite}: written by `python -m bench accuracy` -->", f"<!-- end of {suite} -->"


def write_tables(suite: str, result: dict[str, Any], page: Path = PAGE) -> None:
    """Replace what stands between the marks of the suite in `page`.

    Raises
    ------
    ValueError
        If the marks are not there.
    """
    begin, end = find_marks(suite)
    before, _, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page.name} has no lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{FORMATS[suite](result)}\n{end}{after}")


def _read(result: dict[str, Any], suite: str) -> tuple[Values, list[str]]:
    """Return the figures of a suite by case, peer and metric, and its cases."""
    values = {
        (item["case"], item["peer"], item["metric"]): item["value"]
        for item in result["measurements"]
        if item["suite"] == suite
    }
    return values, list(dict.fromkeys(case for case, _, _ in values))


def format_accuracy(result: dict[str, Any]) -> str:
    """Return the table of peers as Markdown, below it how it came about, and the table of given ranks."""
    values, cases = _read(result, "accuracy")
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


def _compare_ranks(values: Values, cases: list[str]) -> list[str]:
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
    return (
        f"Test RMSE, means of {len(SEEDS)} seeds; seconds are medians, in turns, selection included, compilation not. "
        f"Peers were tuned on the\nvalidation entries; all were then trained on train + validation. "
        f"Allowed: {ALLOWED} times one fit of {TIMED}, tuned, or {ALWAYS_ALLOWED:g} s.\n"
        f"{_describe_machine(result, *PEER_FILES)}"
    )


def _describe_machine(result: dict[str, Any], *peers: str) -> str:
    machine, versions = result["machine"], result["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in (*_PACKAGES, *peers) if name in versions)
    return (
        f"{result['date'][:10]}, {machine['processor']}, {machine['cores']} cores, {result['n_threads']} threads, "
        f"Python {versions['python']}, {packages}."
    )


def _tabulate(result: dict[str, Any], suite: str, first: str, columns: dict[str, tuple[str, str, str]]) -> list[str]:
    """Return a table with a row a case; a column has a heading, a peer, a metric and how to write it."""
    values, cases = _read(result, suite)
    rows = [[first, *columns], ["---"] * (len(columns) + 1)]
    for case in cases:
        cells = [_show(values.get((case, peer, metric)), style) for peer, metric, style in columns.values()]
        rows.append([case, *cells])
    return _lines(rows)


def format_posterior(result: dict[str, Any]) -> str:
    """Return the table of posterior averaging beside the plain fit, and below it how it came about."""
    plain, averaged = posterior.PLAIN, posterior.AVERAGED
    both = f"{averaged}/{plain}"
    columns = {
        "plain": (plain, "test_rmse", "{:.4f}"),
        "averaged": (averaged, "test_rmse", "{:.4f}"),
        "ratio": (both, "rmse_ratio", "{:.4f}"),
        "worst ratio": (both, "worst_rmse_ratio", "{:.4f}"),
        f"coverage of {posterior.COVERAGE:.0%}": (averaged, "coverage", "{:.1%}"),
        "plain, s": (plain, "seconds", "{:.2f}"),
        "averaged, s": (averaged, "seconds", "{:.1f}"),
    }
    note = (
        f"`posterior_samples={posterior.N_SAMPLES}` beside the plain `fit`, rank 32, trained on train + validation. "
        f"Test RMSE and their ratio\nare means over {len(SEEDS)} seeds, beside the worst ratio of a seed; coverage and "
        f"seconds are medians. The call has\nboth plain fits and the calibration inside, compilation not.\n"
    )
    table = _tabulate(result, "posterior", "set", columns)
    return "\n".join([*table, "", note + _describe_machine(result), ""])


def format_implicit(result: dict[str, Any]) -> str:
    """Return the table of recommendations from implicit feedback, an entrant a row."""
    values, cases = _read(result, "implicit")
    metrics = [f"recall@{implicit.N}", f"ndcg@{implicit.N}"]
    names = {
        implicit.RIVAL: "`implicit`",
        implicit.OURS: '`fit(X, 64, unobserved="weak")`, choice of weights included',
        implicit.GIVEN: "the same with `validation=False`",
    }
    rows = [["", *metrics, "seconds", "over `implicit`"], ["---"] * 5]
    for case in cases:
        for name, title in names.items():
            cells = [_show(values.get((case, name, metric)), "{:.4f}") for metric in metrics]
            cells.append(_show(values.get((case, name, "seconds")), "{:.2f}"))
            ratio = _show(values.get((case, f"{name}/{implicit.RIVAL}", "time_ratio")), "{:.2f}")
            rows.append([title, *cells, ratio])
    note = (
        f"{implicit.CASE}; {implicit.REPEATS} fits of each in turns, each with its seed: means, medians of seconds.\n"
    )
    return "\n".join([*_lines(rows), "", note + _describe_machine(result, implicit.RIVAL), ""])


def format_own_loss(result: dict[str, Any]) -> str:
    """Return the table of epochs with a loss of one's own."""
    both = f"{own_loss.OWN}/{own_loss.BUILT_IN}"
    columns = {
        "built in, ms": (own_loss.BUILT_IN, "epoch", "{:.2f}"),
        "one's own, ms": (own_loss.OWN, "epoch", "{:.2f}"),
        "ratio": (both, "time_ratio", "{:.3f}"),
    }
    note = f"The squared loss, medians of {own_loss.REPEATS} fits of each in turns, of each the median epoch.\n"
    table = _tabulate(result, "own_loss", "matrix", columns)
    return "\n".join([*table, "", note + _describe_machine(result), ""])


FORMATS = {
    "accuracy": format_accuracy,
    "posterior": format_posterior,
    "implicit": format_implicit,
    "own_loss": format_own_loss,
}
