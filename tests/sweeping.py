"""One sweep of the library beside one of the oracle, for test_sweep.py and the subprocesses of test_lanes.py."""

import numpy as np
import reference

from fastfactor.kernels.simd import Static
from fastfactor.kernels.update import Step
from fastfactor.matrix.grid import DenseGrid, Making, build_grid
from fastfactor.matrix.inputs import as_dense, as_observations
from fastfactor.solvers.memory import choose_spec, draw_factors
from fastfactor.solvers.sgd import compute_shrink

LR, REG = 0.03, (0.2, 0.1)
SEED = 5
TOLERANCE = {"float32": 2e-5, "complex64": 4e-5, "float64": 1e-12, "complex128": 2e-12}


def make_dense(dtype, shape=(37, 29), seed=0):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        A = A + 1j * rng.standard_normal(shape)
    return A.astype(dtype)


def make_triplets(dtype, shape=(37, 29), share=0.6, seed=1):
    """Entries row by row, columns ascending, an explicit zero among them; the last row and column are empty."""
    A = make_dense(dtype, shape)
    seen = np.random.default_rng(seed).random(shape) < share
    seen[-1], seen[:, -1] = False, False
    rows, cols = np.nonzero(seen)
    values = A[rows, cols]
    values[3] = 0
    return rows, cols, values


def draw(shape, rank, dtype, biases, loss="squared"):
    spec, width = choose_spec(rank, biases=biases, loss=loss)
    factors = draw_factors(shape, rank, width, dtype, 1.0, SEED)
    rng = np.random.default_rng(9)
    for bias in (factors.row_bias, factors.col_bias):
        bias[:] = rng.standard_normal(bias.shape)
        if bias.dtype.kind == "c":
            bias += 1j * rng.standard_normal(bias.shape)
    return factors, Static(spec)


def sweep_library(grid, factors, static, diagonals, reg=REG, place=None, prox=None, pace=None):
    real = factors.U.real.dtype.type
    losses = np.zeros((grid.n_stripes, grid.n_stripes))
    rates = (LR, LR) if pace is None else (LR * pace[0], LR * pace[1])
    shrink = (compute_shrink(lr, r, real) for lr, r in zip(rates, reg, strict=True))
    paces = (None, None) if pace is None else (side.astype(real) for side in pace)
    step = Step(real(LR), *shrink, place if place is None else np.array(place, real), prox, *paces)
    grid.sweep(factors, diagonals, losses, step, static)
    return losses.sum()


def assert_equal_to_oracle(
    grid, visits, rank, dtype, biases, diagonals, reg=REG, loss=("squared", None, "squared"), prox=None, pace=None
):
    """Compare; `loss` is the name in a Spec, the place, and the oracle's loss: a name or two functions."""
    name, place, functions = loss
    factors, static = draw(grid.shape, rank, dtype, biases, name)
    expected = reference.sweep(*factors, visits, LR, reg, biases, functions, place, prox, pace)
    before = [M.copy() for M in factors]
    scaled = None if prox is None else np.array([LR * prox[0], LR * prox[1], *prox[2:]], factors.U.dtype)
    loss = sweep_library(grid, factors, static, diagonals, reg, place, scaled, pace)
    tolerance = TOLERANCE[np.dtype(dtype).name]
    for old, got, wanted in zip(before, factors, expected[:4], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
        assert biases == (not np.array_equal(old, got)) or old.ndim == 2
    np.testing.assert_allclose(loss, expected[4], rtol=tolerance)
    assert not factors.U[:, rank:].any()  # padding stays zero
    assert not factors.V[:, rank:].any()


def check_stored(X, triplets, rank, dtype, biases, shape=None, **loss):
    """Sweep `X`, whatever its format, and compare with the oracle on `triplets`."""
    grid = build_grid(as_observations(X, shape=shape), Making(0.0, 1.0, np.dtype(dtype), SEED))
    diagonals = np.random.default_rng(3).permutation(grid.n_stripes)
    places = grid.row_order, grid.col_order, grid.blocks.row_starts, grid.blocks.col_starts
    visits = reference.visit_stored(*triplets, places, diagonals)
    assert_equal_to_oracle(grid, visits, rank, dtype, biases, diagonals, **loss)


def check_dense(X, A, rank, dtype, biases, **loss):
    """Sweep every entry of `X`, whatever its format, and compare with the oracle on `A`."""
    grid = DenseGrid.of(as_dense(X))
    diagonals = np.random.default_rng(3).permutation(grid.n_stripes)
    visits = reference.visit_dense(A, grid.row_starts, grid.col_starts, diagonals)
    assert_equal_to_oracle(grid, visits, rank, dtype, biases, diagonals, **loss)


def check_all(rank, losses):
    """The short form that subprocesses run: stored real entries, also with these losses, and a complex matrix."""
    triplets = make_triplets("float32", shape=(19, 14))
    check_stored(triplets, triplets, rank, "float32", True, shape=(19, 14))
    A = make_dense("complex128", shape=(19, 14))
    check_dense(A, A, rank, "complex128", False)
    triplets = *triplets[:2], (triplets[2] > 0).astype("float32")
    place = (0.5, 2.0, 0.7, 0.3)
    for name in losses:
        loss = name, None if name in ("squared", "absolute", "huber") else place, name
        check_stored(triplets, triplets, rank, "float32", True, shape=(19, 14), loss=loss)
