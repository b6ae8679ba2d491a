"""New rows against fixed columns: their own optimum, written out; and that of a fit, found again."""

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.kernels.losses import TRAITS

QUICK = {"regularization": 0.3, "max_epochs": 30, "validation": False, "dtype": "float64"}


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, 2)) @ rng.standard_normal((2, 40)) + rng.standard_normal((60, 1))


@pytest.fixture(scope="module")
def new(truth):
    """New rows with gaps, one of them without an entry."""
    rng = np.random.default_rng(1)
    X = 2 * truth[:7] + 1 + 0.1 * rng.standard_normal((7, 40))
    return np.where((rng.random(X.shape) < 0.4) | (np.arange(7) == 3)[:, None], np.nan, X)


def stored(X):
    seen = ~np.isnan(X)
    return sp.csr_array((X[seen], seen.nonzero()), shape=X.shape)


@pytest.mark.parametrize("biases", [True, False])
def test_squared_loss_solves_the_ridge_problem(truth, new, biases):
    model = ff.fit(2 * truth + 1, 3, biases=biases, **QUICK)
    folded = model.fold_in(new)
    scale = model.recipe["scale"]
    assert scale == pytest.approx((2 * truth + 1).std() if biases else np.sqrt(np.mean((2 * truth + 1) ** 2)))
    e = np.where(np.isnan(new), 0, new - folded.reconstruct())
    n = (~np.isnan(new)).sum(axis=1)
    np.testing.assert_allclose(e @ model.V, 0.3 * n[:, None] * folded.U, atol=1e-9)
    if biases:
        np.testing.assert_allclose(e.sum(axis=1), 0.3 / scale * n * folded.row_bias, atol=1e-9)
    assert not folded.U[3].any()
    assert folded.row_bias[3] == 0
    assert folded.V is model.V
    assert folded.shape == (7, 40)


def test_formats_and_threads_are_one(truth, new):
    model = ff.fit(2 * truth + 1, 3, **QUICK)
    wanted = model.transform(new)
    rows, cols = (~np.isnan(new)).nonzero()
    for X in (stored(new), stored(new).tocsc(), (rows, cols, new[rows, cols])):
        np.testing.assert_allclose(model.transform(X, n_threads=1), wanted, atol=1e-10)
    np.testing.assert_array_equal(model.transform(new, n_threads=1), model.transform(new, n_threads=2))


