"""Micro level, with pytest-benchmark: `pytest bench --benchmark-enable`.

`fit` over every entry and `svds` stand side by side on the same matrices at the same rank, with their errors beside
their seconds; then `fit` over stored entries with its updates per second. Compilation happens in a warm-up round.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.sparse.linalg import svds

from bench import data, generate, machine

fastfactor = pytest.importorskip("fastfactor")

MATRICES = ("small-text", "small-dense", "olivetti", "mnist-t10k")
RANK = 50
N_EPOCHS = 20

Factors = tuple[NDArray[np.floating], NDArray[np.floating]]


@pytest.fixture(scope="module", params=MATRICES)
def named_matrix(request: pytest.FixtureRequest) -> tuple[str, NDArray[np.float64]]:
    """A dense matrix with its name; real ones are skipped, with the reason, where there is no data folder."""
    if request.param == "small-text":
        return request.param, generate.text_matrix(1_500, 500, 15_000, n_topics=60).toarray()
    if request.param == "small-dense":
        return request.param, generate.decaying_dense(800, 500)
    try:
        return request.param, data.load(request.param)
    except data.MissingDataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def optimum(named_matrix: tuple[str, NDArray[np.float64]]) -> float:
    """Relative Frobenius error of the best approximation of this rank, from the squares of the singular values."""
    matrix = named_matrix[1]
    s = svds(matrix, RANK, solver="propack", return_singular_vectors=False, rng=0)
    total = np.sum(matrix**2)
    return float(np.sqrt(max(total - np.sum(s**2), 0.0) / total))


@pytest.fixture(autouse=True)
def described(benchmark: BenchmarkFixture) -> None:
    """Write machine, versions and thread counts into every benchmark's result."""
    benchmark.extra_info.update(machine.describe(), n_threads=machine.n_cores())


def fit_every_entry(matrix: NDArray[np.float64]) -> Factors:
    model = fastfactor.fit(matrix, RANK, unobserved="zero")
    return model.U, model.V


def run_svds(solver: str) -> Callable[[NDArray[np.float64]], Factors]:
    def solve(matrix: NDArray[np.float64]) -> Factors:
        U, s, Vt = svds(matrix, RANK, solver=solver, rng=0)
        return U * s, Vt.T

    return solve


SOLVERS = {"fit-zero": fit_every_entry, "svds-arpack": run_svds("arpack"), "svds-propack": run_svds("propack")}


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_entry(benchmark, named_matrix, optimum, solver):
    name, matrix = named_matrix
    benchmark.group = f"every entry, {name}, rank {RANK}"
    U, V = benchmark.pedantic(SOLVERS[solver], args=(matrix,), rounds=3, warmup_rounds=1)
    error = float(np.linalg.norm(matrix - U @ V.T) / np.linalg.norm(matrix))
    benchmark.extra_info.update(relative_error=error, over_optimum=error / optimum, optimum=optimum)
    assert error < 1.0


@pytest.mark.parametrize("rank", [16, 64])
def test_stored_entries(benchmark, rank):
    matrix = generate.standard_ratings("1M")
    options = {"regularization": 0.05, "learning_rate": 0.03, "max_epochs": N_EPOCHS, "validation": False}
    benchmark.group = f"stored entries, {matrix.nnz / 1e6:.1f}M, {N_EPOCHS} epochs"
    model = benchmark.pedantic(fastfactor.fit, args=(matrix, rank), kwargs=options, rounds=3, warmup_rounds=1)
    assert len(model.history["seconds"]) == N_EPOCHS
    if benchmark.enabled:
        per_second = matrix.nnz * N_EPOCHS / benchmark.stats.stats.median
        benchmark.extra_info.update(updates_per_second=per_second)
