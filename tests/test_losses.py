"""Losses: derivatives against differences, sweeps against the oracle, units, domains, and losses of the user's own."""

from functools import partial

import numpy as np
import pytest
import reference
import scipy.sparse as sp
from numba import njit
from sweeping import check_dense, check_stored, make_dense, make_triplets

import fastfactor as ff
from fastfactor.kernels.losses import LOSSES, TRAITS, register_loss
from fastfactor.solvers.standard import standardise

SHAPE = (37, 29)
PLACE = (0.5, 2.0, 0.7, 0.3)
STANDARDISED = ("squared", "absolute", "huber")
QUICK = {"regularization": 0.05, "max_epochs": 4, "validation": False}


def values_for(loss, values):
    domain = TRAITS[loss].domain if loss in TRAITS else "numbers"
    made = {"binary": values > 0, "counts": np.round(np.abs(3 * values)), "numbers": values}[domain]
    return made.astype(values.dtype)


# --- the functions


def test_the_command_line_knows_all_of_them():
    training = pytest.importorskip("fastfactor.cli.training", reason="the command line needs the extra cli")
    assert tuple(LOSSES) == training.LOSSES


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
def test_functions_equal_the_oracle_and_keep_the_dtype(loss, dtype):
    real = np.dtype(dtype).type
    for x in values_for(loss, np.array([0.0, 1.3, -2.0], dtype)):
        for p in (-30.0, -1.7, -0.2, 0.0, 0.6, 2.5):
            for got, wanted in zip((LOSSES[loss].value, LOSSES[loss].derivative), reference.LOSSES[loss], strict=True):
                np.testing.assert_allclose(got(x, real(p)), wanted(float(x), p), rtol=1e-5, atol=1e-6)
    for function in (LOSSES[loss].value, LOSSES[loss].derivative):
        compiled = [result.signature for result in function.overloads.values()]
        returned = {str(s.return_type) for s in compiled if set(map(str, s.args)) == {dtype}}
        assert returned == {dtype}


