"""How our own epoch scales: with threads, entries, rank and precision, and what the layout costs beside it."""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from bench import generate, peers, recipes, timing
from bench.peers.base import CompletionPeer, Recipe
from bench.record import Recorder
from fastfactor.matrix.grid import Making, build_grid
from fastfactor.matrix.inputs import as_observations
from fastfactor.threads import using_threads

DESCRIPTION = "1 against 2 threads, 100M against 20M entries, ranks between widths, float64, layout over epoch"

OURS = "fastfactor"
WIDTHS = (8, 16, 32, 64, 128, 256)
BETWEEN = (10, 50, 100, 200)
Figures = dict[str, float]


def run(recorder: Recorder) -> None:
    ours = next(iter(peers.find_completion("ours", recorder)), None)
    if ours is None:
        return
    size = "5M" if recorder.quick else "20M"
    matrix = generate.standard_ratings(size)
    base = recipes.for_speed(OURS, 32, recorder.n_threads, n_epochs=5)
    cases = {f"{n} threads": replace(base, n_threads=n) for n in (1, 2)}
    cases["float64"] = replace(base, dtype="float64")
    epoch = _time(recorder, size, ours, matrix, cases)
    recorder.add(size, OURS, "speedup_2_threads", epoch["1 threads"] / epoch["2 threads"], "x", "higher")
    recorder.add(size, OURS, "float64_over_float32_speed", epoch["2 threads"] / epoch["float64"], "x", "higher")
    _time_layout(recorder, size, ours, matrix, base)
    _time_ranks(recorder, size, ours, matrix, base)
    if not recorder.quick:
        _time_sizes(recorder, ours, base)


def _time(
    recorder: Recorder, case: str, ours: CompletionPeer, matrix: sp.csr_matrix, cases: Mapping[str, Recipe]
) -> Figures:
    """Median seconds of an epoch for each recipe, taken in turns."""
    calls = {}
    for label, recipe in cases.items():
        ours.warm_up(recipe)
        fitted = matrix.astype(recipe.dtype, copy=False)
        calls[label] = lambda recipe=recipe, fitted=fitted: ours.fit(fitted, recipe).seconds_per_epoch
    samples = timing.interleave(calls, 3 if recorder.quick else 5)
    return {label: recorder.add(f"{case}, {label}", OURS, "epoch", taken) for label, taken in samples.items()}


def _time_layout(recorder: Recorder, size: str, ours: CompletionPeer, matrix: sp.csr_matrix, recipe: Recipe) -> None:
    """The layout (checks of the arrays, CSR to grid) in epochs, and all that comes before the first epoch."""

    def lay_out() -> float:
        start = time.perf_counter()
        with using_threads(recipe.n_threads):
            X = as_observations(matrix)
            build_grid(X, Making(X.mean, X.std, np.dtype(recipe.dtype), recipe.seed))
        return time.perf_counter() - start

    layout, start = [], []
    for _ in range(3 if recorder.quick else 5):
        result = ours.fit(matrix, recipe)
        layout.append(lay_out() / result.seconds_per_epoch)
        start.append(result.ends[0] / result.seconds_per_epoch - 1.0)
    recorder.add(size, OURS, "layout_over_epoch", layout, "epochs")
    recorder.add(size, OURS, "start_over_epoch", start, "epochs")


def _time_ranks(recorder: Recorder, size: str, ours: CompletionPeer, matrix: sp.csr_matrix, base: Recipe) -> None:
    """Ranks between the widths, against linear interpolation between the epochs of the neighbouring widths."""
    ranks = sorted({*WIDTHS, *BETWEEN, 512}) if not recorder.quick else (8, 10, 16, 32, 50, 64)
    epoch = _time(recorder, size, ours, matrix, {f"rank {rank}": replace(base, rank=rank) for rank in ranks})
    for rank in BETWEEN:
        if rank not in ranks:
            continue
        below = max(width for width in WIDTHS if width < rank)
        above = min(width for width in WIDTHS if width > rank)
        share = (rank - below) / (above - below)
        expected = (1 - share) * epoch[f"rank {below}"] + share * epoch[f"rank {above}"]
        recorder.add(f"{size}, rank {rank}", OURS, "over_interpolation", epoch[f"rank {rank}"] / expected, "x")


def _time_sizes(recorder: Recorder, ours: CompletionPeer, base: Recipe) -> None:
    """Seconds per entry at 100M over those at 20M; both matrices in memory, fitted in turns."""
    matrices = {size: generate.standard_ratings(size) for size in ("20M", "100M")}
    calls = {size: lambda m=matrix: ours.fit(m, base).seconds_per_epoch / m.nnz for size, matrix in matrices.items()}
    samples = timing.interleave(calls, 5)
    per_entry = {
        size: recorder.add(f"{size}, rank {base.rank}", OURS, "per_entry", [1e9 * s for s in taken], "ns")
        for size, taken in samples.items()
    }
    recorder.add("100M / 20M", OURS, "per_entry_ratio", per_entry["100M"] / per_entry["20M"], "x")
