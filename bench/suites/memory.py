"""Growth of the peak of resident memory during a fit and an SVD, each in a process of its own, after a warm-up.

Of a file with several peers the first is measured.
"""

from bench import generate, peers, recipes, timing
from bench.record import Recorder

DESCRIPTION = "growth of peak resident memory during a fit and an SVD, after warm-up"

RANK = 32
SVD_K = 50


def run(recorder: Recorder) -> None:
    if not timing.can_measure_peaks():
        recorder.skip("all", "resetting the peak of resident memory needs Linux")
        return
    for file in ("ours", "libmf"):
        for peer in peers.find_completion(file, recorder)[:1]:
            for size in ("5M",) if recorder.quick else ("20M", "100M"):
                _record_fit(recorder, size, file, peer.name)
    for file in ("ours_svds", "scipy_svds"):
        for peer in peers.find_svd(file, recorder)[:1]:
            _record_svd(recorder, 100_000 if recorder.quick else 778_000, file, peer.name)


def measure_fit(size: str, file: str, n_threads: int) -> dict[str, float]:
    """Bytes by which a fit pushes the peak; runs inside the measured process."""
    peer = peers.find_completion(file, Recorder())[0]
    recipe = recipes.for_speed(peer.name, RANK, n_threads, n_epochs=2)
    peer.warm_up(recipe)
    matrix = generate.standard_ratings(size)
    growth, _ = timing.measure_peak(lambda: peer.fit(matrix, recipe))
    return {"growth": growth, "nnz": matrix.nnz, "factors": 4.0 * RANK * sum(matrix.shape)}


def measure_svd(n_rows: int, file: str) -> dict[str, float]:
    """Bytes by which a truncated SVD pushes the peak, its result included; runs inside the measured process."""
    solver = peers.find_svd(file, Recorder())[0]
    solver.solve(generate.text_matrix(2_000, 500, 20_000), SVD_K, solver.default)
    matrix = generate.text_matrix(n_rows, n_rows // 17, n_rows * 7)
    growth, _ = timing.measure_peak(lambda: solver.solve(matrix, SVD_K, solver.default))
    return {"growth": growth, "result": 8.0 * SVD_K * sum(matrix.shape), "vector": 8.0 * min(matrix.shape)}


def _record_fit(recorder: Recorder, size: str, file: str, name: str) -> None:
    found = timing.call_apart(__name__, f"measure_fit({size!r}, {file!r}, {recorder.n_threads})")
    case = f"fit, {size}, rank {RANK}"
    per_entry = (found["growth"] - 2 * found["factors"]) / found["nnz"]
    recorder.add(case, name, "growth", found["growth"] / 2**20, "MiB")
    recorder.add(case, name, "growth_less_two_factor_copies", per_entry, "B/entry")


def _record_svd(recorder: Recorder, n_rows: int, file: str, name: str) -> None:
    found = timing.call_apart(__name__, f"measure_svd({n_rows}, {file!r})")
    case = f"svd, {n_rows} rows, k={SVD_K}"
    recorder.add(case, name, "growth", found["growth"] / 2**20, "MiB")
    recorder.add(case, name, "beyond_result", (found["growth"] - found["result"]) / found["vector"], "short vectors")
