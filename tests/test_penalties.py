"""L1 penalties and signs: one sweep against the oracle, and what whole fits promise."""

import numpy as np
import pytest
from sweeping import check_dense, check_stored, make_dense, make_triplets

import fastfactor as ff

SHAPE = (37, 29)
FREE = -np.inf
CASES = [(0.3, 0.1, FREE, FREE), (0.0, 0.0, 0.0, 0.0), (0.0, 0.2, 0.0, FREE), (0.1, 0.0, FREE, 0.0)]


@pytest.mark.parametrize("prox", CASES)
@pytest.mark.parametrize(
    ("rank", "dtype", "biases"), [(13, "float32", True), (144, "float32", False), (8, "float64", True)]
)
def test_sweep_of_stored_entries(prox, rank, dtype, biases):
    triplets = make_triplets(dtype)
    check_stored(triplets, triplets, rank, dtype, biases, shape=SHAPE, prox=prox)


def test_sweep_of_every_entry():
    A = make_dense("float64")
    check_dense(A, A, 16, "float64", True, prox=CASES[0])


@pytest.mark.parametrize("sides", [True, (True, False), (False, True)])
@pytest.mark.parametrize("arguments", [{}, {"biases": True}, {"unobserved": "zero", "dtype": "float32"}])
def test_nonnegative_factors(ratings, sides, arguments):
    X = ratings.copy()
    X.data = np.abs(X.data)
    model = ff.fit(X, 4, nonnegative=sides, max_epochs=10, regularization=0.01, **arguments)
    rows, cols = sides if isinstance(sides, tuple) else (sides, sides)
    assert (model.U.min() >= 0) == rows
    assert (model.V.min() >= 0) == cols
    if "biases" in arguments:
        assert model.row_bias.any()
        assert not rows or model.row_bias.min() >= 0
        assert not cols or model.col_bias.min() >= 0
    else:
        assert not model.row_bias.any()
    assert model.mean == 0


def test_nonnegative_factorization_finds_one_that_exists():
    rng = np.random.default_rng(0)
    A = rng.random((60, 3)) @ rng.random((3, 40))
    model = ff.fit(A, 3, nonnegative=True, regularization=0.0, max_epochs=500, validation=False)
    assert np.linalg.norm(A - model.reconstruct()) < 0.03 * np.linalg.norm(A)


def test_l1_makes_zeros_where_l2_does_not(ratings):
    arguments = {"validation": False, "max_epochs": 30}
    l1 = ff.fit(ratings, 8, regularization=0.0, l1_regularization=(0.4, 0.0), **arguments)
    l2 = ff.fit(ratings, 8, regularization=0.4, **arguments)
    assert (l1.U == 0).mean() > 0.3
    assert (l1.V == 0).mean() < 0.01
    assert (l2.U == 0).mean() < 0.01


def test_l1_is_in_the_users_units(ratings):
    """J of s X with l1 s^1.5 is s^2 J of X at factors times sqrt(s)."""
    arguments = {"biases": False, "validation": False, "max_epochs": 5, "dtype": "float64", "regularization": 0.0}
    base = ff.fit(ratings, 8, l1_regularization=0.1, learning_rate=0.01, **arguments)
    other = ff.fit(100 * ratings, 8, l1_regularization=100.0, learning_rate=0.0001, **arguments)
    np.testing.assert_allclose(other.U, 10 * base.U, rtol=1e-6, atol=1e-8)


def test_penalties_of_each_row_act_on_that_row_alone(ratings):
    rows, cols = np.full(ratings.shape[0], 0.05), np.full(ratings.shape[1], 0.05)
    arguments = {"biases": False, "validation": False, "max_epochs": 10, "dtype": "float64"}
    same = ff.fit(ratings, 8, regularization=(rows, cols), **arguments)
    one = ff.fit(ratings, 8, regularization=0.05, **arguments)
    assert np.allclose(same.U, one.U, rtol=1e-10, atol=1e-13)
    rows[3] = 5.0
    strict = ff.fit(ratings, 8, regularization=(rows, 0.05), **arguments | {"max_epochs": 200})
    for r in (3, 4):  # each row ends where the gradient of the objective with its own penalty is zero
        V, x = strict.V[ratings[[r]].indices], ratings[[r]].data
        gradient = V.T @ (V @ strict.U[r] - x) + rows[r] * len(x) * strict.U[r]
        assert np.linalg.norm(gradient) < 0.02 * np.linalg.norm(V.T @ x)


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        ((np.ones(3), 0.1), "regularization has 3 numbers for the"),
        ((0.1, np.array([0.1, -2.0])), "regularization of columns must be finite and at least 0, got -2.0 at 1"),
        (
            (np.ones((2, 2)), 0.1),
            r"regularization of rows must be a number or one for each, got an array of shape \(2, 2\)",
        ),
        ((np.ones(3), "auto"), "regularization of columns must be a number"),
    ],
)
def test_bad_penalties_of_rows_are_named(ratings, penalty, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ff.fit(ratings, 8, regularization=penalty)
