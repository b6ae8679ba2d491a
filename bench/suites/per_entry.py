"""Every entry of a real matrix counts: descent on single entries, `svd` and scipy, error against time.

Each point is a call of its own with a budget: a number of epochs, or a tolerance. The error is |A - U V'| / |A| above
the smallest one that a matrix of that rank can have (Eckart and Young), as a share of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

import fastfactor as ff
from bench import data, timing
from bench.peers.base import Matrix
from bench.record import Recorder

DESCRIPTION = "every entry counts: error against time of per-entry SGD, of fastfactor.svd and scipy"

RANK = 50
MATRICES = ("olivetti", "pbmc3k-1000", "kos")
QUICK_MATRICES = ("olivetti",)
EPOCHS = (2, 5, 10, 20, 40, 80, 160, 320)
PATIENCE, QUICK_PATIENCE = 20.0, 3.0  # seconds; a budget that took so long is the last one
TOLERANCES = {"fastfactor.svd": (0.3, 0.1, 1e-2, 1e-4, 1e-6), "scipy": (0.3, 0.1, 1e-2, 1e-4, 0.0)}
MEASURE = "relative error above the optimum"

Factors = tuple[NDArray[np.floating], NDArray[np.floating]]


def run(recorder: Recorder) -> None:
    for name in QUICK_MATRICES if recorder.quick else MATRICES:
        try:
            matrix = data.load(name).astype(np.float32)
        except data.MissingDataError as error:
            recorder.skip(name, str(error))
            continue
        _follow(recorder, name, matrix)


def _follow(recorder: Recorder, name: str, matrix: Matrix) -> None:
    """Time the first budget of each peer in turns, then the second, and so on; then what the results are worth.

    A point of a curve is the shortest of its samples: what else runs on the machine only ever adds to them.
    """
    norm, optimum = _optimum(matrix)
    recorder.add(name, "any", "smallest_relative_error", optimum, "", exact=True)
    whole = matrix.toarray() if sp.issparse(matrix) else np.ascontiguousarray(matrix)
    contestants = dict(_contestants(matrix, whole, recorder.n_threads))
    curves: dict[str, list[tuple[float, float]]] = {peer: [] for peer in contestants}
    for budgets in contestants.values():
        next(iter(budgets.values()))()  # compiles; not counted
    for turn in range(max(map(len, contestants.values()))):
        calls = {p: _Call(*list(budgets.items())[turn]) for p, budgets in contestants.items() if turn < len(budgets)}
        last = {peer: curve[-1][0] for peer, curve in curves.items() if curve}
        if max(last.values(), default=0.0) > (QUICK_PATIENCE if recorder.quick else PATIENCE):
            break
        taken: dict[str, list[float]] = {}
        for repeats, slow in ((5, False), (1, True)):
            chosen = {p: partial(timing.time_call, c) for p, c in calls.items() if (last.get(p, 0.0) > 3) is slow}
            taken |= timing.interleave(chosen, repeats)
        for peer, call in calls.items():
            case = f"{name}, budget {call.budget:g}"
            excess = _error(whole, call.factors) / norm / optimum - 1
            recorder.add(case, peer, "seconds", taken[peer])
            curves[peer].append((min(taken[peer]), recorder.add(case, peer, "excess_error", excess, "", better="")))
    for peer, curve in curves.items():
        recorder.add_curve(name, peer, *zip(*curve, strict=True), MEASURE)


@dataclass
class _Call:
    """One solver with one budget; keeps what came out last."""

    budget: float
    solve: Callable[[], Factors]
    factors: Factors = (np.empty((0, 0)), np.empty((0, 0)))

    def __call__(self) -> None:
        self.factors = self.solve()


def _optimum(matrix: Matrix) -> tuple[float, float]:
    """Return |A| and the smallest relative error, in float64."""
    exact = matrix.astype(np.float64)
    result = ff.svd(exact, RANK)
    return float(result.frobenius_norm), result.approximation_error() / float(result.frobenius_norm)


def _contestants(
    matrix: Matrix, whole: NDArray[np.float32], n_threads: int
) -> Iterator[tuple[str, dict[float, Callable[[], Factors]]]]:
    """Yield each peer with what to call for each budget, from small to large."""

    def descend(n_epochs: int) -> Factors:
        model = ff.fit(whole, RANK, unobserved="zero", max_epochs=n_epochs, n_threads=n_threads)
        return model.U, model.V

    def pass_over(tol: float) -> Factors:
        U, s, Vt = ff.svd(matrix, RANK, tol=tol, n_threads=n_threads)
        return U * s, Vt.T

    def ask_scipy(solver: str, tol: float) -> Factors:
        U, s, Vt = svds(matrix, RANK, tol=tol, solver=solver, rng=0)
        return U * s, Vt.T

    yield "per-entry SGD", {n: partial(descend, n) for n in EPOCHS}
    yield "fastfactor.svd", {tol: partial(pass_over, tol) for tol in TOLERANCES["fastfactor.svd"]}
    for solver in ("arpack", "propack"):
        yield f"scipy {solver}", {tol: partial(ask_scipy, solver, tol) for tol in TOLERANCES["scipy"]}


def _error(whole: NDArray[np.float32], factors: Factors, rows: int = 1000) -> float:
    """Return |A - U V'|, in float64, some rows at a time."""
    U, V = (np.asarray(side, np.float64) for side in factors)
    parts = (slice(start, start + rows) for start in range(0, len(U), rows))
    return float(np.sqrt(sum(np.sum((whole[part] - U[part] @ V.T) ** 2) for part in parts)))
