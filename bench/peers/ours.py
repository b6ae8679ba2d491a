"""fastfactor's `fit` over stored entries.

Its step falls to zero over the epochs it is told: `Recipe.n_epochs` shapes the whole curve, not only its end.
"""

import time
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bench.peers.base import CompletionPeer, Recipe, Run, factor_predictor
from fastfactor import fit


class Fit(CompletionPeer):
    name = "fastfactor"

    def fit(self, train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None = None) -> Run:
        start = time.perf_counter()
        counts = _count(train) if recipe.frequency_power or recipe.pace_power else ()
        model = fit(
            train,
            recipe.rank,
            regularization=_by_frequency(counts, recipe.regularization, recipe.frequency_power),
            learning_rate=_by_frequency(counts, recipe.learning_rate, recipe.pace_power),
            biases=recipe.biases,
            max_epochs=recipe.n_epochs,
            validation=False if test is None else test,
            n_threads=recipe.n_threads,
            seed=recipe.seed,
            dtype=recipe.dtype,
        )
        end = time.perf_counter() - start
        seconds = model.history["seconds"]
        ends = seconds + (end - seconds[-1])  # a model of any epoch would still have to be handed over
        errors = [] if test is None else np.sqrt(model.history["validation_loss"])
        predict = factor_predictor(model.U, model.V, model.mean + model.row_bias, model.col_bias)
        return Run(model.history["epoch"], ends, predict, errors)


def _count(train: sp.csr_matrix) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """How often each row and each column occurs; 1 for those that do not."""
    counts = np.diff(train.indptr), np.bincount(train.indices, minlength=train.shape[1])
    return np.maximum(counts[0], 1), np.maximum(counts[1], 1)


def _by_frequency(counts: tuple[NDArray[np.integer], ...], mean: float, power: float) -> Any:
    """Return numbers for rows and for columns that fall as a power of their counts, with that mean over entries."""
    return tuple(_weigh(c, power) * mean for c in counts) if power else mean


def _weigh(counts: NDArray[np.integer], power: float) -> NDArray[np.float64]:
    weights = counts.astype(np.float64) ** -power
    return weights * (counts.sum() / (weights @ counts))


PEERS = [Fit()]
