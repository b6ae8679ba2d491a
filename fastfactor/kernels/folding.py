"""Rows against columns that do not move: the step of equation 4 without its second half, row by row."""

from __future__ import annotations

from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.losses import bounded, derivative
from fastfactor.kernels.rivals import draw_rival
from fastfactor.kernels.simd import load, store
from fastfactor.kernels.update import approach, at_or_none, n_chunks, predict_entry


@kernel
def fold_entry(factors, r, c, x, rate, shrink, place, prox, static):
    """Descend on entry (r, c) of value x with the row's numbers alone."""
    U, V = factors.U, factors.V
    g = bounded(rate * derivative(static, place, x, predict_entry(factors, r, c, static)), place)
    for k in range(n_chunks(U, static)):
        store(U, r, k, approach(shrink * load(U, r, k, static) - g * load(V, c, k, static), prox, 0), static)
    if static.biases:
        factors.row_bias[r] = approach(shrink * factors.row_bias[r] - g, prox, 0)


@kernel
def fold_pair(factors, r, c, d, x, rate, shrink, place, prox, static):
    """Descend on the difference of entries (r, c) and (r, d) with the row's numbers alone."""
    U, V = factors.U, factors.V
    p = predict_entry(factors, r, c, static) - predict_entry(factors, r, d, static)
    g = bounded(rate * derivative(static, place, x, p), place)
    for k in range(n_chunks(U, static)):
        apart = load(V, c, k, static) - load(V, d, k, static)
        store(U, r, k, approach(shrink * load(U, r, k, static) - g * apart, prox, 0), static)


@kernel
def shorten(rate, square):
    """Return the step that is never longer than the way to the entry's own optimum."""
    return rate / (type(rate)(1) + rate * square)


@parallel_kernel
def fold_rows(factors, stored, rivals, regs, squares, n_updates, schedule, place, static):
    """Descend on the entries of each row again and again, with steps that fall to zero.

    Parameters
    ----------
    factors : Factors
        U and row_bias are written.
    stored : ridge.Stored
        Weights are not looked at: they are 1.
    rivals : Rivals or None
        Where pairs are ranked: each entry is held against a column that each epoch of its row draws anew.
    regs : (n_rows,) real array
        L2 penalty per entry.
    squares : (n_cols,) real array
        Squared length of each column's numbers: a step is never longer than the way to the entry's own optimum.
    n_updates : (low, high, total)
        Epochs over a row: `total` over its number of entries, between `low` and `high`.
    schedule : (rates, proxes)
        Steps (n,) of the epochs, of which a row takes as many as it has epochs, evenly spaced; for each the array
        `prox` of `update.Step`, (n, 4), or None.
    place : array or None
        As in `update.Step`.
    """
    rates, proxes = schedule
    low, high, total = n_updates
    for s in prange(len(stored.starts) - 1):
        for r in range(stored.starts[s], stored.starts[s + 1]):
            i, j = stored.indptr[r], stored.indptr[r + 1]
            n_epochs = min(max(total // max(j - i, 1), low), high)
            for t in range(n_epochs):
                at = t * len(rates) // n_epochs
                shrink = regs.dtype.type(1) - rates[at] * regs[r]
                prox = at_or_none(proxes, at)
                for e in range(i, j):
                    c, x = stored.indices[e], stored.targets[e]
                    if rivals is None:
                        rate = shorten(rates[at], squares[c])
                        fold_entry(factors, r, c, x, rate, shrink, place, prox, static)
                    else:
                        d = draw_rival(rivals, t * len(stored.indices) + e, r)
                        if d >= 0:
                            rate = shorten(rates[at], squares[c] + squares[d])
                            fold_pair(factors, r, c, d, x, rate, shrink, place, prox, static)
