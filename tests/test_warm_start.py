"""fit(init=model) starts where the model is, also on a larger matrix."""

import numpy as np
import pytest

import fastfactor as ff

STILL = {"learning_rate": 1e-12, "max_epochs": 1, "validation": False, "regularization": 0.0, "dtype": "float64"}


@pytest.fixture(scope="module")
def model(ratings):
    return ff.fit(ratings, 4, regularization=0.05, max_epochs=30, validation=False, dtype="float64")


@pytest.mark.parametrize("unobserved", ["missing", "zero"])
def test_a_fit_without_steps_is_the_model(ratings, unobserved):
    model = ff.fit(ratings, 4, regularization=0.05, max_epochs=9, unobserved=unobserved, dtype="float64")
    again = ff.fit(ratings, 4, init=model, unobserved=unobserved, **STILL)
    np.testing.assert_allclose(again.reconstruct(), model.reconstruct(), atol=1e-7)
    np.testing.assert_allclose(again.U, model.U, atol=1e-7)


def test_the_mean_may_differ(ratings, model):
    shifted = ratings.copy()
    shifted.data = ratings.data + 2
    again = ff.fit(shifted, 4, init=model, **STILL)
    assert again.mean == pytest.approx(model.mean + 2)
    np.testing.assert_allclose(again.reconstruct(), model.reconstruct(), atol=1e-7)


def test_new_rows_and_columns_are_drawn(ratings, model):
    rows, cols = ratings.tocoo().coords
    X = np.append(rows, 63), np.append(cols, 41), np.append(ratings.data, 3.0)
    again = ff.fit(X, 4, init=model, **STILL)
    assert again.shape == (64, 42)
    np.testing.assert_allclose(again.reconstruct()[:60, :40], model.reconstruct(), atol=1e-7)
    assert again.U[60:].any(axis=1).all()
    assert np.abs(again.row_bias[60:]).max() < 1e-10


def test_it_starts_ahead(ratings, model):
    arguments = {"regularization": 0.05, "max_epochs": 3, "validation": False}
    warm, cold = (ff.fit(ratings, 4, init=init, **arguments) for init in (model, None))
    assert warm.history["train_loss"][0] < 0.5 * cold.history["train_loss"][0]


def test_a_fit_of_every_loss_starts_from_its_own(ratings):
    labels = ratings.copy()
    labels.data = (ratings.data > 3).astype(float)
    model = ff.fit(labels, 4, loss="logistic", regularization=0.05, max_epochs=9, dtype="float64")
    again = ff.fit(labels, 4, loss="logistic", init=model, **STILL)
    np.testing.assert_allclose(again.reconstruct(), model.reconstruct(), atol=1e-7)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rank": 5}, ValueError, "init has rank 4, but rank is 5"),
        ({"loss": "huber"}, ValueError, "init was fitted with loss='squared', but loss is 'huber'"),
        ({"biases": False}, ValueError, "init has biases"),
        ({"X": np.ones((3, 40)) * np.arange(3)[:, None]}, ValueError, r"\(60, 40\).*smaller: \(3, 40\)"),
        ({"init": 3}, TypeError, "init must be a Factorization, got int"),
    ],
)
def test_refuses(ratings, model, change, error, message):
    with pytest.raises(error, match=message):
        ff.fit(**({"X": ratings, "rank": 4, "init": model, "max_epochs": 1} | change))
