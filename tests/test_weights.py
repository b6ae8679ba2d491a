"""Weights of entries: the sweep against the oracle, equal answers from equal weights, units."""

import numpy as np
import pytest
import reference
import scipy.sparse as sp
from sweeping import SEED, assert_equal_to_oracle, make_triplets

import fastfactor as ff
from fastfactor.matrix.grid import Making, build_grid
from fastfactor.matrix.inputs import as_observations

SHAPE = (37, 29)
QUICK = {"regularization": 0.05, "max_epochs": 5, "validation": False, "dtype": "float64"}


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_sweep(dtype):
    rows, cols, values = make_triplets(dtype)
    weights = np.random.default_rng(0).random(len(rows)) * 3
    X = as_observations((rows, cols, values), shape=SHAPE)
    grid = build_grid(X, Making(0.0, 1.0, np.dtype(dtype), SEED), weights=weights)
    diagonals = np.arange(grid.n_stripes)
    places = grid.row_order, grid.col_order, grid.blocks.row_starts, grid.blocks.col_starts
    pairs = list(zip(values, weights, strict=True))
    visits = [(r, c, *pair) for r, c, pair in reference.visit_stored(rows, cols, pairs, places, diagonals)]
    assert_equal_to_oracle(grid, visits, 16, dtype, True, diagonals)


def test_entries_have_no_weight_unless_given():
    grid = build_grid(as_observations(make_triplets("float32")), Making(0.0, 1.0, np.dtype("float32"), 0))
    assert grid.blocks.entries.dtype.names == ("row", "col", "value")


@pytest.fixture(scope="module")
def weights(ratings):
    W = ratings.copy()
    W.data = np.random.default_rng(1).random(ratings.nnz) * 5
    return W


def test_forms_are_one(ratings, weights):
    coo, w = ratings.tocoo(), weights.tocoo().data
    base = ff.fit(ratings, 4, sample_weight=weights, **QUICK)
    dense = np.full(ratings.shape, np.nan)
    dense[coo.coords] = w
    order = np.argsort(np.random.default_rng(0).random(len(w)))
    order = order[np.argsort(coo.row[order], kind="stable")]
    shuffled = sp.coo_array((w[order], (coo.row[order], coo.col[order])), shape=ratings.shape)
    for given in (dense, weights.tocsc(), shuffled):
        np.testing.assert_array_equal(ff.fit(ratings, 4, sample_weight=given, **QUICK).U, base.U)
    triplets = coo.row, coo.col, coo.data
    np.testing.assert_array_equal(ff.fit(triplets, 4, shape=ratings.shape, sample_weight=w, **QUICK).U, base.U)
    mixed = np.random.default_rng(3).permutation(len(w))
    model = ff.fit(tuple(a[mixed] for a in triplets), 4, shape=ratings.shape, sample_weight=w[mixed], **QUICK)
    np.testing.assert_allclose(model.reconstruct(), base.reconstruct(), atol=0.5)


def test_equal_weights_multiply_the_loss_and_not_the_penalty(ratings):
    ones = ratings.copy()
    ones.data = np.full(ratings.nnz, 4.0)
    base = ff.fit(ratings, 4, **QUICK)
    arguments = QUICK | {"regularization": 4 * QUICK["regularization"]}
    weighted = ff.fit(ratings, 4, sample_weight=ones, **arguments)
    np.testing.assert_allclose(weighted.U, base.U, rtol=1e-9)
    np.testing.assert_allclose(weighted.history["train_loss"], 4 * base.history["train_loss"], rtol=1e-9)


def test_weights_of_zero_hide_entries(ratings):
    spoilt, ones = ratings.copy(), ratings.copy()
    bad = np.random.default_rng(2).random(ratings.nnz) < 0.1
    spoilt.data = np.where(bad, 30.0, ratings.data)
    ones.data = np.where(bad, 0.0, 1.0)
    rows, cols = (index[~bad] for index in ratings.tocoo().coords)
    errors = [
        np.mean((ff.fit(spoilt, 4, sample_weight=w, max_epochs=40).predict(rows, cols) - ratings.data[~bad]) ** 2)
        for w in (ones, None)
    ]
    assert errors[0] < 0.2 * errors[1]


def test_validation_loss_is_weighted(ratings, weights):
    model = ff.fit(ratings, 4, sample_weight=weights, regularization=0.05, max_epochs=3, validation=0.3)
    heavier = weights.copy()
    heavier.data = 10 * weights.data
    other = ff.fit(ratings, 4, sample_weight=heavier, regularization=0.5, max_epochs=3, validation=0.3)
    np.testing.assert_allclose(other.history["validation_loss"], 10 * model.history["validation_loss"], rtol=1e-3)


# --- every entry with a weight of its own: unobserved="zero"


def test_weighted_low_rank_approximation_is_stationary():
    rng = np.random.default_rng(3)
    A, W = rng.standard_normal((30, 20)), rng.random((30, 20)) + 0.2
    model = ff.fit(A, 2, unobserved="zero", sample_weight=W, max_epochs=3000, dtype="float64")
    e = W * (A - model.U @ model.V.T)
    assert np.abs(e @ model.V).max() < 0.02 * np.abs((W * A) @ model.V).max()
    assert np.abs(e.T @ model.U).max() < 0.02 * np.abs((W * A).T @ model.U).max()
    loss = np.average((A - model.reconstruct()) ** 2, weights=W)
    plain = ff.fit(A, 2, unobserved="zero", max_epochs=3000, dtype="float64")
    assert loss < np.average((A - plain.reconstruct()) ** 2, weights=W)
    assert model.history["train_loss"][-1] == pytest.approx(W.mean() * loss, rel=1e-2)


def test_what_weighs_nothing_is_filled_in():
    rng = np.random.default_rng(4)
    A = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    W = (rng.random(A.shape) < 0.6).astype(float)
    for X in (A * W, sp.csr_array(A * W)):
        model = ff.fit(X, 2, unobserved="zero", sample_weight=W, max_epochs=2000)
        assert np.abs(model.reconstruct() - A).max() < 0.2
        assert model.loss == "squared"
    np.testing.assert_allclose(model.transform(A[:3]) @ model.V.T, A[:3], atol=0.2)
