"""Exact top-n lists for everybody: ours, implicit's, and the matrix product that makes the scores alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from bench import timing
from bench.record import Recorder

DESCRIPTION = "the 20 best of 50,000 items for each of 100,000 users, rank 64, against implicit and a product alone"

RANK = 64
N = 20
N_SEEN = 20  # a user, on average
PART = 2000  # rows that the product alone makes at once


def run(recorder: Recorder) -> None:
    import fastfactor as ff

    n_users, n_items = (10_000, 20_000) if recorder.quick else (100_000, 50_000)
    rng = np.random.default_rng(0)
    U, V = (rng.standard_normal((n, RANK), dtype=np.float32) for n in (n_users, n_items))
    seen = sp.csr_matrix(sp.random_array((n_users, n_items), density=N_SEEN / n_items, rng=rng, dtype=np.float32))
    model = ff.Factorization(U, V, np.float32(0), np.zeros(n_users, np.float32), np.zeros(n_items, np.float32))
    users = np.arange(n_users)
    calls: dict[str, Callable[[], Any]] = {
        "fastfactor": lambda: model.recommend(users, N, exclude=seen, n_threads=recorder.n_threads),
        "product alone": lambda: _multiply(U, V),
        **_implicit(recorder, U, V, seen),
    }
    calls["fastfactor"]()  # compiles
    timed = {name: lambda call=call: timing.time_call(call) for name, call in calls.items()}
    samples = timing.interleave(timed, 5)
    case = f"{n_users:,} x {n_items:,}, rank {RANK}, n = {N}"
    taken = {name: recorder.add(case, name, "seconds", seconds) for name, seconds in samples.items()}
    for name in taken:
        if name != "fastfactor":
            recorder.add(case, name, "of_ours", taken[name] / taken["fastfactor"], "x", better="higher")


def _implicit(recorder: Recorder, U: Any, V: Any, seen: sp.csr_matrix) -> dict[str, Callable[[], Any]]:
    """Return implicit's way, with its BLAS on one thread, as it asks for, and as it comes."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError as error:
        recorder.skip("implicit", str(error))
        return {}
    peer = AlternatingLeastSquares(factors=RANK, num_threads=recorder.n_threads)
    peer.user_factors, peer.item_factors = U, V
    users = np.arange(len(U))

    def recommend() -> None:
        peer.recommend(users, seen, N=N, filter_already_liked_items=True)

    def recommend_with_one() -> None:
        with threadpool_limits(1, "blas"):
            recommend()

    return {"implicit, one BLAS thread": recommend_with_one, "implicit as it comes": recommend}


def _multiply(U: Any, V: Any) -> None:
    out = np.empty((PART, len(V)), np.float32)
    for start in range(0, len(U), PART):
        np.matmul(U[start : start + PART], V.T, out=out[: len(U[start : start + PART])])
