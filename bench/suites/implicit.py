"""Implicit feedback on gowalla: the lists of `fit(X, 64, unobserved="weak")` beside those of implicit's ALS."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

import fastfactor as ff
from bench import data, timing
from bench.record import Recorder

DESCRIPTION = "recall@20, ndcg@20 and seconds on gowalla, rank 64, against implicit's alternating least squares"

RANK = 64
N = 20
REPEATS = 5  # each with a seed of its own
OURS, GIVEN, RIVAL = "fastfactor", "fastfactor, nothing chosen", "implicit"
CASE = f"gowalla, rank {RANK}"


@dataclass(frozen=True)
class _Entrant:
    """How to fit with a seed, and how to make lists of what was fitted."""

    fit: Callable[[int], Any]
    recommend: Callable[[Any], Any]


def run(recorder: Recorder) -> None:
    try:
        seen, wanted = (sp.csr_matrix(data.load(name)).astype(np.float32) for name in ("gowalla", "gowalla-test"))
    except data.MissingDataError as error:
        recorder.skip(CASE, str(error))
        return
    users = np.arange(seen.shape[0])

    def recommend(model: ff.Factorization) -> Any:
        return model.recommend(users, N, exclude=seen, n_threads=recorder.n_threads)[0]

    def fit(seed: int, **given: Any) -> ff.Factorization:
        return ff.fit(seen, RANK, unobserved="weak", seed=seed, n_threads=recorder.n_threads, **given)

    entrants = {
        OURS: _Entrant(fit, recommend),
        GIVEN: _Entrant(lambda seed: fit(seed, validation=False), recommend),
        **_find_implicit(recorder, seen),
    }
    fit(0)  # compiles
    _judge(recorder, entrants, wanted)


def _find_implicit(recorder: Recorder, seen: sp.csr_matrix) -> dict[str, _Entrant]:
    """Return implicit's way with the options that were settled for this matrix, its BLAS on one thread, as it asks."""
    if RIVAL in recorder.left_out:
        return {}
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError as error:
        recorder.skip(RIVAL, str(error))
        return {}
    options = {"factors": RANK, "alpha": 10.0, "regularization": 0.05, "iterations": 15}

    def fit(seed: int) -> Any:
        with threadpool_limits(1, "blas"):
            peer = AlternatingLeastSquares(**options, num_threads=recorder.n_threads, random_state=seed)
            peer.fit(seen, show_progress=False)
        return peer

    def recommend(peer: Any) -> Any:
        with threadpool_limits(1, "blas"):
            return peer.recommend(np.arange(seen.shape[0]), seen, N=N, filter_already_liked_items=True)[0]

    return {RIVAL: _Entrant(fit, recommend)}


def _judge(recorder: Recorder, entrants: dict[str, _Entrant], wanted: sp.csr_matrix) -> None:
    """Fit all in turns, and keep the means of what their lists are worth."""
    metrics = {f"recall@{N}": ff.metrics.recall_at_k, f"ndcg@{N}": ff.metrics.ndcg_at_k}
    seconds: dict[str, list[float]] = {name: [] for name in entrants}
    scores: dict[tuple[str, str], list[float]] = {(name, metric): [] for name in entrants for metric in metrics}
    for seed in range(1 if recorder.quick else REPEATS):
        for name, entrant in entrants.items():
            time.sleep(timing.SETTLED)
            start = time.perf_counter()
            model = entrant.fit(seed)
            seconds[name].append(time.perf_counter() - start)
            lists = entrant.recommend(model)
            for metric, judge in metrics.items():
                scores[name, metric].append(judge(lists, wanted, N))
    for name in entrants:
        for metric in metrics:
            recorder.add(CASE, name, metric, mean(scores[name, metric]), "", better="higher", exact=name != RIVAL)
        recorder.add(CASE, name, "seconds", seconds[name])
        if RIVAL in entrants and name != RIVAL:
            ratio = median(seconds[name]) / median(seconds[RIVAL])
            recorder.add(CASE, f"{name}/{RIVAL}", "time_ratio", ratio, "x")