def test_penalties_scaled_by_frequency(truth, new):
    """The penalty that "auto" gives a row with n entries falls with n."""
    model = ff.fit(2 * truth + 1, 3, max_epochs=5, dtype="float64")
    few = new[[0, 0]].copy()
    few[1, np.flatnonzero(~np.isnan(few[1]))[3:]] = np.nan
    folded = model.fold_in(few)
    n = (~np.isnan(few)).sum(axis=1)
    regularization = model.selection["regularization"][0] * (n / 40) ** -0.4
    e = np.where(np.isnan(few), 0, few - folded.reconstruct())
    np.testing.assert_allclose(e @ model.V, (regularization * n)[:, None] * folded.U, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros_that_are_never_visited(truth, dtype):
    model = ff.fit(truth, 3, unobserved="zero", regularization=0.1, max_epochs=5, dtype=dtype)
    X = np.where(np.random.default_rng(2).random((5, 40)) < 0.3, truth[:5], 0)
    X[2] = 0
    wanted = np.linalg.solve(model.V.T @ model.V + 0.1 * 40 * np.eye(3), model.V.T @ X.T).T
    for form in (X, sp.csr_array(X)):
        U = model.transform(form)
        assert U.dtype == dtype
        np.testing.assert_allclose(U, wanted, atol=1e-5)


def test_implicit_feedback_finds_its_own_rows(truth):
    X = truth > 1
    model = ff.fit(X, 4, unobserved="weak", max_epochs=300, dtype="float64")
    U, others = model.transform(X[:9]), model.selection["unobserved_weight"]
    W = np.where(X[:9], 1.0, others)
    gradient = (W * (X[:9] - U @ model.V.T)) @ model.V
    np.testing.assert_allclose(gradient, model.selection["regularization"][0] * W.sum(axis=1)[:, None] * U, atol=1e-9)
    np.testing.assert_allclose(U @ model.V.T, model.reconstruct(np.arange(9)), atol=5e-3)
    cols, _ = model.fold_in(X[3:6]).recommend([0, 1, 2], 5)
    np.testing.assert_array_equal(cols, model.recommend([3, 4, 5], 5)[0])


def objective(model, X, penalty, loss):
    """Return the function from factors and offsets of the rows to each row's losses and penalties."""
    seen = ~np.isnan(X)
    seen_rows = seen.sum(axis=1)

    def at(U, bias):
        p = model.mean + bias[:, None] + model.col_bias + U @ model.V.T
        value = {
            "absolute": lambda: np.abs(X - p),
            "poisson": lambda: np.exp(p) - X * p,
        }[loss]()
        losses = np.where(seen, value, 0).sum(axis=1)
        scale = model.recipe["scale"]
        return losses + 0.5 * penalty * seen_rows * ((U**2).sum(axis=1) + bias**2 / scale)

    return at


@pytest.mark.parametrize("loss", ["absolute", "poisson"])
def test_other_losses_come_close_to_their_optimum(truth, new, loss):
    domain = TRAITS[loss].domain
    made = {"binary": lambda A: A > 0, "counts": lambda A: np.round(np.exp(A / 3)), "numbers": lambda A: A}[domain]
    train, X = made(truth).astype(float), np.where(np.isnan(new), np.nan, made(new))
    model = ff.fit(train, 2, loss=loss, regularization=0.05, max_epochs=30, validation=False, dtype="float64")
    folded = model.fold_in(X)
    at = objective(model, X, 0.05, loss)
    best = at(folded.U, folded.row_bias)
    rng = np.random.default_rng(3)
    for size in (0.03, 0.3):
        for _ in range(20):
            U = folded.U + size * rng.standard_normal(folded.U.shape)
            assert (at(U, folded.row_bias + size * rng.standard_normal(7)) > best - 2e-3).all()
    assert not folded.U[3].any()


def test_own_losses_signs_and_complex_numbers(truth, new):
    own = ff.Loss(lambda x, p: (x - p) ** 2, lambda x, p: p - x, name="mine")
    squared = ff.fit(truth, 2, **QUICK | {"max_epochs": 3})
    scale = squared.recipe["scale"]
    place = (squared.recipe["shift"], scale, 1 / scale, 1 / scale**2)
    recipe = squared.recipe | {"place": place, "labels": (0.0, 1.0)}
    mine = ff.Factorization(**vars(squared) | {"loss": own, "recipe": recipe})
    np.testing.assert_allclose(mine.transform(new), squared.transform(new), atol=0.02)

    signs = ff.fit(np.abs(truth), 3, nonnegative=True, l1_regularization=0.01, **QUICK)
    U = signs.transform(np.abs(new))
    assert U.min() == 0
    assert U.max() > 0

    A = truth[:, ::2] + 1j * truth[:, 1::2]
    model = ff.fit(A, 4, regularization=0.1, max_epochs=40, validation=False)
    folded = model.fold_in(A[:5])
    assert folded.U.dtype == np.complex64
    e = A[:5] - folded.reconstruct()
    gradient = e @ model.V - 0.1 * 20 * folded.U
    assert np.abs(gradient).max() < 0.02 * np.abs(A[:5] @ model.V).max()


def test_models_put_together_by_hand_and_saved_ones(truth, new, tmp_path):
    model = ff.fit(truth, 3, **QUICK)
    model.save(tmp_path)
    np.testing.assert_array_equal(ff.load(tmp_path).transform(new), model.transform(new))
    V, none = np.eye(3)[:2], np.zeros(2)
    bare = ff.Factorization(np.zeros((1, 3)), V, 0.0, none[:1], none)
    np.testing.assert_allclose(bare.transform(np.array([[2.0, np.nan]])), [[2.0, 0.0, 0.0]], atol=1e-12)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.ones((2, 39)), ValueError, "X_new has 39 columns, the model has 40"),
        (np.full((2, 40), np.nan), ValueError, "X_new has no observed entry"),
        (np.full((2, 40), 1j), TypeError, "X_new is complex"),
        (np.full((2, 40), np.inf), ValueError, r"X_new\[0, 0\] is inf"),
        (([0, -1], [0, 1], [1.0, 2.0]), ValueError, "X_new: rows.*-1"),
    ],
)
def test_bad_rows(truth, X, error, message):
    with pytest.raises(error, match=message):
        ff.fit(truth, 3, **QUICK | {"max_epochs": 1}).transform(X)


def test_values_out_of_the_domain_are_named(truth):
    model = ff.fit((truth > 0).astype(float), 2, loss="logistic", **QUICK | {"max_epochs": 1})
    with pytest.raises(ValueError, match=r"X_new\[0, 0\] is 5"):
        model.transform(np.full((1, 40), 5.0))
