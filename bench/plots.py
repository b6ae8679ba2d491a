"""Pictures of a result: error against time, and speed by rank. Readable in grey: markers and lines differ as well."""

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.figures import style

Result = dict[str, Any]

_OPTIMUM = 1e-6  # an excess over the smallest error that is drawn as none


def draw_all(result: Result) -> dict[str, Figure]:
    """Return the pictures that a result has figures for, by name; close them when they are saved."""
    matplotlib.use("agg")
    suites = sorted({curve["suite"] for curve in result["curves"]})
    drawn = {suite.replace("_", "-"): draw_curves(result, suite) for suite in suites}
    if any(item["metric"] == "updates_per_second" for item in result["measurements"]):
        drawn["epochs"] = draw_speed(result)
    return drawn


def save_all(result: Result, stem: Path) -> list[Path]:
    """Write the pictures beside a result file; return their paths."""
    paths = []
    for name, figure in draw_all(result).items():
        paths.append(stem.with_name(f"{stem.name}-{name}.png"))
        figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    return paths


def draw_curves(result: Result, suite: str) -> Figure:
    """Error against time, a panel for each matrix."""
    curves = [curve for curve in result["curves"] if curve["suite"] == suite]
    cases = list(dict.fromkeys(curve["case"] for curve in curves))
    figure, panels = plt.subplots(1, len(cases), figsize=(1 + 4 * len(cases), 3.8), squeeze=False, layout="constrained")
    for axes, case in zip(panels[0], cases, strict=True):
        _draw_case(axes, [curve for curve in curves if curve["case"] == case])
        axes.set_title(case)
    panels[0, 0].set_ylabel(curves[0]["measure"])
    panels[0, 0].legend(frameon=False)
    _sign(figure, result)
    return figure


def _draw_case(axes: Axes, curves: list[dict[str, Any]]) -> None:
    is_excess = curves[0]["measure"] != "test RMSE"
    for curve in curves:
        errors = [max(error, _OPTIMUM) for error in curve["errors"]] if is_excess else curve["errors"]
        axes.plot(curve["seconds"], errors, **style.of(curve["peer"], markersize=5))
    if is_excess:
        axes.set_yscale("log")
        ticks = [10.0**k for k in range(-6, 1)]
        axes.set_yticks(ticks, [r"$\leq 10^{-6}$", *(f"$10^{{{k}}}$" for k in range(-5, 1))])
    else:
        ends = [min(curve["errors"]) for curve in curves]
        axes.set_ylim(min(ends) - 0.005, max(ends) + 0.12)
    axes.set(xscale="log", xlabel="seconds")
    style.label_plainly(axes.xaxis)
    axes.grid(alpha=0.3)


def draw_speed(result: Result) -> Figure:
    """Updates per second by rank."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    series: dict[str, list[tuple[int, float]]] = {}
    for item in result["measurements"]:
        if item["metric"] == "updates_per_second":
            rank = int(item["case"].rsplit(" ", 1)[1])
            series.setdefault(item["peer"], []).append((rank, item["value"]))
    for peer, points in series.items():
        axes.plot(*zip(*sorted(points), strict=True), **style.of(peer))
    ranks = sorted({rank for points in series.values() for rank, _ in points})
    axes.set(xscale="log", yscale="log", xlabel="rank", ylabel="million updates per second")
    axes.set_xticks(ranks, [str(rank) for rank in ranks], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    style.label_plainly(axes.yaxis)
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    _sign(figure, result)
    return figure


def _sign(figure: Figure, result: Result) -> None:
    where = f"{result['machine']['processor']}, {result['n_threads']} threads, {result['date'][:10]}"
    figure.supxlabel(where, fontsize=7, color="0.4")
