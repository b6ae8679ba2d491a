"""A step for each row and column: one sweep against the oracle, and what whole fits promise."""

import numpy as np
import pytest
from sweeping import check_dense, check_stored, make_dense, make_triplets

import fastfactor as ff

SHAPE = (37, 29)
PACE = tuple(np.random.default_rng(2).uniform(0.3, 1.0, n) for n in SHAPE)


@pytest.mark.parametrize(("rank", "dtype", "biases"), [(13, "float32", True), (144, "complex64", False)])
def test_sweep_of_stored_entries(rank, dtype, biases):
    triplets = make_triplets(dtype)
    check_stored(triplets, triplets, rank, dtype, biases, shape=SHAPE, pace=PACE)


def test_sweep_of_every_entry():
    A = make_dense("float64")
    check_dense(A, A, 16, "float64", True, pace=PACE)


@pytest.mark.parametrize("unobserved", ["missing", "zero"])
def test_each_row_and_column_steps_at_its_own_pace(ratings, unobserved):
    rates = [np.full(n, 0.02) for n in ratings.shape]
    arguments = {"regularization": 0.05, "dtype": "float64", "unobserved": unobserved}
    same = ff.fit(ratings, 8, learning_rate=tuple(rates), max_epochs=5, **arguments)
    one = ff.fit(ratings, 8, learning_rate=0.02, max_epochs=5, **arguments)
    np.testing.assert_allclose(same.U, one.U, rtol=1e-9, atol=1e-12)
    rates[0][3] = rates[1][7] = 1e-15  # these stay where they started
    short, long = (
        ff.fit(ratings, 8, learning_rate=tuple(rates), max_epochs=n, validation=False, **arguments) for n in (1, 9)
    )
    np.testing.assert_allclose(short.U[3], long.U[3], rtol=1e-9)
    np.testing.assert_allclose(short.V[7], long.V[7], rtol=1e-9)
    assert not np.allclose(short.U[4], long.U[4], rtol=1e-3)


def test_the_largest_step_is_reported(ratings):
    model = ff.fit(ratings, 8, learning_rate=(0.05, np.full(ratings.shape[1], 0.01)), regularization=0.05, max_epochs=3)
    assert model.history["learning_rate"][0] == pytest.approx(0.05)  # the largest
    assert model.selection["learning_rate"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": (np.ones(3), 0.1)}, "learning_rate has 3 numbers for the"),
        ({"learning_rate": (0.1, np.array([0.1, 0.0]))}, "learning_rate of columns must be above 0, got 0.0 at 1"),
        ({"learning_rate": (0.0, 0.1)}, "learning_rate of rows must be above 0, got 0.0"),
        ({"learning_rate": (0.1, "auto")}, "learning_rate must be a number, got 'auto'"),
        ({"learning_rate": (0.1, 0.2), "l1_regularization": 0.1}, "learning_rate must be one number"),
    ],
)
def test_bad_steps_are_named(ratings, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ff.fit(ratings, 8, **arguments)
