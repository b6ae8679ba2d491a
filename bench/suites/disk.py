"""Fits of a grid on disk against the same fits in memory: time per epoch, peak of resident memory, equal bits; passes.

A pass is one reading of the matrix for a truncated SVD, eight vectors at a time. Each measurement runs in a process of
its own that has compiled before. In "cold" ones each epoch or pass begins with nothing of the folder in the system's
cache; "disk alone" is what reading the same bytes takes without work on them.
"""

import hashlib
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from bench import generate, timing
from bench.record import Recorder
from fastfactor.manifest import MANIFEST

DESCRIPTION = "fits of a grid on disk against fits in memory: time per epoch, peak memory, and the building of the grid"

RANK = 32
REPEATS = 3
_REQUEST = 1 << 17  # bytes; larger ones are slower, since they leave the second-level cache
WHERE = ("memory", "disk", "disk, cold")


def run(recorder: Recorder) -> None:
    if not timing.can_measure_peaks():
        recorder.skip("all", "resetting the peak of resident memory needs Linux")
        return
    for size in ("5M",) if recorder.quick else ("20M", "100M"):
        with tempfile.TemporaryDirectory(dir=os.environ.get("FASTFACTOR_BENCH_FOLDER")) as folder:
            matrix = generate.standard_ratings(size)
            np.savez(Path(folder) / "matrix.npz", data=matrix.data, indices=matrix.indices, indptr=matrix.indptr)
            generate.write_table(matrix, Path(folder) / "table.parquet")
            generate.write_table(matrix, Path(folder) / "table.csv")
            sp.save_npz(Path(folder) / "scipy.npz", matrix, compressed=False)
            del matrix
            _compare(recorder, size, Path(folder))


def _compare(recorder: Recorder, size: str, folder: Path) -> None:
    for name in ("table.parquet", "table.csv", "scipy.npz"):
        built = timing.call_apart(__name__, f"measure_build({str(folder)!r}, {name!r})")
        recorder.add(size, f"build from {name.split('.')[1]}", "seconds", built["seconds"])
        recorder.add(size, f"build from {name.split('.')[1]}", "growth", built["growth"] / 2**20, "MiB")
    found = _take_turns("measure_fit", folder, recorder.n_threads)
    alone = recorder.add(size, "disk alone", "read", [sample["alone"] for sample in found["disk, cold"]])
    medians = {}
    for name, samples in found.items():
        case = f"{size}, rank {RANK}"
        medians[name] = recorder.add(case, name, "epoch", [sample["epoch"] for sample in samples])
        recorder.add(case, name, "growth", [sample["growth"] / 2**20 for sample in samples], "MiB")
    for name in ("disk", "disk, cold"):
        recorder.add(size, name, "epoch_over_memory", medians[name] / medians["memory"], "x")
    recorder.add(size, "disk, cold", "epoch_over_disk_alone", medians["disk, cold"] / alone, "x")
    _compare_passes(recorder, size, folder)
    equal = {sample["digest"] for samples in found.values() for sample in samples}
    recorder.add(size, "fastfactor", "different_models", len(equal), "", better="")


def _compare_passes(recorder: Recorder, size: str, folder: Path) -> None:
    found = _take_turns("measure_pass", folder, recorder.n_threads)
    for name, samples in found.items():
        recorder.add(size, name, "pass", [sample["pass"] for sample in samples])
        recorder.add(size, name, "growth in passes", [sample["growth"] / 2**20 for sample in samples], "MiB")
    recorder.add(size, "disk alone", "read for a pass", [sample["alone"] for sample in found["disk, cold"]])


def _take_turns(function: str, folder: Path, n_threads: int) -> dict[str, list[dict[str, Any]]]:
    """Return what a function below says of the matrix in each place, measured in turns, each time in a new process."""
    found: dict[str, list[dict[str, Any]]] = {where: [] for where in WHERE}
    for _ in range(REPEATS):
        for where, samples in found.items():
            samples.append(timing.call_apart(__name__, f"{function}({str(folder)!r}, {where!r}, {n_threads})"))
    return found


def measure_build(folder: str, name: str) -> dict[str, float]:
    """Seconds, and bytes by which building a grid pushes the peak; runs inside the measured process."""
    import fastfactor as ff

    _warm_up(1)
    building = partial(ff.io.build_grid, Path(folder) / name, Path(folder) / "grid")
    growth, seconds = timing.measure_peak(lambda: timing.time_call(building))
    return {"growth": growth, "seconds": seconds}


