"""Pictures of one result file: error against time, and speed by rank. Readable in grey: markers differ as well."""

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.figures import style


def draw_all(result: dict[str, Any], stem: Path) -> list[Path]:
    """Write the pictures that a result has figures for beside it; return their paths."""
    matplotlib.use("agg")
    drawn = []
    if result["curves"]:
        drawn.append(_draw_curves(result, stem.with_name(f"{stem.name}-time-to-rmse.png")))
    if any(item["metric"] == "updates_per_second" for item in result["measurements"]):
        drawn.append(_draw_speed(result, stem.with_name(f"{stem.name}-epochs.png")))
    return drawn


def _draw_curves(result: dict[str, Any], path: Path) -> Path:
    cases = sorted({curve["case"] for curve in result["curves"]})
    figure, panels = plt.subplots(1, len(cases), figsize=(6 * len(cases), 4.2), squeeze=False, layout="constrained")
    for axes, case in zip(panels[0], cases, strict=True):
        curves = [curve for curve in result["curves"] if curve["case"] == case]
        for curve in curves:
            colour, marker, line = style.PEERS.get(curve["peer"], style.OTHER)
            options = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4}
            axes.plot(curve["seconds"], curve["test_rmse"], label=curve["peer"], **options)
        best = min(min(curve["test_rmse"]) for curve in curves)
        worst = max(min(curve["test_rmse"]) for curve in curves)
        axes.set(xscale="log", ylim=(best - 0.005, worst + 0.12), title=case)
        style.label_plainly(axes.xaxis)
        _finish(axes, "seconds since the matrix was in memory", "test RMSE")
    return _save(figure, path, result)


def _draw_speed(result: dict[str, Any], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(6, 4.2), layout="constrained")
    series: dict[str, list[tuple[int, float]]] = {}
    for item in result["measurements"]:
        if item["metric"] == "updates_per_second":
            rank = int(item["case"].rsplit(" ", 1)[1])
            series.setdefault(item["peer"], []).append((rank, item["value"]))
    for peer, points in series.items():
        colour, marker, line = style.PEERS.get(peer, style.OTHER)
        axes.plot(*zip(*sorted(points), strict=True), color=colour, marker=marker, linestyle=line, label=peer)
    ranks = sorted({rank for points in series.values() for rank, _ in points})
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(ranks, [str(rank) for rank in ranks], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    style.label_plainly(axes.yaxis)
    _finish(axes, "rank", "million updates per second")
    return _save(figure, path, result)


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)


def _save(figure: Figure, path: Path, result: dict[str, Any]) -> Path:
    figure.supxlabel(f"{result['machine']['processor']}, {result['n_threads']} threads", fontsize=7, color="0.4")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
