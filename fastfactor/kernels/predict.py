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
def sum_losses(factors, held, weights, place, sums, static):
    """Write the summed loss over each of len(sums) equal slices of the pairs to `sums`.

    `held` is (rows, cols, values), `weights` None or one each, `place` that of `update.Step`.
    """
    rows, cols, values = held
    n, n_slices = len(rows), len(sums)
    for s in prange(n_slices):
        loss = 0.0
        for i in range(s * n // n_slices, (s + 1) * n // n_slices):
            p = predict_entry(factors, rows[i], cols[i], static)
            loss += np.float64(weigh(value(static, place, values[i], p), at_or_none(weights, i)))
        sums[s] = loss