def measure_fit(folder: str, where: str, n_threads: int) -> dict[str, Any]:
    """Seconds per epoch, growth of the peak, and a digest of the model; runs inside the measured process."""
    import fastfactor as ff

    _warm_up(n_threads)
    if where == "memory":
        with np.load(Path(folder) / "matrix.npz") as arrays:
            indptr = arrays["indptr"]
            matrix = sp.csr_matrix((arrays["data"], arrays["indices"], indptr), shape=_shape(folder))
    else:
        matrix = ff.io.open_grid(Path(folder) / "grid")
    watch = _Stopwatch(Path(folder) / "grid" if where.endswith("cold") else None)
    growth, model = timing.measure_peak(lambda: _fit(matrix, n_threads, watch))
    digest = hashlib.sha256(model.U.tobytes() + model.V.tobytes()).hexdigest()
    epoch = float(np.median(watch.seconds[1:]))
    return {"growth": growth, "epoch": epoch, "digest": digest, "alone": _median(watch.alone)}


def _median(seconds: list[float]) -> float:
    return float(np.median(seconds)) if seconds else float("nan")


class _Stopwatch:
    """Callback of a fit that times its epochs, and forgets the grid between them, which takes a tenth of a second.

    What the disk alone takes is measured there too: it changes from minute to minute.
    """

    def __init__(self, grid: Path | None) -> None:
        self.grid = grid
        self.seconds: list[float] = []
        self.alone: list[float] = []
        self.start = float("nan")

    def __call__(self, _: Any) -> None:
        """Note that an epoch has ended."""
        self.seconds.append(time.perf_counter() - self.start)
        if self.grid is not None:
            self.alone.append(_read(_find_files(self.grid)["entries"]))
            drop_from_cache(self.grid)
        self.start = time.perf_counter()


def measure_pass(folder: str, where: str, n_threads: int) -> dict[str, float]:
    """Seconds that B^H B X takes, and growth of the peak; runs inside the measured process."""
    import fastfactor as ff
    from fastfactor.blas import aligned_zeros
    from fastfactor.matrix.operand import BLOCK, N_SLICES
    from fastfactor.matrix.operators import as_operand
    from fastfactor.matrix.streaming import as_stream
    from fastfactor.threads import using_threads

    files = _find_files(Path(folder) / "grid")
    A = ff.io.open_grid(Path(folder) / "grid").matrix
    parts = [np.array(part) if where == "memory" else part for part in (A.data, A.indices, A.indptr)]
    A = sp.csr_array(tuple(parts), shape=A.shape)
    operand = as_operand(A, n_threads, np.random.default_rng(0)) if where == "memory" else as_stream(A, False)
    X = aligned_zeros((operand.n, BLOCK), operand.dtype)
    X[:] = 1e-3
    sums, taken, alone = aligned_zeros((N_SLICES, operand.n, BLOCK), operand.dtype), [], []

    def repeat() -> None:
        for _ in range(5):
            if where.endswith("cold"):
                alone.append(_read(*(files[name] for name in ("indices", "data"))))
                drop_from_cache(Path(folder) / "grid")
            taken.append(timing.time_call(lambda: operand.add_gram(X, sums)))

    with using_threads(n_threads):
        operand.add_gram(X, sums)  # compiles
        growth, _ = timing.measure_peak(repeat)
    return {"growth": growth, "pass": float(np.median(taken)), "alone": _median(alone)}


def drop_from_cache(folder: Path) -> None:
    """Have the system forget what it keeps of the files in a folder."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _find_files(grid: Path) -> dict[str, Path]:
    arrays = json.loads((grid / MANIFEST).read_text())["arrays"]
    return {name: grid / arrays[name]["file"] for name in ("entries", "indices", "data")}


def _read(*paths: Path) -> float:
    """Seconds that the disk needs for files of a grid that are not in the system's cache."""
    drop_from_cache(paths[0].parent)
    buffer = bytearray(_REQUEST)

    def read() -> None:
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    return timing.time_call(read)


def _fit(matrix: Any, n_threads: int, callback: Any = None) -> Any:
    import fastfactor as ff

    options = {"max_epochs": 6, "regularization": 0.05, "validation": False, "callback": callback}
    return ff.fit(matrix, RANK, n_threads=n_threads, **options)


def _warm_up(n_threads: int) -> None:
    """Compile, or load, what fits in memory and on disk and the reading of tables need."""
    import fastfactor as ff

    matrix = generate.rating_matrix(3_000, 2_000, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        generate.write_table(matrix, path)
        ff.io.build_grid(path, Path(folder) / "table")
        _fit(ff.io.build_grid(matrix, Path(folder) / "grid"), n_threads)
    _fit(matrix, n_threads)


def _shape(folder: str) -> tuple[int, int]:
    import fastfactor as ff

    return ff.io.open_grid(Path(folder) / "grid").shape
