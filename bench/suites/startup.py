"""What a short script waits for: the import, and the first fit in a new process with and without compiled kernels."""

import tempfile
from pathlib import Path

import scipy.sparse as sp

from bench import data, generate, peers, timing
from bench.record import Recorder

DESCRIPTION = "import time over numpy and scipy.sparse; first fit in a new process, with and without kernel cache"

_BASE = "import numpy, scipy.sparse"
_FIT = """
import scipy.sparse
matrix = scipy.sparse.load_npz({path!r})
import fastfactor
fastfactor.fit(matrix, rank=32, regularization=0.05, learning_rate=0.03, max_epochs=20, validation=False)
"""


def run(recorder: Recorder) -> None:
    if not peers.find_completion("ours", recorder):
        return
    _time_import(recorder)
    try:
        name, matrix = "ml-100k", data.load("ml-100k")
    except data.MissingDataError as error:
        recorder.skip("ml-100k", f"{error}; a generated matrix of its size instead")
        name, matrix = "generated", generate.rating_matrix(943, 1682, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matrix.npz"
        sp.save_npz(path, matrix, compressed=False)
        _time_first_fit(recorder, f"first fit, {name}", _FIT.format(path=str(path)), folder)


def _time_import(recorder: Recorder) -> None:
    codes = {"base": _BASE, "numba": f"{_BASE}, numba", "fastfactor": f"{_BASE}, fastfactor"}
    calls = {label: lambda code=code: timing.time_process(code) for label, code in codes.items()}
    for call in calls.values():
        call()
    samples = timing.interleave(calls, 5 if recorder.quick else 11)
    for label, taken in samples.items():
        recorder.add("import", label, "seconds", taken)
    over_base = [1e3 * (ours - base) for ours, base in zip(samples["fastfactor"], samples["base"], strict=True)]
    recorder.add("import", "fastfactor", "over_numpy_and_scipy", over_base, "ms")


def _time_first_fit(recorder: Recorder, case: str, code: str, folder: str) -> None:
    """Whole processes, imports included. Every uncached run gets an empty cache folder of its own."""
    cold = []
    for attempt in range(1 if recorder.quick else 3):
        environment = {"NUMBA_CACHE_DIR": str(Path(folder) / f"cache{attempt}")}
        cold.append(timing.time_process(code, environment))
    warm = [timing.time_process(code, environment) for _ in range(3 if recorder.quick else 7)]
    recorder.add(case, "fastfactor", "without_cache", cold)
    recorder.add(case, "fastfactor", "with_cache", warm)
