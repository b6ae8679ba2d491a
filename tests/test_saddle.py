"""Fits leave the saddle at zero: slowly enough to find the strong directions first, early enough to be learned."""

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.solvers.schedule import SPREAD, Load, Schedule


def hide(shape, share, seed):
    """Return the stored share of a matrix of rank 3 with offsets and a little noise, and the rest as triplets."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((shape[0], 3)) @ rng.standard_normal((3, shape[1]))
    A += rng.standard_normal((shape[0], 1)) + 3.0 + 0.1 * rng.standard_normal(shape)
    stored = rng.random(shape) < share
    here, there = np.nonzero(stored), np.nonzero(~stored)
    return sp.coo_array((A[here], here), shape=shape).tocsr(), there, A[there]


@pytest.mark.parametrize(
    ("shape", "n_entries", "n_epochs", "learning_rate", "spread"),
    [
        ((60, 40), 840, 30, 0.05, SPREAD),  # few steps
        ((5000, 100), 363_209, 40, 0.05, 0.001),
        ((5000, 100), 363_209, 40, 0.05 / 256, SPREAD),  # after the step was halved eight times
        ((1000, 30), 15_000, 20, 0.05, SPREAD),  # 15 entries of a row, 500 of a column
        ((100, 80), 2400, 60, 0.05, np.exp(-0.05 * 60 * 4800 / 180 / 14)),
    ],
)
def test_first_predictions_are_as_small_as_the_steps_make_good(shape, n_entries, n_epochs, learning_rate, spread):
    assert Schedule(learning_rate, n_epochs).spread(Load.of(shape, n_entries)) == pytest.approx(spread)


def test_strong_directions_are_found_first():
    errors = []
    for seed in range(3):
        X, there, values = hide((100, 80), 0.3, seed)
        model = ff.fit(X, 16, regularization=0.05, max_epochs=80, validation=False, seed=seed)
        errors.append(ff.metrics.rmse(values, model.predict(*there)))
    assert np.mean(errors) < 0.32  # from a spread of 0.02: 0.37


def test_few_epochs_suffice_for_a_small_matrix(ratings):
    model = ff.fit(ratings, 4, regularization=0.05, max_epochs=30, validation=False)
    assert model.history["train_loss"][-1] < 1.3  # from a spread of 0.001: 1.7


@pytest.mark.parametrize("max_epochs", [200, None])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_epochs_at_the_saddle_do_not_end_a_trial(seed, max_epochs):
    X, there, values = hide((300, 50), 0.15, seed)
    model = ff.fit(X, 16, seed=seed, max_epochs=max_epochs)
    assert ff.metrics.rmse(values, model.predict(*there)) < 1.15  # by the offsets alone: 1.9
