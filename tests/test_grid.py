"""The block grid holds every entry exactly once, in bounds, in balance; what the user handed over is left alone."""

import numpy as np
import pytest
import scipy.sparse as sp

from fastfactor.kernels.sweep import AHEAD
from fastfactor.matrix.grid import Deal, DenseGrid, Making, build_grid, choose_stripes, deal_stripes
from fastfactor.matrix.inputs import as_dense, as_observations


def build(X, share=0.0, seed=0, **kwargs):
    return build_grid(as_observations(X, **kwargs), Making(0.0, 1.0, np.dtype("float64"), seed, share))


def entries_of(grid):
    """Return the entries of all blocks as sorted (row, col, value) in the user's order, bounds checked on the way."""
    B, blocks = grid.n_stripes, grid.blocks
    found = []
    for b in range(B):
        for c in range(B):
            block = blocks.entries[blocks.starts[B * b + c] : blocks.stops[B * b + c]]
            assert (block["row"] < blocks.row_starts[b + 1] - blocks.row_starts[b]).all()
            assert (block["col"] < blocks.col_starts[c + 1] - blocks.col_starts[c]).all()
            assert (np.diff(block["row"].astype(int)) >= 0).all()
            rows = grid.row_order[blocks.row_starts[b] + block["row"].astype(int)]
            cols = grid.col_order[blocks.col_starts[c] + block["col"].astype(int)]
            found += zip(rows.tolist(), cols.tolist(), block["value"].tolist(), strict=True)
    return sorted(found)


def held_of(grid):
    held = grid.held
    return sorted(zip(grid.row_order[held.rows], grid.col_order[held.cols], held.values, strict=True))


def triplets_of(X):
    X = sp.coo_array(X)
    return sorted(zip(X.row.tolist(), X.col.tolist(), X.data.tolist(), strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_each_entry_once(ratings, seed):
    grid = build(ratings, seed=seed)
    assert entries_of(grid) == triplets_of(ratings)
    assert grid.n_entries == ratings.nnz
    assert len(grid.blocks.entries) == ratings.nnz + AHEAD
    assert sorted(grid.row_order) == list(range(60))
    assert sorted(grid.col_order) == list(range(40))
    assert grid.blocks.row_starts[-1] == 60
    assert grid.blocks.col_starts[-1] == 40


def test_values_are_standardised(ratings):
    grid = build_grid(as_observations(ratings), Making(2.0, 4.0, np.dtype("float64"), 0))
    expected = [(r, c, (x - 2.0) / 4.0) for r, c, x in triplets_of(ratings)]
    np.testing.assert_allclose(entries_of(grid), expected, rtol=1e-12)


def test_held_entries_are_the_rest(ratings):
    grid, whole = build(ratings, share=0.3), build(ratings)
    kept, held = entries_of(grid), held_of(grid)
    assert sorted(kept + held) == triplets_of(ratings)
    assert not {e[:2] for e in kept} & {e[:2] for e in held}
    assert abs(len(held) / ratings.nnz - 0.3) < 0.05
    np.testing.assert_array_equal(grid.row_order, whole.row_order)  # the deal does not depend on what is held out
    np.testing.assert_array_equal(grid.col_order, whole.col_order)
    assert held != held_of(build(ratings, share=0.3, seed=1))


def power_law(n_rows=3000, n_cols=800, n=120_000):
    rng = np.random.default_rng(0)
    rows = (n_rows * rng.random(n) ** 2).astype(int)
    cols = (n_cols * rng.random(n) ** 2).astype(int)
    X = sp.csr_array((np.ones(n), (rows, cols)), shape=(n_rows, n_cols))
    X.sum_duplicates()
    return X


def test_stripes_are_balanced_on_a_power_law():
    X = power_law()
    grid = build(X)
    B = grid.n_stripes
    counts = (grid.blocks.stops - grid.blocks.starts).astype(int).reshape(B, B)
    degrees = np.bincount(X.indices, minlength=X.shape[1])
    assert degrees.max() > 10 * np.median(degrees)  # or else this would be easy
    for stripes in (counts.sum(axis=0), counts.sum(axis=1)):
        assert stripes.max() <= 1.1 * stripes.mean()
        assert stripes.min() >= 0.9 * stripes.mean()


def test_stripes_depend_on_shape_and_entries_alone():
    assert choose_stripes((1000, 1000), 100) == 8
    assert choose_stripes((1000, 1000), 10_000_000) == 16
    assert choose_stripes((10**6, 10**6), 10**9) == 32
    assert choose_stripes((1000, 3), 100) == 3
    assert choose_stripes((1, 1000), 100) == 1


@pytest.mark.parametrize("n_stripes", [8, 256, 512])
def test_stripes_are_told_apart_however_many(n_stripes):
    """A cluster has some for each of its parts, of which there may be hundreds."""
    order, starts = deal_stripes(np.arange(1000), n_stripes, np.random.default_rng(0))
    deal = Deal(order, starts, order, starts)
    expected = np.repeat(np.arange(n_stripes), np.diff(starts))
    np.testing.assert_array_equal(deal.row_stripe[order], expected)
    np.testing.assert_array_equal(deal.col_place[0][order], expected)


def test_deal_gives_equal_sizes():
    counts = np.random.default_rng(0).integers(0, 100, 83)
    order, starts = deal_stripes(counts, 8, np.random.default_rng(1))
    assert sorted(order) == list(range(83))
    assert np.diff(starts).max() - np.diff(starts).min() <= 1
    other, _ = deal_stripes(np.zeros(83, int), 8, np.random.default_rng(2))
    assert not np.array_equal(order, other)


@pytest.mark.parametrize("shape", [(60, 40), (5, 90), (1, 7), (7, 1)])
def test_dense_grid_covers_the_matrix(shape):
    grid = DenseGrid.of(np.zeros(shape))
    for starts, n in ((grid.row_starts, shape[0]), (grid.col_starts, shape[1])):
        assert starts[0] == 0
        assert starts[-1] == n
        assert (np.diff(starts) >= 1).all()
    assert grid.n_entries == shape[0] * shape[1]


def test_explicit_zeros_are_observations():
    X = sp.csr_array(([0.0, 2.0, 0.0], ([0, 1, 2], [1, 0, 1])), shape=(3, 2))
    expected = [(0, 1, 0.0), (1, 0, 2.0), (2, 1, 0.0)]
    for M in (X, X.tocsc(), X.tocoo(), (np.array([0, 1, 2]), np.array([1, 0, 1]), np.array([0.0, 2.0, 0.0]))):
        assert entries_of(build(M)) == expected
    dense = np.array([[np.nan, 0.0], [2.0, np.nan], [np.nan, 0.0]])
    assert entries_of(build(dense)) == expected


ROWS, COLS = np.array([0, 2, 0, 2, 1, 0]), np.array([1, 0, 1, 0, 0, 1])
VALUES = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 8.0])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("sum", [(0, 1, 12.0), (1, 0, 5.0), (2, 0, 6.0)]),
        ("mean", [(0, 1, 4.0), (1, 0, 5.0), (2, 0, 3.0)]),
        ("last", [(0, 1, 8.0), (1, 0, 5.0), (2, 0, 4.0)]),
    ],
)
def test_duplicates_are_combined_as_asked(how, expected):
    assert entries_of(build((ROWS, COLS, VALUES), duplicates=how)) == expected
    assert entries_of(build(sp.coo_array((VALUES, (ROWS, COLS))), duplicates=how)) == expected
    csr = sp.csr_array((VALUES[[0, 2, 5, 4, 1, 3]], [1, 1, 1, 0, 0, 0], [0, 3, 4, 6]), shape=(3, 2))
    assert entries_of(build(csr, duplicates=how)) == expected
    assert csr.nnz == 6  # the user's matrix still has them


