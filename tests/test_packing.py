"""Rows sorted by length on the way through a transposition: where each lies, and what it holds."""

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.matrix.packing import N_LENGTHS, WINDOW, sort_rows
from fastfactor.matrix.transposing import transpose_arrays


@pytest.mark.parametrize("n_rows", [0, 1, WINDOW, WINDOW + 1, 7 * WINDOW + 13])
def test_rows_are_sorted_within_their_windows(n_rows):
    lengths = np.random.default_rng(n_rows).integers(0, 2 * N_LENGTHS, n_rows)
    turns = sort_rows(np.concatenate(([0], np.cumsum(lengths))))
    order = np.arange(n_rows) + turns
    for start in range(0, n_rows, WINDOW):
        window = np.arange(start, min(start + WINDOW, n_rows))
        keys = np.minimum(lengths[window], N_LENGTHS - 1)
        assert np.array_equal(order[window], window[np.argsort(keys, kind="stable")])


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_transposed_rows_hold_what_scipys_do(index):
    values = np.random.default_rng(0).random((300, 5000))
    A = sp.csr_array(np.where(values < 0.01, values, 0))
    A.indices, A.indptr = A.indices.astype(index), A.indptr.astype(index)
    stored = transpose_arrays(A.indptr, A.indices, A.data, 5000)
    packed = sp.csr_array((stored.values, stored.indices, stored.indptr), shape=(5000, 300))
    rows = np.arange(5000) + stored.turns
    assert np.any(stored.turns)
    assert np.array_equal(packed.toarray(), A.T.toarray()[rows])


def test_vectors_of_sorted_rows_come_back_in_their_own_order():
    """A row of U that went to its neighbour's place would change nothing in U^T U."""
    rng = np.random.default_rng(0)
    values = rng.random((9000, 700))
    tall = sp.csr_array(np.where(values < 0.004, values, 0))
    tall = sp.csr_array(tall.multiply(rng.integers(1, 9, (9000, 1))))
    found = ff.svd(tall.T.tocsr(), 5, tol=1e-12, seed=0)
    _, s, vt = sp.linalg.svds(tall.T, 5, solver="arpack")
    np.testing.assert_allclose(found.s, s[::-1], rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(found.Vt * vt[::-1], axis=1)), 1.0, rtol=1e-8)
