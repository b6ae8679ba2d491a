"""Rows held as one Vec, the work on tall matrices that is written with them, and their small matrices, beside NumPy."""

import numpy as np
import pytest

from fastfactor.kernels.basis import add_inner, multiply, prepare_pass, rotate, subtract
from fastfactor.kernels.compiling import kernel
from fastfactor.kernels.rows import MOST_ROWS, ROWS, along, down, load_rows, store_rows, sum_rows, zero_rows
from fastfactor.kernels.simd import conj, load, store
from fastfactor.kernels.small import factor, find_lost
from fastfactor.matrix.operand import BLOCK, LANES, SINGLE_BLOCK, lanes_of
from fastfactor.solvers.tall import chunks_of, fixed_parts
from fastfactor.threads import launch

N_BLOCKS, N_ROWS = 3, 40
DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def draw(shape, dtype):
    rng = np.random.default_rng(sum(shape))
    M = rng.standard_normal(shape)
    return (M + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else M).astype(dtype)


def lay_out(M, block):
    """Return the columns of M in blocks, as a basis has them."""
    return np.ascontiguousarray(M.reshape(len(M), -1, block).transpose(1, 0, 2))


@kernel
def use_each(M, W, v, out, static):
    """Fill the rows of `out`, ROWS of them for each function of rows.py."""
    first, second = np.uint64(2), np.uint64(1)
    w = load_rows(W, first, 1, static)
    x = load(v, 0, 0, static)
    store_rows(out, 0, 0, w, static)
    store_rows(out, ROWS, 0, zero_rows(W, static) + x, static)
    store_rows(out, 2 * ROWS, 0, w - conj(down(M, first, second, W, static)) * x, static)
    store_rows(out, 3 * ROWS, 0, w * along(M, first, second, W, static), static)
    store(out, 4 * ROWS, 0, sum_rows(w), static)


@pytest.mark.parametrize("stored", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_what_numpy_makes_of_them(dtype, stored):
    M, W, v = draw((12, 12), stored), draw((12, 2 * BLOCK), dtype), draw((1, BLOCK), dtype)
    out = np.empty((4 * ROWS + 1, BLOCK), dtype)
    use_each(M, W, v, out, LANES)
    w, x = W[2 : 2 + ROWS, BLOCK:], v[0]
    column, row = M[2 : 2 + ROWS, 1].astype(dtype), M[2, 1 : 1 + ROWS].astype(dtype)
    expected = [w, np.tile(x, (ROWS, 1)), w - column[:, None] * x, w * row[:, None], w.sum(axis=0, keepdims=True)]
    assert np.allclose(out, np.concatenate(expected), rtol=0, atol=20 * np.finfo(dtype).eps)


def test_rows_divide_what_tall_matrices_are_filled_up_to():
    assert MOST_ROWS % ROWS == 0
    assert BLOCK % ROWS == 0


@pytest.mark.parametrize("block", [BLOCK, SINGLE_BLOCK])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_work_on_a_basis(dtype, block):
    """On rotations to two blocks and to one: an odd number of them leaves a chunk that is not a wide one."""
    M, Z, Y = (
        draw((N_ROWS, N_BLOCKS * block), dtype),
        draw((N_ROWS, block), dtype),
        draw((N_BLOCKS * block, 2 * block), dtype),
    )
    Q, starts, lanes = lay_out(M, block), fixed_parts(N_ROWS), lanes_of(block)
    C = np.zeros((len(starts) - 1, N_BLOCKS * block, block), dtype)
    launch(add_inner, Q, N_BLOCKS, Z, starts, C, lanes)
    assert np.allclose(C.sum(axis=0), M.conj().T @ Z, rtol=0, atol=1e-13)
    for width in (block, 2 * block, N_BLOCKS * block):
        V, T = np.empty((N_ROWS, width), dtype), draw((N_BLOCKS * block, width), dtype)
        launch(multiply, Q, N_BLOCKS, T, V, starts, *chunks_of(block, V.dtype))
        assert np.allclose(V, M @ T, rtol=0, atol=1e-13)
    D = np.ascontiguousarray(Y[:, :block])
    K, S = np.zeros((2, len(starts) - 1, block, block), dtype), draw((1, N_ROWS, block), dtype)
    launch(subtract, Q, 0, 0, N_BLOCKS - 1, D, starts, S, K[0], K[1], lanes)
    left = M[:, -block:] - M[:, :-block] @ D[:-block]
    for product, expected in (
        (Q[-1], left),
        (K[0].sum(axis=0), S[0].conj().T @ left),
        (K[1].sum(axis=0), left.conj().T @ left),
    ):
        assert np.allclose(product, expected, rtol=0, atol=1e-11)
    Q, tiles = lay_out(M, block), np.zeros((len(starts) - 1, 1, ROWS, 2 * block), dtype)
    launch(rotate, Q, N_BLOCKS, Y, starts, tiles, *chunks_of(block, Q.dtype))
    assert np.allclose(Q, lay_out(np.concatenate([M @ Y, M[:, -block:]], axis=1), block), rtol=0, atol=1e-13)


def test_a_pass_adds_to_zeros():
    Q = draw((5, N_ROWS, BLOCK), np.float64)
    before = Q.copy()
    launch(prepare_pass, Q, 1, 2, LANES)
    assert (Q[2:4] == 0).all()
    assert np.array_equal(Q[[0, 1, 4]], before[[0, 1, 4]])


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_factors_of_small_matrices(dtype):
    X = draw((30, BLOCK), dtype) * 10.0 ** np.linspace(-60, 60, BLOCK)
    gram, (R, T) = X.conj().T @ X, np.empty((2, BLOCK, BLOCK), dtype)
    lowest = factor(gram, R, T)
    sizes = np.linalg.norm(X, axis=0)
    scaled = (X / sizes).conj().T @ (X / sizes)
    least = np.linalg.eigvalsh(scaled)[0]
    assert least / BLOCK * (1 - 1e-12) <= lowest <= least * (1 + 1e-12)
    assert np.allclose((R / sizes).conj().T @ (R / sizes), scaled, rtol=0, atol=1e-14)
    assert np.array_equal(R, np.triu(R))
    assert np.allclose(R @ T, np.eye(BLOCK), rtol=0, atol=1e-13)
    assert factor(np.diag([1.0, -1.0]).astype(dtype), R[:2, :2].copy(), T[:2, :2].copy()) == 0.0


def test_what_a_sketch_shows():
    K, M, gram, norms = np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), np.empty((2, 2)), np.empty(2)
    M[0], M[1] = [[3, 1], [1, 4]], [[1, 1], [1, 5]]
    K[0, 0, 1], K[1, 0, 1] = 0.004, 0.002
    loss = (0.006**2 / 2) ** 0.5
    assert not find_lost(K, M, gram, norms, 1.01 * loss / 3, 1.0)  # of the second column, whose norm is 3
    assert find_lost(K, M, gram, norms, 0.99 * loss / 3, 1.0)
    assert not find_lost(K, M, gram, norms, 0.99 * loss / 3, 4.0)
    assert gram.tolist() == [[4, 2], [2, 9]]
    assert norms.tolist() == [2, 3]
    assert not find_lost(K * 0, M * 0, gram, norms, 1e-10, 0.0)
