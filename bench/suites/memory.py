"""Growth of the peak of resident memory during a fit and an SVD, each in a process of its own, after a warm-up."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import generate, peers, recipes, timing
from bench.peers.base import CompletionPeer, Matrix, SvdPeer
from bench.record import Recorder

DESCRIPTION = "growth of peak resident memory during a fit and an SVD, after warm-up"

RANK = 32
SVD_K = 50


def run(recorder: Recorder) -> None:
    if not Path("/proc/self/clear_refs").exists():
        recorder.skip("all", "resetting the peak of resident memory needs Linux")
        return
    for size in ("5M",) if recorder.quick else ("20M", "100M"):
        for file in ("ours", "libmf"):
            _record_fit(recorder, size, file)
    n_rows = 100_000 if recorder.quick else 778_000
    for file in ("ours_svds", "scipy_svds"):
        _record_svd(recorder, n_rows, file)


def measure_fit(size: str, file: str, n_threads: int) -> dict[str, float]:
    """Bytes by which a fit pushes the peak; runs inside the measured process."""
    peer = next(peer for peer in peers.load(file)[0] if isinstance(peer, CompletionPeer))
    recipe = recipes.for_speed(peer.name, RANK, n_threads, n_epochs=2)
    peer.fit(generate.rating_matrix(500, 400, 20_000), replace(recipe, n_epochs=1))
    matrix = generate.standard_ratings(size)
    growth = _peak_growth(lambda: peer.fit(matrix, recipe))
    return {"growth": growth, "nnz": matrix.nnz, "factors": 4.0 * RANK * sum(matrix.shape)}


def measure_svd(n_rows: int, file: str) -> dict[str, float]:
    """Bytes by which a truncated SVD pushes the peak, its result included; runs inside the measured process."""
    solver = next(peer for peer in peers.load(file)[0] if isinstance(peer, SvdPeer))
    solver.solve(generate.text_matrix(2_000, 500, 20_000), SVD_K, solver.default)
    matrix: Matrix = generate.text_matrix(n_rows, n_rows // 17, n_rows * 7)
    growth = _peak_growth(lambda: solver.solve(matrix, SVD_K, solver.default))
    return {"growth": growth, "result": 8.0 * SVD_K * sum(matrix.shape), "vector": 8.0 * min(matrix.shape)}


def _record_fit(recorder: Recorder, size: str, file: str) -> None:
    if not peers.find(file, recorder):
        return
    call = f"measure_fit({size!r}, {file!r}, {recorder.n_threads})"
    found = _in_new_process(call)
    case = f"fit, {size}, rank {RANK}"
    per_entry = (found["growth"] - 2 * found["factors"]) / found["nnz"]
    recorder.add(case, file, "growth", found["growth"] / 2**20, "MiB")
    recorder.add(case, file, "growth_less_two_factor_copies", per_entry, "B/entry")


def _record_svd(recorder: Recorder, n_rows: int, file: str) -> None:
    if not any(isinstance(peer, SvdPeer) for peer in peers.find(file, recorder)):
        return
    found = _in_new_process(f"measure_svd({n_rows}, {file!r})")
    case = f"svd, {n_rows} rows, k={SVD_K}"
    recorder.add(case, file, "growth", found["growth"] / 2**20, "MiB")
    recorder.add(case, file, "beyond_result", (found["growth"] - found["result"]) / found["vector"], "short vectors")


def _in_new_process(call: str) -> dict[str, float]:
    return timing.run_process(f"import json\nfrom bench.suites.memory import *\nprint(json.dumps({call}))")


def _peak_growth(call: Callable[[], object]) -> float:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    kept = call()
    growth = _status_bytes("VmHWM") - before
    del kept  # the result lives until the peak has been read
    return growth


def _status_bytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(float(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
