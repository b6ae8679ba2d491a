"""Factors of new rows against the ridge solution written out."""

import numpy as np
import pytest
import scipy.sparse as sp

from fastfactor.folding import fold_in_rows


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("unobserved", ["missing", "zero"])
def test_fold_in_solves_the_ridge_problem(rng, dtype, unobserved):
    V = rng.standard_normal((9, 3)).astype(dtype)
    mask = rng.random((6, 9)) < 0.6
    mask[2] = False
    X = np.where(mask, rng.standard_normal((6, 9)), 0.0)
    stored = sp.csr_array((X[mask], mask.nonzero()), shape=X.shape)
    dense = X if unobserved == "zero" else np.where(mask, X, np.nan)
    for form in (stored, dense):
        U = fold_in_rows(V, form, 0.3, unobserved)
        assert U.dtype == dtype
        for r in range(6):
            cols = np.arange(9) if unobserved == "zero" else mask[r].nonzero()[0]
            gradient = (U[r] @ V[cols].T - X[r, cols]) @ V[cols] + 0.3 * len(cols) * U[r]
            np.testing.assert_allclose(gradient, 0, atol=1e-5)
    assert (U[2] == 0).all()


def test_fewer_entries_than_factors_take_the_shortest_solution():
    V = np.eye(3)[:2]
    np.testing.assert_allclose(fold_in_rows(V, np.array([[2.0, np.nan]]), 0.0), [[2.0, 0.0, 0.0]], atol=1e-12)
