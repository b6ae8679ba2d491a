"""What is done to tall matrices of few columns, against NumPy."""

import numpy as np
import pytest

from fastfactor.kernels.rows import MOST_ROWS
from fastfactor.matrix.operand import BLOCK
from fastfactor.solvers import tall


def draw(rows, cols, dtype, seed=0):
    rng = np.random.default_rng(seed)
    V = rng.standard_normal((rows, cols)).astype(dtype)
    return V + 1j * rng.standard_normal((rows, cols)) if np.dtype(dtype).kind == "c" else V


@pytest.mark.parametrize(("rows", "k"), [(5, 3), (1001, 11), (260, 8)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_products_and_rotations(rows, k, dtype):
    V, Z, T = draw(rows, k, dtype), draw(rows, k, dtype, 1), draw(k, k, dtype, 2)
    wide_v, wide_z = tall.pad_matrix(V), tall.pad_matrix(Z)
    assert wide_v.shape[0] % MOST_ROWS == wide_v.shape[1] % BLOCK == 0
    np.testing.assert_allclose(tall.inner_products(wide_v, wide_z, k), V.conj().T @ Z, rtol=1e-12, atol=1e-12)
    values = np.linspace(1, 2, k)
    deviations = np.sum(np.abs(Z - V * values) ** 2, axis=0)
    np.testing.assert_allclose(tall.square_deviations(wide_z, wide_v, values), deviations, rtol=1e-12)
    tall.rotate_rows(wide_z, T)
    np.testing.assert_allclose(wide_z[:rows, :k], Z @ T, rtol=1e-12, atol=1e-12)
    assert not wide_z[rows:].any()
    assert not wide_z[:, k:].any()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_first_of_the_largest_entries_becomes_positive(dtype):
    V = draw(700, 5, dtype)
    V[[100, 600], 2] = 9.0, -9.0  # equal ones: the first counts
    V[:, 3] = 0.0
    signed = V * tall.find_phases(tall.pad_matrix(V))[:5]
    pivots = signed[np.abs(V).argmax(axis=0), np.arange(5)]
    np.testing.assert_allclose(pivots.imag, 0.0, atol=1e-15)
    assert (pivots.real[[0, 1, 2, 4]] > 0).all()
    assert signed[100, 2] == 9.0
    turned = tall.pad_matrix(V)
    tall.fix_signs(turned, -np.eye(5))
    np.testing.assert_allclose(turned[:700, :5], signed, rtol=1e-12, atol=1e-15)
    assert not turned[:, 5:].any()
