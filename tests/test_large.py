"""Offsets beyond 2^31: in files full of holes, which take no room, and once for real."""

import numpy as np
import pytest
import scipy.sparse as sp
from sweeping import draw, sweep_library

import fastfactor as ff
from fastfactor.kernels.sweep import AHEAD, Blocks
from fastfactor.kernels.update import Factors
from fastfactor.matrix.grid import Grid, Held
from fastfactor.model import Factorization

RANK = 16
FIRST = (1 << 31) // RANK - 20  # rows from here on lie on both sides of the 2^31-th number, the 2^33-th byte
N_ROWS, N_COLS = 40, 30


@pytest.fixture
def holes(tmp_path):
    """A function that makes arrays of zeros in files, of which only what is written takes room."""

    def make(shape, dtype):
        path = tmp_path / f"holes-{len(list(tmp_path.iterdir()))}"
        try:
            return np.asarray(np.memmap(path, dtype, "w+", shape=shape))
        except OSError as error:
            pytest.skip(f"no file of that size can be made here: {error}")

    return make


@pytest.fixture
def factors(holes):
    """Small factors, and the same at the end of large ones."""
    small, static = draw((N_ROWS, N_COLS), RANK, "float32", True)
    U = holes((FIRST + N_ROWS, RANK), np.float32)
    row_bias = np.zeros(FIRST + N_ROWS, np.float32)
    U[FIRST:], row_bias[FIRST:] = small.U, small.row_bias
    return small, Factors(U, small.V.copy(), row_bias, small.col_bias.copy()), static


def make_grid(first, row_type):
    """One block, of entries in rows from `first` on."""
    rng = np.random.default_rng(0)
    n = 700
    entries = np.zeros(n + int(AHEAD), np.dtype((np.record, [("row", row_type), ("col", row_type), ("value", "f4")])))
    entries["row"][:n] = first + np.sort(rng.integers(0, N_ROWS, n))
    entries["col"][:n], entries["value"][:n] = rng.integers(0, N_COLS, n), rng.standard_normal(n)
    starts = np.array([0, first + N_ROWS]), np.array([0, N_COLS])
    blocks = Blocks(entries, np.zeros(1, np.uint64), np.full(1, n, np.uint64), *starts)
    none = np.empty(0, np.int64)
    return Grid(blocks, none, none, Held(none, none, none, None), n)


def test_sweeps(factors):
    small, large, static = factors
    losses = [
        sweep_library(make_grid(first, np.uint32), each, static, np.arange(1))
        for first, each in ((0, small), (FIRST, large))
    ]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(large.U[FIRST:], small.U)
    np.testing.assert_array_equal(large.V, small.V)
    np.testing.assert_array_equal(large.row_bias[FIRST:], small.row_bias)


def test_predictions_and_recommendations(factors):
    small, large, _ = factors
    one, other = (Factorization(*each[:2], np.float32(0.5), each.row_bias, each.col_bias) for each in (small, large))
    rows, cols = np.arange(N_ROWS), np.arange(N_ROWS) % N_COLS
    np.testing.assert_array_equal(one.predict(rows, cols), other.predict(FIRST + rows, cols))
    for left, right in zip(one.recommend(rows, 5), other.recommend(FIRST + rows, 5), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.reconstruct(rows), other.reconstruct(FIRST + rows))


@pytest.mark.long
def test_many_entries(holes):
    """More than 2^31 stored entries, the last of them outside the matrix."""
    n = (1 << 31) + 5
    X = sp.csr_array((4, 1 << 30), dtype=np.float32)
    X.data = np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (n,), (0,))
    X.indices = holes((n,), np.int32)
    X.indptr = np.array([0, 1 << 30, n - 3, n - 2, n])
    X.indices[-1] = 1 << 30
    for call in (lambda: ff.fit(X, 4), lambda: ff.svd(X, 2)):
        with pytest.raises(ValueError, match=rf"column index\[{n - 1}\] is {1 << 30}, outside 0..{(1 << 30) - 1}"):
            call()


@pytest.mark.long
def test_factors_of_more_than_two_gigabytes():
    """34 million rows: the last of them are fitted as well as the first."""
    n_rows, rng = 34_000_000, np.random.default_rng(0)
    rows, cols = np.arange(n_rows, dtype=np.int32), rng.integers(0, 8, n_rows).astype(np.int8)
    values = (cols + 0.1 * rng.standard_normal(n_rows)).astype(np.float32)
    options = {"max_epochs": 2, "regularization": 0.01, "validation": False, "shape": (n_rows, 8)}
    model = ff.fit((rows, cols, values), RANK, **options)
    assert model.U.nbytes > 1 << 31
    last = slice(n_rows - 1000, n_rows)
    error = model.predict(rows[last], cols[last]) - values[last]
    assert np.sqrt(np.mean(error**2)) < 0.5 * values.std()
    assert np.isfinite(model.U).all()
    assert model.U[last].std() > 0
