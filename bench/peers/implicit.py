"""implicit: alternating least squares for implicit feedback.

Stored entries are positives of varying confidence, all others are zeros of weight one.
"""

import time

import implicit
import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from bench.peers.base import CompletionPeer, Recipe, Run, factor_predictor, rmse


class ImplicitAls(CompletionPeer):
    name = "implicit"
    problem = "weak"

    def fit(self, train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None = None) -> Run:
        ends: list[float] = []
        errors: list[float] = []

        def note_epoch(iteration: int, seconds: float, loss: float | None) -> None:
            ends.append(time.perf_counter() - start)
            if test is not None:
                errors.append(rmse(factor_predictor(model.user_factors, model.item_factors), test))

        with threadpool_limits(1, "blas"):  # its own threads call BLAS
            model = implicit.als.AlternatingLeastSquares(
                factors=recipe.rank,
                regularization=recipe.regularization,
                iterations=recipe.n_epochs,
                num_threads=recipe.n_threads,
                random_state=recipe.seed,
            )
            start = time.perf_counter()
            model.fit(train, show_progress=False, callback=note_epoch)
        predict = factor_predictor(np.asarray(model.user_factors), np.asarray(model.item_factors))
        return Run(range(1, len(ends) + 1), ends, predict, errors)


PEERS = [ImplicitAls()]
