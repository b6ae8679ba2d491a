"""cmfrec: alternating least squares with biases, C and OpenMP.

It reports nothing between iterations, so a curve is made of whole fits with 1, 2, 4, ... of them.
"""

import time

import cmfrec
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from bench.peers.base import CompletionPeer, Recipe, Run, factor_predictor, rmse


class Cmfrec(CompletionPeer):
    name = "cmfrec"

    def fit(self, train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None = None) -> Run:
        entries = train.tocoo()
        epochs = [n for n in (1, 2, 4, 8, 16, 32) if n < recipe.n_epochs] + [recipe.n_epochs]
        ends, errors = [], []
        for n_epochs in epochs:
            model = cmfrec.CMF(
                k=recipe.rank,
                lambda_=recipe.regularization,
                scale_lam=True,  # the penalty is per observed entry, as everywhere in this folder
                user_bias=recipe.biases,
                item_bias=recipe.biases,
                niter=n_epochs,
                nthreads=recipe.n_threads,
                random_state=recipe.seed + 1,
                precompute_for_predictions=False,
                verbose=False,
            )
            start = time.perf_counter()
            with threadpool_limits(1, "blas"):  # its own threads call BLAS
                model.fit(entries)
            ends.append(time.perf_counter() - start)
            biases = (model.user_bias_, model.item_bias_) if recipe.biases else (0.0, 0.0)
            predict = factor_predictor(model.A_, model.B_, biases[0] + model.glob_mean_, biases[1])
            if test is not None:
                errors.append(rmse(predict, test))
        return Run(epochs, ends, predict, errors)


PEERS = [Cmfrec()]
