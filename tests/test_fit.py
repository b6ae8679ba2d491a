"""What fit() promises as a whole: the optimum, bits, units, recovery. (Epochs and trials: test_epochs.py.)"""

import numpy as np
import pytest
import reference

import fastfactor as ff
from fastfactor.exceptions import DivergenceError

QUICK = {"regularization": 0.05, "max_epochs": 3, "validation": False}


def relative_error(A, model):
    return np.linalg.norm(A - model.reconstruct()) / np.linalg.norm(A)


# --- the optimum


@pytest.mark.parametrize("unobserved", ["missing", "zero"])
def test_fully_observed_matrix_is_fitted_to_the_optimum(decaying, unobserved):
    model = ff.fit(
        decaying, 8, unobserved=unobserved, regularization=0, biases=False, validation=False, dtype="float64",
        max_epochs=1500,
    )  # fmt: skip
    assert np.linalg.norm(decaying - model.U @ model.V.T) <= 1.01 * reference.optimal_error(decaying, 8)
    assert np.linalg.norm(decaying - model.U @ model.V.T) >= (1 - 1e-9) * reference.optimal_error(decaying, 8)


def test_complex_matrix_is_fitted_to_the_optimum(decaying):
    Z = decaying * np.exp(2j * np.pi * np.random.default_rng(0).random(decaying.shape[1]))
    Z = Z + 0.02j * np.random.default_rng(1).standard_normal(Z.shape)
    model = ff.fit(Z, 8, unobserved="zero", max_epochs=1500)
    assert model.U.dtype == np.complex128
    assert np.linalg.norm(Z - model.U @ model.V.conj().T) <= 1.01 * reference.optimal_error(Z, 8)


def test_defaults_recover_what_was_hidden(rng):
    """A third of a matrix of rank 2 plus offsets is hidden: its error is far below that of predicting the mean."""
    A = rng.standard_normal((90, 2)) @ rng.standard_normal((2, 70)) + rng.standard_normal((90, 1))
    hidden = rng.random(A.shape) < 1 / 3
    model = ff.fit(np.where(hidden, np.nan, A), 8)
    error = model.predict(*np.nonzero(hidden)) - A[hidden]
    assert np.sqrt(np.mean(error**2)) < 0.4 * np.std(A[hidden])
    assert model.selection["regularization"][0] > 0
    assert len(model.selection["trials"]) >= 3


# --- bits


def bits(model):
    return b"".join(np.ascontiguousarray(M).tobytes() for M in (model.U, model.V, model.row_bias, model.col_bias))


@pytest.mark.parametrize("unobserved", ["missing", "zero"])
def test_seeds(ratings, unobserved):
    X = ratings if unobserved == "missing" else ratings.toarray().astype("float32")
    models = [ff.fit(X, 16, unobserved=unobserved, seed=seed, **QUICK) for seed in (3, 3, 4)]
    assert bits(models[0]) == bits(models[1])
    assert bits(models[0]) != bits(models[2])


THREADS = """
import hashlib, numpy as np, scipy.sparse as sp, fastfactor as ff
rng = np.random.default_rng(0)
X = sp.random(600, 500, 0.2, format="csr", random_state=1)
for arguments in (dict(validation=0.2), dict(validation=None, regularization="auto"), dict(unobserved="zero")):
    arguments = dict(rank=16, max_epochs=4, regularization=0.05, dtype="float32") | arguments
    digests = set()
    for n_threads in (1, 2, 2, None):
        m = ff.fit(X, n_threads=n_threads, **arguments)
        arrays = (m.U, m.V, m.row_bias, m.col_bias, m.history["train_loss"], m.history["validation_loss"])
        digests.add(hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
    print(len(digests))
import numba
print(numba.config.NUMBA_NUM_THREADS)
"""


def test_number_of_threads_does_not_change_a_bit(python):
    assert python(THREADS, env={"NUMBA_NUM_THREADS": 2}).split() == ["1", "1", "1", "2"]


# --- units


def test_scale_and_shift_of_the_values_do_not_matter(ratings):
    def predictions(scale, shift, **arguments):
        X = ratings.copy()
        X.data = ratings.data * scale + shift
        model = ff.fit(X, 8, dtype="float64", seed=1, **arguments)
        return (model.reconstruct() - shift) / scale

    for arguments in ({"max_epochs": 20}, {"max_epochs": 20, "validation": 0.2}):
        base = predictions(1.0, 0.0, **arguments)
        for scale, shift in ((1000.0, 0.0), (1e-3, 5.0), (1e-6, 0.0)):
            other = predictions(scale, shift, **arguments)
            np.testing.assert_allclose(other, base, atol=1e-3 * np.abs(base).max())


def test_given_penalty_and_step_are_in_the_users_units(ratings):
    """J of 10 X with 10 reg is 100 J of X at factors times sqrt(10); a step of lr / 10 then walks the same path."""
    arguments = {"biases": False, "validation": False, "max_epochs": 5, "dtype": "float64"}
    base = ff.fit(ratings, 8, regularization=0.3, learning_rate=0.01, **arguments)
    other = ff.fit(10 * ratings, 8, regularization=3.0, learning_rate=0.001, **arguments)
    np.testing.assert_allclose(other.U, base.U * 10**0.5, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.history["train_loss"], base.history["train_loss"] * 100, rtol=1e-9)
    np.testing.assert_allclose(base.history["learning_rate"][0], 0.01)


