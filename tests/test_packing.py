"""Rows sorted by length on the way through a transposition: where each lies, and what it holds."""

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.matrix.operand import SparseOperand
from fastfactor.matrix.packing import N_LENGTHS, WINDOW, copy_sorted, leave, sort_rows
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


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize(("n_cols", "index"), [(300, np.uint16), (1 << 17, np.int32)])
def test_a_copy_holds_as_many_whole_windows_as_there_is_room_for(n_cols, index, share):
    A = sp.csr_array(sp.random(5000, n_cols, 5 / n_cols, random_state=0))
    A.indptr, A.indices = A.indptr.astype(np.int32), A.indices.astype(np.int32)
    stored = leave(A.indptr, A.indices, A.data)
    room = int(share * A.nnz * (8 + np.dtype(index).itemsize)) + A.indptr.nbytes + stored.turns.nbytes
    copy = copy_sorted(stored, n_cols, room)
    n = len(copy.turns)
    assert n == 5000 if share == 1.0 else 0 < n < 2600 and n % WINDOW == 0
    assert copy.indices.dtype == index
    packed = sp.csr_array((copy.values, copy.indices.astype(np.int32), copy.indptr), shape=(n, n_cols))
    assert (packed - A[:5000][np.arange(n) + copy.turns]).nnz == 0
    lengths = np.diff(copy.indptr)
    assert all(np.all(np.diff(lengths[start : start + WINDOW]) >= 0) for start in range(0, n, WINDOW))


def test_passes_over_a_sorted_copy_and_the_rest():
    """Rows too many for their copy: both parts take part in all products, in their own order."""
    A = sp.csr_array(sp.random(6000, 40, 0.19, random_state=0))
    operand = SparseOperand(leave(A.indptr, A.indices, A.data), A.shape, 1.0)
    operand.sort()
    assert [rows.starts[-1] for rows in operand.walk()] == [operand.sorted.starts[-1], 6000]
    assert 0 < operand.sorted.starts[-1] < 6000
    V, dense, s = np.random.default_rng(1).random((40, 56)), A.toarray(), np.linspace(1, 2, 56)
    np.testing.assert_allclose(operand.multiply(V), dense @ V, rtol=1e-12)
    np.testing.assert_allclose(operand.left_vectors(V, s), dense @ V / s, rtol=1e-12)
    np.testing.assert_allclose(operand.gram_product(V), dense.T @ (dense @ V), rtol=1e-12)
    np.testing.assert_allclose(operand.adjoint(dense @ V), dense.T @ (dense @ V), rtol=1e-12)


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
