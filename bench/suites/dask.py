"""Fits and decompositions on a Dask `LocalCluster` of single-threaded workers, against the same in one process.

Fits are of a grid on disk; their error is that of entries that are held out. Decompositions are of dense chunks that
lie on the workers, against `dask.array.linalg.svd_compressed` with as many power iterations as our residual takes.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import generate
from bench.record import Recorder
from bench.suites.svd import compute_residual

DESCRIPTION = "fit and svd on a LocalCluster against one process; svd_compressed at equal residual"

RANK = 32
N_WORKERS = 2
OURS = f"dask, {N_WORKERS} workers"


def run(recorder: Recorder) -> None:
    if not has_distributed(recorder):
        return
    for size in ("5M",) if recorder.quick else ("20M", "100M"):
        with tempfile.TemporaryDirectory(dir=os.environ.get("FASTFACTOR_BENCH_FOLDER")) as folder:
            _fit(recorder, size, Path(folder))
    _decompose(recorder)


def has_distributed(recorder: Recorder) -> bool:
    """Whether Dask is there for clusters; where it is not, the recorder is told why."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        recorder.skip("all", f"dask.distributed: {error}")
        return False
    return True


@contextlib.contextmanager
def using_cluster(n_workers: int) -> Iterator[Any]:
    """Yield the client of a `LocalCluster` of processes with one thread each."""
    import distributed

    with (
        distributed.LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def time_epochs(model: Any) -> list[float]:
    """Seconds of each epoch but the first two, in which kernels are loaded and compiled."""
    return [float(seconds) for seconds in np.diff(model.history["seconds"])[1:]]


def _fit(recorder: Recorder, size: str, folder: Path) -> None:
    import fastfactor as ff

    grid = ff.io.build_grid(generate.standard_ratings(size), folder)
    n_epochs = 10 if recorder.quick else 20
    options: dict[str, Any] = {"max_epochs": n_epochs, "regularization": 0.05, "validation": 0.01}
    case, medians, errors = f"{size}, rank {RANK}", {}, {}
    with using_cluster(N_WORKERS) as client:
        start = time.perf_counter()
        models = {OURS: ff.dask.fit(grid, RANK, client=client, **options)}
        recorder.add(case, OURS, "whole_fit", time.perf_counter() - start)
    start = time.perf_counter()
    models["in process"] = ff.fit(grid, RANK, n_threads=N_WORKERS, **options)
    recorder.add(case, "in process", "whole_fit", time.perf_counter() - start)
    for name, model in models.items():
        medians[name] = recorder.add(case, name, "epoch", time_epochs(model))
        errors[name] = float(np.sqrt(model.history["validation_loss"][-1]))
        recorder.add(case, name, f"held-out RMSE, {n_epochs} epochs", errors[name], "", exact=True)
    recorder.add(case, OURS, "epoch_over_process", medians[OURS] / medians["in process"], "x")
    recorder.add(case, OURS, "rmse_over_process", errors[OURS] / errors["in process"], "x")


def _decompose(recorder: Recorder, k: int = 20) -> None:
    import dask
    import dask.array as da
    import distributed

    import fastfactor as ff

    shape = (4_000, 1_000) if recorder.quick else (20_000, 5_000)
    A = generate.decaying_dense(*shape)
    case = f"{shape[0]} x {shape[1]} dense, k = {k}"
    with using_cluster(N_WORKERS) as client:
        X = client.persist(da.from_array(A, chunks=(shape[0] // 8, shape[1])))
        distributed.wait(X)
        ff.dask.svd(X, 4, client=client)  # compiles

        def decompose() -> tuple[float, float]:
            start = time.perf_counter()
            found = ff.dask.svd(X, k, client=client, tol=1e-2)
            return time.perf_counter() - start, compute_residual(A, (found.U, found.s, found.Vt))

        def compress(n_iterations: int) -> tuple[float, float]:
            start = time.perf_counter()
            u, s, vt = dask.compute(*da.linalg.svd_compressed(X, k, n_power_iter=n_iterations, seed=0))
            return time.perf_counter() - start, compute_residual(A, (u, s, vt))

        goal = decompose()[1]
        n_iterations = next((n for n in range(6, 24, 2) if compress(n)[1] <= goal), 24)
        ours, theirs = zip(*((decompose(), compress(n_iterations)) for _ in range(5)), strict=True)
    mine = recorder.add(case, "fastfactor.dask.svd", "seconds", [taken for taken, _ in ours])
    other = recorder.add(case, f"svd_compressed, {n_iterations} iterations", "seconds", [taken for taken, _ in theirs])
    recorder.add(case, "fastfactor.dask.svd", "residual", goal, "", exact=True)
    recorder.add(case, f"svd_compressed, {n_iterations} iterations", "residual", theirs[0][1], "", exact=True)
    recorder.add(case, "fastfactor.dask.svd", "speedup", other / mine, "x", "higher")