def test_penalties_of_rows_and_of_columns(ratings):
    rows, cols = (
        ff.fit(ratings, 8, regularization=pair, validation=False, max_epochs=10) for pair in ((1.0, 0.0), (0.0, 1.0))
    )
    assert np.abs(rows.row_bias).sum() < 0.75 * np.abs(cols.row_bias).sum()
    assert np.abs(cols.col_bias).sum() < 0.75 * np.abs(rows.col_bias).sum()
    strong = ff.fit(ratings, 8, regularization=100.0, validation=False, max_epochs=30)
    assert np.std(strong.reconstruct()) < 0.1 * np.std(ratings.data)


# --- types


def test_dtypes(ratings, decaying):
    assert ff.fit(ratings, 8, **QUICK).U.dtype == np.float32
    assert ff.fit(ratings, 8, dtype="float64", **QUICK).U.dtype == np.float64
    assert ff.fit(decaying, 8, unobserved="zero", max_epochs=1).U.dtype == np.float64
    assert ff.fit(decaying.astype("f4"), 8, unobserved="zero", max_epochs=1).U.dtype == np.float32
    assert ff.fit(ratings * 1j, 8, **QUICK).U.dtype == np.complex64
    assert ff.fit(ratings * 1j, 8, dtype="float64", **QUICK).U.dtype == np.complex128


def test_biases(ratings):
    assert ff.fit(ratings, 8, **QUICK).row_bias.any()
    without = ff.fit(ratings, 8, biases=False, **QUICK)
    assert not without.row_bias.any()
    assert not without.col_bias.any()
    assert without.mean == 0
    zero = ff.fit(ratings, 8, unobserved="zero", max_epochs=2, dtype="float32")
    assert not zero.row_bias.any()
    assert zero.mean == 0


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float16", "longdouble"])
def test_other_number_types_are_converted(ratings, dtype):
    values = np.round(ratings.data).clip(0, 9)
    X = *ratings.tocoo().coords, values.astype(dtype)
    expected = *ratings.tocoo().coords, values.astype(dtype).astype("float32")
    np.testing.assert_allclose(ff.fit(X, 8, **QUICK).U, ff.fit(expected, 8, **QUICK).U, rtol=1e-4, atol=1e-6)


def test_subnormal_numbers_are_left_as_they_were(ratings):
    """Sweeps switch them off in their thread, which is also the caller's; a matrix of zeros would breed them."""
    tiny = np.float32(1e-40)
    model = ff.fit(np.zeros((9, 8), "float32"), 8, unobserved="zero", regularization=19.0, max_epochs=200, n_threads=1)
    assert tiny * np.float32(0.5) != 0
    assert np.abs(model.reconstruct()).max() < 1e-6
    sizes = np.abs(np.concatenate([model.U.ravel(), model.V.ravel()]))
    assert not ((sizes > 0) & (sizes < np.finfo("float32").tiny)).any()


# --- divergence


def test_divergence_is_recovered_from_with_half_the_step(ratings):
    model = ff.fit(ratings, 8, regularization=0.05, learning_rate=3.0, max_epochs=20, validation=False)
    rates = model.history["learning_rate"]
    starts = rates[model.history["epoch"] == 1]
    assert len(starts) > 1
    assert np.flatnonzero(model.history["epoch"] == 1)[1] < 20  # a diverging attempt is given up before its end
    np.testing.assert_allclose(starts[1:], starts[:-1] / 2, rtol=1e-6)
    np.testing.assert_allclose(model.selection["learning_rate"], starts[-1], rtol=1e-6)
    assert np.isfinite(model.reconstruct()).all()
    error = model.reconstruct()[ratings.tocoo().coords] - ratings.data
    assert np.sqrt(np.mean(error**2)) < np.std(ratings.data)


@pytest.mark.parametrize("unobserved", ["missing", "zero"])
@pytest.mark.parametrize("validation", [False, 0.2])
def test_hopeless_divergence_raises(ratings, unobserved, validation):
    if unobserved == "zero" and validation:
        pytest.skip("no validation where every entry is fitted")
    with pytest.raises(DivergenceError, match=r"epoch \d+ at step .*9 attempts.*Likely causes"):
        ff.fit(
            ratings, 8, unobserved=unobserved, regularization=0.05, learning_rate=1e30, max_epochs=3, dtype="float32",
            validation=validation,
        )  # fmt: skip


@pytest.mark.parametrize("learning_rate", [1e5, 1e37])
def test_the_last_steps_of_a_fit_cannot_leave_nan(learning_rate):
    """With one entry and one epoch no loss sees the factors that the only step has left."""
    with pytest.raises(DivergenceError):
        ff.fit([[3.0]], 8, unobserved="zero", learning_rate=learning_rate, max_epochs=1, dtype="float32")


def test_huge_penalty_is_recovered_from_or_raises(ratings):
    try:
        model = ff.fit(ratings, 8, regularization=1e3, max_epochs=3, validation=False)
    except DivergenceError:
        return
    assert np.isfinite(model.reconstruct()).all()
