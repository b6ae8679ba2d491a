"""Truncated SVD at equal residual: every peer at the loosest setting that meets it, on the same matrix, in turns.

Residual: the largest over triplets of ||A v - s u|| and ||A' u - s v||, over the first singular value, in float64.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench import data, generate, peers, timing
from bench.peers.base import Matrix, SvdPeer, Triplets
from bench.record import Recorder

DESCRIPTION = (
    "truncated SVD at equal residual against scipy, scikit-learn and PRIMME; default tolerance on real matrices"
)

PEER_FILES = ("ours_svds", "scipy_svds", "primme_svds", "sklearn_svd")
SCIPY = ("scipy-arpack", "scipy-propack")
OURS = "fastfactor"

QUICK_REAL = ("kos", "ca-astroph", "olivetti")

# Seconds: a peer that spent this long looking for its setting looks no further, and one whose solve takes it is not
# repeated.
PATIENCE, QUICK_PATIENCE = 60.0, 4.0
TOO_SLOW_FOR_QUICK = ("scipy-lobpcg",)


@dataclass(frozen=True)
class Task:
    """One row of the table; a residual of None asks for every peer's default setting instead."""

    case: str
    matrix: Matrix
    k: int
    residual: float | None


def run(recorder: Recorder) -> None:
    solvers = [peer for file in PEER_FILES for peer in peers.find_svd(file, recorder)]
    if recorder.quick:
        for name in TOO_SLOW_FOR_QUICK:
            recorder.skip(name, "too slow for a quick run")
        solvers = [peer for peer in solvers if peer.name not in TOO_SLOW_FOR_QUICK]
    for task in _equal_residual_tasks(recorder.quick):
        _race(recorder, task, solvers)
    defaults = [peer for peer in solvers if peer.name in (OURS, *SCIPY)]
    for task in _default_tasks(recorder):
        _race(recorder, task, defaults)


def compute_residual(A: Matrix, triplets: Triplets) -> float:
    """Largest residual of any triplet over the first singular value, in float64 whatever the solver computed in."""
    U, s, Vt = (np.asarray(part, dtype=np.float64) for part in triplets)
    right = np.linalg.norm(A @ Vt.T - U * s, axis=0)
    left = np.linalg.norm(A.T @ U - Vt.T * s, axis=0)
    return float(max(right.max(), left.max()) / s.max())


def _patience(recorder: Recorder) -> float:
    return QUICK_PATIENCE if recorder.quick else PATIENCE


def _equal_residual_tasks(quick: bool) -> Iterator[Task]:
    """Yield the large sparse and dense generated matrices; each is built when its turn comes, and then let go."""
    shape = (40_000, 8_000, 280_000) if quick else (778_000, 47_000, 5_400_000)
    ranks = (50,) if quick else (50, 100)
    for label, n_topics in (("text, flat", 0), ("text, decaying", 150)):
        matrix = generate.text_matrix(*shape, n_topics=n_topics)
        for k in ranks:
            for residual in (1e-5, 1e-10):
                yield Task(f"{label}, k={k}, {residual:.0e}", matrix, k, residual)
    dense = generate.decaying_dense(*((4_000, 1_000) if quick else (20_000, 5_000)))
    yield Task("dense, decaying, k=50, 1e-10", dense, 50, 1e-10)


def _default_tasks(recorder: Recorder) -> Iterator[Task]:
    if not data.names():
        recorder.skip("real matrices", f"the environment variable {data.VARIABLE} names no folder of them")
    for name in data.names():
        if recorder.quick and name not in QUICK_REAL:
            continue
        matrix = data.load(name)
        for k in (6, 50):
            yield Task(f"{name}, k={k}, default", matrix, k, None)


def _race(recorder: Recorder, task: Task, solvers: list[SvdPeer]) -> None:
    """Find every peer's setting, then time all of them in turns; the search is not part of the samples."""
    calls: dict[str, Callable[[], float]] = {}
    slow: dict[str, float] = {}
    for solver in solvers:
        found = _find_effort(recorder, task, solver)
        if found is None:
            continue
        effort, seconds = found
        if seconds > _patience(recorder):
            slow[solver.name] = seconds
        else:
            calls[solver.name] = partial(timing.time_call, partial(solver.solve, task.matrix, task.k, effort))
    repeats = 3 if recorder.quick else 5 if task.matrix.shape[0] > 100_000 else 7
    samples: Mapping[str, list[float]] = timing.interleave(calls, repeats) | {n: [s] for n, s in slow.items()}
    times = {name: recorder.add(task.case, name, "seconds", taken) for name, taken in samples.items()}
    rivals = [times[name] for name in SCIPY if name in times]
    if OURS in times and rivals:
        recorder.add(task.case, f"scipy/{OURS}", "time_ratio", min(rivals) / times[OURS], "x", "higher")


def _find_effort(recorder: Recorder, task: Task, solver: SvdPeer) -> tuple[float, float] | None:
    """Return the loosest effort that meets the residual, and its seconds; None when none does, with the reason kept."""
    efforts = [solver.default] if task.residual is None else list(solver.plausible_efforts(task.residual))
    best, total = np.inf, 0.0
    for effort in efforts:
        try:
            if effort == efforts[0]:
                solver.warm_up(task.matrix, task.k)
            start = time.perf_counter()
            triplets = solver.solve(task.matrix, task.k, effort)
        except Exception as error:  # a peer may fail in its own way: that is a result, not the end of the run
            recorder.skip(f"{task.case}, {solver.name}", f"{type(error).__name__}: {str(error)[:120]}")
            return None
        seconds = time.perf_counter() - start
        residual = compute_residual(task.matrix, triplets)
        if task.residual is None or residual <= task.residual:
            recorder.add(task.case, solver.name, "residual", residual, "", better="")
            return effort, seconds
        best, total = min(best, residual), total + seconds
        if total > _patience(recorder):
            break
    recorder.skip(f"{task.case}, {solver.name}", f"residual {best:.1e} after {total:.0f} s")
    return None
