"""fastfactor's `fit` over stored entries."""

import time

import scipy.sparse as sp

from bench.peers.base import CompletionPeer, Recipe, Run, factor_predictor, rmse
from fastfactor import Factorization, fit


class Fit(CompletionPeer):
    name = "fastfactor"

    def fit(self, train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None = None) -> Run:
        errors: list[float] = []

        def note_epoch(model: Factorization) -> None:
            errors.append(rmse(model.predict, test))

        start = time.perf_counter()
        model = fit(
            train,
            recipe.rank,
            regularization=recipe.regularization,
            learning_rate=recipe.learning_rate,
            biases=recipe.biases,
            max_epochs=recipe.n_epochs,
            validation=False,
            callback=None if test is None else note_epoch,
            n_threads=recipe.n_threads,
            seed=recipe.seed,
            dtype=recipe.dtype,
        )
        total = time.perf_counter() - start
        seconds = model.history["seconds"]
        ends = [total - (seconds[-1] - second) for second in seconds]
        predict = factor_predictor(model.U, model.V, model.mean + model.row_bias, model.col_bias)
        return Run(range(1, len(ends) + 1), ends, predict, errors)


PEERS = [Fit()]
