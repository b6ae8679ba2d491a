"""fastfactor's `fit` over stored entries.

Its step falls linearly to zero over the epochs it is told: `Recipe.n_epochs` shapes the whole curve, not only its end.
"""

import time

import numpy as np
import scipy.sparse as sp

from bench.peers.base import CompletionPeer, Recipe, Run, factor_predictor
from fastfactor import fit


class Fit(CompletionPeer):
    name = "fastfactor"

    def fit(self, train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None = None) -> Run:
        start = time.perf_counter()
        model = fit(
            train,
            recipe.rank,
            regularization=recipe.regularization,
            learning_rate=recipe.learning_rate,
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


PEERS = [Fit()]