@pytest.mark.parametrize("loss", LOSSES)
def test_derivative_equals_differences(loss):
    value, derivative = LOSSES[loss].value, LOSSES[loss].derivative
    doubled = 0.5 if loss in ("squared", "huber") else 1.0  # their values have no 1/2
    h = 1e-6
    for x in values_for(loss, np.array([0.0, 1.3, -2.0, 4.1])):
        for p in np.linspace(-3.05, 2.95, 13):
            differences = doubled * (value(x, p + h) - value(x, p - h)) / (2 * h)
            np.testing.assert_allclose(derivative(x, p), differences, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_is_not_lost_and_large_predictions_are_no_nan(loss):
    value, derivative = LOSSES[loss].value, LOSSES[loss].derivative
    for dtype in (np.float32, np.float64):
        assert np.isnan(derivative(dtype(1), dtype(np.nan)))
        assert np.isnan(value(dtype(1), dtype(np.nan)))
        for p in (-1e3, 1e3):
            assert not np.isnan(derivative(dtype(1), dtype(p)))
            assert not np.isnan(value(dtype(0), dtype(p)))


# --- the sweeps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_sweep_of_stored_entries(loss, biases, dtype):
    rows, cols, values = make_triplets(dtype)
    triplets = rows, cols, values_for(loss, values)
    place = None if loss in STANDARDISED else PLACE
    check_stored(triplets, triplets, 16, dtype, biases, shape=SHAPE, loss=(loss, place, loss))


@pytest.mark.parametrize("rank", [13, 144])
@pytest.mark.parametrize("loss", LOSSES)
def test_sweep_of_every_entry(loss, rank):
    A = values_for(loss, make_dense("float32"))
    place = None if loss in STANDARDISED else PLACE
    check_dense(A, A, rank, "float32", False, loss=(loss, place, loss))


# --- whole fits


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    return rng.standard_normal((120, 2)) @ rng.standard_normal((2, 90)) + rng.standard_normal((120, 1))


def hide(A, share=0.3):
    return np.where(np.random.default_rng(1).random(A.shape) < share, np.nan, A)


def hidden(A):
    return np.isnan(hide(A))


@pytest.mark.parametrize("loss", ["absolute", "huber"])
def test_robust_losses_shrug_off_outliers(truth, loss):
    A = truth + 0.3 * np.random.default_rng(2).standard_cauchy(truth.shape)
    errors = {}
    for name in (loss, "squared"):
        model = ff.fit(hide(A), 4, loss=name, regularization="auto")
        assert model.loss == name
        errors[name] = np.median(np.abs(model.reconstruct() - truth)[hidden(A)])
    assert errors[loss] < 0.5 * errors["squared"]
    assert errors[loss] < 0.35 * np.median(np.abs(truth - np.median(truth)))


@pytest.mark.parametrize("loss", ["absolute", "huber"])
def test_robust_losses_know_no_units(truth, loss):
    base = ff.fit(hide(truth), 4, loss=loss, dtype="float64", max_epochs=8)
    other = ff.fit(hide(1000 * truth + 5), 4, loss=loss, dtype="float64", max_epochs=8)
    np.testing.assert_allclose(other.reconstruct(), 1000 * base.reconstruct() + 5, rtol=1e-4, atol=1)
    degree = TRAITS[loss].degree
    np.testing.assert_allclose(other.history["train_loss"], 1000**degree * base.history["train_loss"], rtol=1e-4)
    factor = 1000 ** (degree - 1)
    np.testing.assert_allclose(other.selection["regularization"], factor * np.array(base.selection["regularization"]))


def test_logistic_predicts_probabilities_of_the_larger_label(truth):
    probability = 1 / (1 + np.exp(-2 * truth))
    A = (np.random.default_rng(3).random(truth.shape) < probability).astype(float)
    model = ff.fit(hide(A), 4, loss="logistic")
    predicted = model.reconstruct()
    assert ((predicted > 0) & (predicted < 1)).all()
    np.testing.assert_allclose(model.predict(3, 4), predicted[3, 4], rtol=1e-5)
    assert np.abs(predicted - probability)[hidden(A)].mean() < 0.5 * np.abs(A.mean() - probability)[hidden(A)].mean()
    np.testing.assert_allclose(1 / (1 + np.exp(-model.mean)), np.nanmean(hide(A)), rtol=1e-4)
    other = ff.fit(hide(7 - 3 * (1 - A)), 4, loss="logistic")  # labels 4 and 7
    np.testing.assert_array_equal(other.reconstruct(), predicted)


def test_poisson_predicts_means(truth):
    mean = np.exp(truth / 2 + 1)
    A = np.random.default_rng(3).poisson(mean).astype(float)
    model = ff.fit(hide(A), 4, loss="poisson")
    predicted = model.reconstruct()
    assert (predicted > 0).all()
    assert np.abs(predicted - mean)[hidden(A)].mean() < 0.35 * np.abs(mean.mean() - mean)[hidden(A)].mean()
    np.testing.assert_allclose(np.exp(model.mean), np.nanmean(hide(A)), rtol=1e-4)


def scaled_huber(delta, x, p):
    return delta**2 * reference.huber(x / delta, p / delta)


@pytest.mark.parametrize("loss", [name for name in LOSSES if not TRAITS[name].pairs])
def test_history_is_the_mean_loss_in_the_users_units(truth, loss):
    X = values_for(loss, 3 * truth + (0 if loss in ("logistic", "poisson") else 2))
    seen = np.nonzero(~hidden(X))
    mask = np.random.default_rng(4).random(len(seen[0])) < 0.3
    held = seen[0][mask], seen[1][mask], X[seen][mask]
    for unobserved in ("missing", "zero"):
        validation = held if unobserved == "missing" else None
        stop = {"max_epochs": 3, "regularization": 0.01, "dtype": "float64", "unobserved": unobserved}
        model = ff.fit(hide(X) if validation else X, 4, loss=loss, validation=validation, **stop)
        inner = model.mean + model.row_bias[:, None] + model.col_bias + model.U @ model.V.T
        delta = 1.4826 * np.median(np.abs(X[seen] - np.median(X[seen])))
        value = reference.LOSSES[loss][0]
        if loss == "huber":
            value = partial(scaled_huber, delta)
        if validation:
            expected = np.mean([value(x, inner[r, c]) for r, c, x in zip(*held, strict=True)])
            np.testing.assert_allclose(model.history["validation_loss"].min(), expected, rtol=1e-6)
        assert (np.diff(model.history["train_loss"]) < 0).all()


def test_place_of_a_likelihood():
    values = np.array([0.0, 0, 0, 1] * 100)
    standard = standardise("logistic", values, True)
    np.testing.assert_allclose(standard.shift, -np.log(3), rtol=1e-6)
    assert standard.scale == pytest.approx(1 / np.sqrt(3 / 16), rel=0.1)
    own = standardise(register_loss(ff.Loss(lambda x, p: (x - p) ** 2 / 2, lambda x, p: p - x)), 5 * values, True)
    assert own.shift == pytest.approx(1.25)
    assert own.scale == pytest.approx(5 * values.std(), rel=1e-3)
    assert own.baseline == pytest.approx(0.5)
    assert own.gentle


def test_steps_are_cut_off_where_a_derivative_grows_fast_or_fails():
    values = np.linspace(0.0, 3.0, 50)
    for derivative in (lambda x, p: np.exp(p) - x, lambda x, p: (p - x) ** 3, lambda x, p: np.log(p) - np.log(x + 1)):
        assert not standardise(register_loss(ff.Loss(lambda x, p: p, derivative)), values, True).gentle


# --- losses of the user's own


def test_own_loss_in_the_sweep():
    def value(x, p):
        return np.log(np.cosh(x - p))

    def derivative(x, p):
        return np.tanh(p - x)

    triplets = make_triplets("float64")
    for functions in ((value, derivative), (njit(value), njit(derivative))):
        name = register_loss(ff.Loss(*functions))
        check_stored(
            triplets, triplets, 16, "float64", True, shape=SHAPE, loss=(name, PLACE, (value, derivative))
        )  # fmt: skip


def test_own_squared_loss_is_as_good_as_the_built_in_one(truth):
    own = ff.Loss(lambda x, p: (x - p) ** 2, lambda x, p: p - x, name="mine")
    for shift in (0.0, 1000.0):
        X = 3 * truth + shift
        model, squared = ff.fit(hide(X), 4, loss=own), ff.fit(hide(X), 4)
        assert model.loss is own
        left = np.mean((model.reconstruct() - X)[~hidden(X)] ** 2)
        assert model.history["train_loss"][-1] == pytest.approx(left, rel=0.1)  # of steps that are very small by then
        errors = [np.sqrt(np.mean((m.reconstruct() - X)[hidden(X)] ** 2)) for m in (model, squared)]
        assert errors[0] < 1.2 * errors[1]


def test_own_link_is_applied(truth):
    own = ff.Loss(lambda x, p: np.exp(p) - x * p, lambda x, p: np.exp(p) - x, link=np.exp)
    model = ff.fit(np.exp(truth / 3), 4, loss=own, **QUICK)
    assert (model.reconstruct() > 0).all()
    np.testing.assert_allclose(model.predict(1, 2), model.reconstruct()[1, 2], rtol=1e-5)


OWN_LOSS = """
import sys
import numpy as np, fastfactor as ff
A, slope = np.random.default_rng(0).standard_normal((30, 20)), float(sys.argv[1])
loss = ff.Loss(lambda x, p: slope * (x - p) ** 2, lambda x, p: 2 * slope * (p - x) + (slope > 5))
print(ff.fit(A, 4, loss=loss, regularization=0.05, max_epochs=3, validation=False).predict(1, 2))
"""


def test_own_losses_never_come_from_the_disk_cache(python, tmp_path):
    """The first loss of one process and the first of the next have the same name in a Spec."""
    gentle, steep = (float(python(OWN_LOSS, slope, env={"NUMBA_CACHE_DIR": tmp_path})) for slope in (1.0, 9.0))
    assert abs(gentle - steep) > 1e-3 * abs(steep)
    assert not [path for path in tmp_path.rglob("*.nbi") if b"user loss" in path.read_bytes()]


# --- bad input

BINARY = np.array([[0.0, 1.0, np.nan], [1.0, 0.0, 1.0]])
COUNTS = np.array([[0.0, 3.0, np.nan], [1.0, 0.0, 2.0]])


def changed(A, value, at=(1, 2)):
    A = A.copy()
    A[at] = value
    return A


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"loss": "hinge"}, ValueError, [*LOSSES, "'hinge'"]),
        ({"loss": None}, TypeError, ["loss", "None", "squared", "fastfactor.Loss"]),
        ({"loss": abs}, TypeError, ["loss", "abs"]),
        ({"loss": "logistic", "X": changed(BINARY, 0.5)}, ValueError, ["X[1, 2]", "0.5", "two values"]),
        ({"loss": "logistic", "X": sp.csr_array(changed(BINARY, 0.5))}, ValueError, ["X"]),
        ({"loss": "logistic", "X": np.ones((2, 3))}, ValueError, ["X", "1.0", "two values"]),
        ({"loss": "logistic", "X": changed(changed(BINARY, 1.0, (0, 2)), 0.5), "unobserved": "zero"}, ValueError,
         ["X[1, 2]", "0.5"]),
        ({"loss": "logistic", "X": BINARY, "validation": ([1], [0], [2.0])}, ValueError, ["validation[1, 0]", "2.0"]),
        ({"loss": "poisson", "X": changed(COUNTS, -1.0)}, ValueError, ["X[1, 2]", "-1.0"]),
        ({"loss": "poisson", "X": np.zeros((2, 3))}, ValueError, ["X", "0.0"]),
        ({"loss": "poisson", "X": COUNTS, "validation": ([1], [0], [-2.0])}, ValueError, ["validation[1, 0]", "-2.0"]),
        ({"loss": "absolute", "X": BINARY * 1j}, TypeError, ["X", "complex", "squared"]),
        ({"loss": ff.Loss(lambda x, p: p, lambda x, p: 1.0)}, ValueError, ["loss", "minimum"]),
        ({"loss": ff.Loss(lambda x, p: np.nan, lambda x, p: p - x)}, ValueError, ["loss", "nan"]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:all stored values")
def test_bad_input(arguments, error, words):
    with pytest.raises(error) as caught:
        ff.fit(**({"X": COUNTS, "rank": 2, "max_epochs": 1} | arguments))
    for word in words:
        assert word in str(caught.value)


def test_functions_of_a_loss_must_be_callable():
    for arguments in ((1, abs), (abs, "x"), (abs, abs, 3)):
        with pytest.raises(TypeError, match="of a Loss must be callable"):
            ff.Loss(*arguments)
