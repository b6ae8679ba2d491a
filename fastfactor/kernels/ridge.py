"""The factors of one side against fixed ones of the other: a weighted ridge problem for each row, solved in parallel.

With a small weight w on every entry that is not stored, row r asks for the u that minimises (docs/derivation.md,
equation 10)

    sum_stored 1/2 w_i |x_i - v_i . u|^2 + sum_others 1/2 w |v_c . u|^2 + 1/2 reg_r |u|^2

The sum over the others is that over all columns, 1/2 w u' (V' V) u, less the stored ones: they are never visited. In
the basis in which V' V is diagonal it costs one product per number, and its diagonal is what preconditions the steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.fused import muladd, sum_up
from fastfactor.kernels.simd import load, store, zeros
from fastfactor.kernels.update import n_chunks

# Rows of a thread's scratch matrix.
CURVATURE, INVERSE, RESIDUAL, DIRECTION, PRODUCT = 0, 1, 2, 3, 4
N_SCRATCH = 5


class Stored(NamedTuple):
    """The stored entries by row, and where the slices of rows begin.

    Attributes
    ----------
    indptr : (n_rows + 1,) int64 array
    indices : (n_entries,) integer array
    targets, weights : (n_entries,) arrays of the dtype of the factors
        Weight times value, and weight.
    starts : (n_slices + 1,) int64 array
        Rows that one thread solves one after the other; from the matrix alone.
    """

    indptr: Any
    indices: Any
    targets: Any
    weights: Any
    starts: Any


class Ridge(NamedTuple):
    """What else the problems consist of.

    Attributes
    ----------
    curvature : (width,) array
        Diagonal of V' V, which has no other entries unless `others` is 0.
    reg : (n_rows,) array
        Penalty of each row.
    others : float
        Weight w of the entries that are not stored.
    tol : float
        Steps end where the preconditioned square of the residual has fallen to this share of the first,
    least : float
        or below this: reciprocals of smaller numbers are infinite.
    """

    curvature: Any
    reg: Any
    others: Any
    tol: Any
    least: Any


@kernel
def project(V, cols, M, r, p, static):
    """p_i = V_c . M_r for the columns c = cols[i]."""
    for i in range(len(cols)):
        products = zeros(V, static)
        for k in range(n_chunks(V, static)):
            products = muladd(load(V, cols[i], k, static), load(M, r, k, static), products)
        p[i] = sum_up(products)


@kernel
def combine(V, cols, p, S, target, static):
    """S[target] += sum_i p_i V_c for the columns c = cols[i]."""
    for k in range(n_chunks(V, static)):
        acc = load(S, target, k, static)
        for i in range(len(cols)):
            acc = muladd(p[i], load(V, cols[i], k, static), acc)
        store(S, target, k, acc, static)


@kernel
def multiply(S, a, M, r, target, static):
    """S[target] = S[a] * M[r], number by number."""
    for k in range(n_chunks(S, static)):
        store(S, target, k, muladd(load(S, a, k, static), load(M, r, k, static), zeros(S, static)), static)


@kernel
def inner(S, a, b, static):
    """Return S[a] . S[b]."""
    products = zeros(S, static)
    for k in range(n_chunks(S, static)):
        products = muladd(load(S, a, k, static), load(S, b, k, static), products)
    return sum_up(products)


@kernel
def add_to(M, r, factor, S, source, static):
    """M[r] += factor * S[source]."""
    for k in range(n_chunks(M, static)):
        store(M, r, k, muladd(factor, load(S, source, k, static), load(M, r, k, static)), static)


@kernel
def begin(U, r, V, cols, targets, weights, ridge, S, p, static):
    """Set up the row's diagonal and its residual at U_r. Return what depends on U_r in the loss of its stored entries.

    No sum here has two products, for the reason that kernels/fused.py gives.
    """
    w, loss = ridge.others, 0.0
    for k in range(U.shape[1]):
        S[CURVATURE, k] = w * ridge.curvature[k] + ridge.reg[r]
        S[INVERSE, k] = U.dtype.type(1) / S[CURVATURE, k] if S[CURVATURE, k] > 0 else U.dtype.type(1)
    project(V, cols, U, r, p, static)
    for i in range(len(cols)):
        excess = weights[i] - w
        loss += np.float64(p[i] * (excess * p[i] - (targets[i] + targets[i])))
        p[i] = targets[i] - excess * p[i]
    multiply(S, CURVATURE, U, r, PRODUCT, static)
    for k in range(n_chunks(U, static)):
        store(S, RESIDUAL, k, zeros(U, static) - load(S, PRODUCT, k, static), static)
    combine(V, cols, p, S, RESIDUAL, static)
    return loss


@kernel
def solve_row(U, r, V, cols, targets, weights, ridge, n_steps, S, p, static):
    """Take steps of preconditioned conjugate gradients from U_r on. Return what `begin` does: the loss before."""
    loss = begin(U, r, V, cols, targets, weights, ridge, S, p, static)
    multiply(S, INVERSE, S, RESIDUAL, DIRECTION, static)
    square = inner(S, RESIDUAL, DIRECTION, static)
    least = max(ridge.tol * square, ridge.least)
    for _ in range(n_steps):
        if not square > least:
            break
        multiply(S, CURVATURE, S, DIRECTION, PRODUCT, static)
        project(V, cols, S, DIRECTION, p, static)
        for i in range(len(cols)):
            p[i] *= weights[i] - ridge.others
        combine(V, cols, p, S, PRODUCT, static)
        bend = inner(S, DIRECTION, PRODUCT, static)
        if not bend > ridge.least:
            break
        step = square / bend
        add_to(U, r, step, S, DIRECTION, static)
        add_to(S, RESIDUAL, -step, S, PRODUCT, static)
        multiply(S, INVERSE, S, RESIDUAL, PRODUCT, static)
        before, square = square, inner(S, RESIDUAL, PRODUCT, static)
        for k in range(n_chunks(S, static)):
            store(
                S, DIRECTION, k, load(S, PRODUCT, k, static) + square / before * load(S, DIRECTION, k, static), static
            )
    return loss


@parallel_kernel
def solve_rows(U, V, stored, ridge, n_steps, scratch, probes, losses, static):
    """Improve each row of U by at most `n_steps` steps, V fixed.

    Rows do not depend on each other and each is solved by one thread: equal bits for any number of threads.

    Parameters
    ----------
    U, V : (n_rows, width), (n_cols, width) arrays
        Real; U is written.
    stored : Stored
    ridge : Ridge
    scratch : (n_slices, N_SCRATCH, width) array
    probes : (n_entries,) array
        Scratch.
    losses : (n_slices,) float64 array
        Written: sum_stored weight (x - p)^2 - weight x^2 - w p^2 of the rows of each slice before the steps.
    """
    for s in prange(len(stored.starts) - 1):
        loss = 0.0
        for r in range(stored.starts[s], stored.starts[s + 1]):
            i, j = stored.indptr[r], stored.indptr[r + 1]
            loss += solve_row(
                U,
                r,
                V,
                stored.indices[i:j],
                stored.targets[i:j],
                stored.weights[i:j],
                ridge,
                n_steps,
                scratch[s],
                probes[i:j],
                static,
            )
        losses[s] = loss
