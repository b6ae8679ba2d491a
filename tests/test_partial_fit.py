"""A model goes on with more entries, rows and columns."""

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff

QUICK = {"regularization": 0.02, "max_epochs": 80, "validation": False, "dtype": "float64"}


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    return 3 * (rng.standard_normal((90, 2)) @ rng.standard_normal((2, 50)) + rng.standard_normal((90, 1))) + 7


@pytest.fixture(scope="module")
def model(truth):
    return ff.fit(np.where(np.random.default_rng(1).random((80, 50)) < 0.4, np.nan, truth[:80]), 2, **QUICK)


def error_of(model, truth, part=np.s_[:]):
    return np.sqrt(np.mean((model.reconstruct() - truth)[part] ** 2))


def test_more_entries_make_it_better(truth, model):
    rng = np.random.default_rng(2)
    noisy, order = truth[:80] + 2 * rng.standard_normal((80, 50)), rng.random((80, 50))
    model = ff.fit(np.where(order < 0.2, noisy, np.nan), 2, **QUICK)
    before = model.reconstruct()
    better = model.partial_fit(np.where(order > 0.4, noisy, np.nan), max_epochs=80)
    assert error_of(better, truth[:80]) < 0.9 * error_of(model, truth[:80])
    np.testing.assert_array_equal(model.reconstruct(), before)
    assert better.recipe == model.recipe
    assert better.mean == model.mean


def test_what_has_no_new_entry_stays(truth, model):
    X = sp.coo_array(([9.0, 8.0], ([3, 3], [4, 6])), shape=(5, 7))
    after = model.partial_fit(X)
    assert after.shape == (80, 50)
    rest = np.ones((80, 50), bool)
    rest[3], rest[:, [4, 6]] = False, False
    np.testing.assert_allclose(after.reconstruct()[rest], model.reconstruct()[rest], rtol=1e-12)
    assert abs(after.predict(3, 4) - 9) < abs(model.predict(3, 4) - 9)
    np.testing.assert_array_equal(after.U, model.partial_fit(X, n_threads=1).U)


def test_new_rows_and_columns(truth, model):
    rows, cols = np.nonzero(np.random.default_rng(3).random((10, 50)) < 0.7)
    after = model.partial_fit((rows + 80, cols, truth[rows + 80, cols]))
    assert after.shape == (90, 50)
    assert error_of(after, truth, np.s_[80:]) < 0.03 * truth.std()
    assert error_of(after, truth, np.s_[:80]) < 0.03 * truth.std()
    assert model.partial_fit(([0], [53], [1.0])).shape == (80, 54)


@pytest.mark.parametrize("loss", ["logistic", "huber"])
def test_other_losses_keep_their_units(truth, loss):
    A = (truth > 7).astype(float) if loss == "logistic" else truth
    model = ff.fit(A, 2, loss=loss, **QUICK | {"max_epochs": 10})
    after = model.partial_fit(A, max_epochs=10)
    assert after.loss == loss
    assert after.recipe == model.recipe
    assert after.history["train_loss"][-1] < model.history["train_loss"][-1]
    if loss == "logistic":
        with pytest.raises(ValueError, match=r"X\[0, 0\] is 3"):
            model.partial_fit(3 * np.ones((2, 2)))


@pytest.mark.parametrize("unobserved", ["zero", "weak"])
def test_where_all_entries_count_the_matrix_is_whole(truth, unobserved):
    A = (truth > 9).astype(float)
    model = ff.fit(A[:80], 3, unobserved=unobserved, regularization=0.02, max_epochs=30, dtype="float64")
    after = model.partial_fit(A)
    assert after.shape == (90, 50)
    assert after.recipe["others"] == model.recipe["others"]
    whole = ff.fit(A, 3, init=model, unobserved=unobserved, unobserved_weight=model.recipe["others"] or None,
                   regularization=0.02, max_epochs=30, dtype="float64")  # fmt: skip
    assert np.abs(after.reconstruct() - whole.reconstruct()).mean() < 0.05
    with pytest.raises(ValueError, match="X is smaller"):
        model.partial_fit(A[:70])


def test_ids_go_on(truth, model):
    with pytest.raises(ValueError, match="max_epochs must be at least 1"):
        model.partial_fit(truth, max_epochs=0)
    with pytest.raises(TypeError, match="X is complex"):
        model.partial_fit(truth * 1j)