def test_duplicates_are_an_error_that_names_the_first():
    for X in ((ROWS[1:], COLS[1:], VALUES[1:]), sp.coo_array((VALUES[1:], (ROWS[1:], COLS[1:])))):
        with pytest.raises(ValueError, match=r"\(0, 1\) more than once.*duplicates="):
            build(X)
    with pytest.raises(ValueError, match=r"\(2, 0\) more than once"):
        build((ROWS[1:5], COLS[1:5], VALUES[1:5]))


def test_duplicates_sum_where_everything_counts():
    csr = sp.csr_array(([1.0, 3.0, 4.0], [1, 1, 0], [0, 2, 3]), shape=(2, 2))
    np.testing.assert_array_equal(as_dense(csr), [[0, 4], [4, 0]])


def test_unsorted_rows_without_duplicates_are_fine():
    csr = sp.csr_array(([1.0, 3.0, 4.0], [1, 0, 0], [0, 2, 3]), shape=(2, 2))
    assert entries_of(build(csr)) == [(0, 0, 3.0), (0, 1, 1.0), (1, 0, 4.0)]


def arrays_of(X):
    if isinstance(X, tuple):
        return X
    if not sp.issparse(X):
        return (X,)
    return (X.data, *X.coords) if X.format == "coo" else (X.data, X.indices, X.indptr)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "triplets", "dense", "dense F"])
@pytest.mark.parametrize("unobserved", ["missing", "zero"])
def test_users_arrays_may_be_read_only_and_never_change(ratings, form, unobserved):
    import fastfactor as ff

    dense = ratings.toarray()
    X = {
        "csr": ratings.copy,
        "csc": ratings.tocsc,
        "coo": ratings.tocoo,
        "triplets": lambda: (*ratings.tocoo().coords, ratings.data.copy()),
        "dense": dense.copy,
        "dense F": lambda: np.asfortranarray(dense),
    }[form]()
    if form == "triplets" and unobserved == "zero":
        pytest.skip("triplets are for unobserved='missing'")
    before = [a.copy() for a in arrays_of(X)]
    for a in arrays_of(X):
        a.flags.writeable = False
    model = ff.fit(X, 8, unobserved=unobserved, regularization=0.1, max_epochs=2, validation=False, dtype="float32")
    assert np.isfinite(model.U).all()
    for a, b in zip(arrays_of(X), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_moments(ratings):
    observed = as_observations(ratings)
    np.testing.assert_allclose((observed.mean, observed.std), (ratings.data.mean(), ratings.data.std()), rtol=1e-12)
    far = as_observations((*ratings.tocoo().coords, ratings.data + 1e9))
    np.testing.assert_allclose(far.std, ratings.data.std(), rtol=1e-5)  # the sums alone would cancel
    huge = as_observations((*ratings.tocoo().coords, ratings.data * 1e200))
    np.testing.assert_allclose((huge.mean, huge.std), (observed.mean * 1e200, observed.std * 1e200), rtol=1e-9)
    Z = as_observations((*ratings.tocoo().coords, ratings.data * (1 - 2j)))
    np.testing.assert_allclose((Z.mean, Z.std), ((1 - 2j) * observed.mean, ratings.data.std() * 5**0.5), rtol=1e-12)
