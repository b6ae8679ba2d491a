"""Predictions for lists of (row, column) pairs, and the error over them."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import parallel_kernel
from fastfactor.kernels.losses import value
from fastfactor.kernels.update import at_or_none, predict_entry, weigh


@parallel_kernel
def predict_pairs(factors, rows, cols, out, static):
    """Write the prediction for each pair (rows[i], cols[i]) to out[i]."""
    for i in prange(len(rows)):
        out[i] = predict_entry(factors, rows[i], cols[i], static)


@parallel_kernel
def sum_losses(factors, held, weights, place, edges, sums, static):
    """Write the summed loss over the pairs edges[s]:edges[s + 1] to sums[s].

    `held` is (rows, cols, values), `weights` None or one each, `place` that of `update.Step`.
    """
    rows, cols, values = held
    for s in prange(len(sums)):
        loss = 0.0
        for i in range(edges[s], edges[s + 1]):
            p = predict_entry(factors, rows[i], cols[i], static)
            loss += np.float64(weigh(value(static, place, values[i], p), at_or_none(weights, i)))
        sums[s] = loss
