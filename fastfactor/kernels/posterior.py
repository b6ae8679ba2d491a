"""Draws of one side's factors given the other's: the conditional of block Gibbs sampling (docs/posterior.md).

Given the other side, the numbers z of a row are those of a linear regression: z ~ N(prior, I) before anything is
observed, then t = W z + noise, where t is what was observed over the scales of its row and column. A row with at least
as many entries as numbers solves its normal equations by Cholesky; one with fewer draws from the prior and corrects the
draw by what its entries say (Matheron's rule), in the dimension of the entries.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.fused import muladd, sum_up
from fastfactor.kernels.layout import hash_counter
from fastfactor.kernels.simd import Spec, load, store, zeros

LANES = 16
CHUNKS = Spec(LANES, False)  # matrices here are as wide as some chunks of 16 numbers
_TILE = 8  # rows of the normal equations that are summed at a time, in registers
_BATCH = 128  # entries gathered at a time, to stay in the nearest cache


class Conditional(NamedTuple):
    """What the draws of one side depend on.

    Attributes
    ----------
    indptr, indices, values : arrays
        CSR arrays of the observations, own side first.
    starts : (n_slices + 1,) int64 array
        Rows that one thread draws one after the other; from the matrix alone.
    W : (n_others, width) array
        Entry (r, c) is observed as offsets[c] + W[c] . z_r + noise. Columns from `size` on are zero.
    offsets : (n_others,) array
    own, other : (n,), (n_others,) arrays
        The noise of entry (r, c) has the variance 1 / (own[r] other[c]).
    own_units, other_units : (n,), (n_others,) arrays
        Entry (r, c) is its value times own_units[r] other_units[c].
    """

    indptr: Any
    indices: Any
    values: Any
    starts: Any
    W: Any
    offsets: Any
    own: Any
    other: Any
    own_units: Any
    other_units: Any


@kernel
def draw_normals(seed, n, out):
    """Write n standard normal numbers to `out`, the same for equal seeds: Box and Muller (1958), in pairs."""
    part = 2.0**-32
    for i in range(0, n, 2):
        bits = hash_counter(seed, i)
        first = (np.float64(bits >> np.uint64(32)) + 0.5) * part
        angle = np.float64(bits & np.uint64(0xFFFFFFFF)) * (part * 2.0 * np.pi)
        length = np.sqrt(-2.0 * np.log(first))
        out[i] = length * np.cos(angle)
        if i + 1 < n:
            out[i + 1] = length * np.sin(angle)


@kernel
def dot_rows(A, i, B, j, n_chunks, static):
    """Return A_i . B_j over the first chunks."""
    products = zeros(A, static)
    for k in range(n_chunks):
        products = muladd(load(A, i, k, static), load(B, j, k, static), products)
    return sum_up(products)


@kernel
def gather(given, r, first, n, prior, size, G, static):
    """Write W and what the row observed beyond its prior mean to G, over the noise; return nothing."""
    n_chunks = given.W.shape[1] // LANES
    start = given.indptr[r] + first
    for i in range(n):
        c = given.indices[start + i]
        weight = np.sqrt(given.own[r] * given.other[c])
        t = given.values[start + i] * given.own_units[r] * given.other_units[c]
        t -= given.offsets[c] + dot_rows(given.W, c, prior, r, n_chunks, static)
        for k in range(n_chunks):
            store(G, i, k, load(given.W, c, k, static) * weight, static)
        G[i, size] = weight * t


@kernel
def add_products(G, n, n_rows, A, static):
    """Add G[:n]' G[:n] to the chunks of A at and below the diagonal, for the first rows of A.

    Eight rows of a chunk stay in registers while G goes by.
    """
    for p in range(0, n_rows, _TILE):
        for k in range(p // LANES + 1):
            a0, a1 = load(A, p, k, static), load(A, p + 1, k, static)
            a2, a3 = load(A, p + 2, k, static), load(A, p + 3, k, static)
            a4, a5 = load(A, p + 4, k, static), load(A, p + 5, k, static)
            a6, a7 = load(A, p + 6, k, static), load(A, p + 7, k, static)
            for i in range(n):
                g = load(G, i, k, static)
                a0, a1 = muladd(G[i, p], g, a0), muladd(G[i, p + 1], g, a1)
                a2, a3 = muladd(G[i, p + 2], g, a2), muladd(G[i, p + 3], g, a3)
                a4, a5 = muladd(G[i, p + 4], g, a4), muladd(G[i, p + 5], g, a5)
                a6, a7 = muladd(G[i, p + 6], g, a6), muladd(G[i, p + 7], g, a7)
            store(A, p, k, a0, static)
            store(A, p + 1, k, a1, static)
            store(A, p + 2, k, a2, static)
            store(A, p + 3, k, a3, static)
            store(A, p + 4, k, a4, static)
            store(A, p + 5, k, a5, static)
            store(A, p + 6, k, a6, static)
            store(A, p + 7, k, a7, static)


@kernel
def factor_cholesky(A, n_cols, n_rows):
    """Overwrite the lower triangle of A[:n_cols, :n_cols] by its factor L, and rows b below by b L'^-1.

    A is the identity plus a positive semidefinite matrix.
    """
    for i in range(n_rows):
        for j in range(min(i + 1, n_cols)):
            s = A[i, j]
            for k in range(j):
                s -= A[i, k] * A[j, k]
            # Pivots of I + W W' are 1 or more; only rounding makes smaller ones.
            A[i, j] = np.sqrt(max(s, A.dtype.type(1))) if i == j else s / A[j, j]


@kernel
def solve_upper(A, b, n):
    """Overwrite b[:n] by the solution y of L' y = b, L being the lower triangle of `A`."""
    for i in range(n - 1, -1, -1):
        b[i] /= A[i, i]
        for k in range(i):
            b[k] -= A[i, k] * b[i]


@kernel
def draw_by_precision(given, r, prior, size, seed, scratch, z, mean, static):
    """Write a draw of z_r - prior_r from N(A^-1 W' t, A^-1), A = I + W' W, to `z`, and its mean."""
    A, G = scratch
    A[:] = 0
    m = given.indptr[r + 1] - given.indptr[r]
    for first in range(0, m, _BATCH):
        n = min(_BATCH, m - first)
        gather(given, r, first, n, prior, size, G, static)
        add_products(G, n, size + 1, A, static)
    for p in range(size):
        A[p, p] += A.dtype.type(1)
    factor_cholesky(A, size, size + 1)
    draw_normals(seed, size, z)
    for p in range(size):
        mean[p] = A[size, p]
        z[p] += mean[p]
    solve_upper(A, z, size)
    solve_upper(A, mean, size)


@kernel
def draw_by_entries(given, r, prior, size, seed, scratch, z, mean, static):
    """Write a draw from the same distribution to `z`, by a system of as many equations as the row has entries."""
    A, G = scratch
    m = given.indptr[r + 1] - given.indptr[r]
    gather(given, r, 0, m, prior, size, G, static)
    draw_normals(seed, size + m, G[m])
    for p in range(size):
        z[p] = G[m, p]
    for i in range(m):
        b = G[i, size] + G[m, size + i]
        for p in range(size):
            b -= G[i, p] * z[p]
        A[m, i], A[m + 1, i] = b, G[i, size]
    for i in range(m):
        G[i, size] = 0
        for j in range(i + 1):
            A[i, j] = dot_rows(G, i, G, j, given.W.shape[1] // LANES, static)
        A[i, i] += A.dtype.type(1)
    factor_cholesky(A, m, m + 2)
    solve_upper(A, A[m], m)
    solve_upper(A, A[m + 1], m)
    mean[:size] = 0
    for i in range(m):
        for p in range(size):
            z[p] += G[i, p] * A[m, i]
            mean[p] += G[i, p] * A[m + 1, i]


@parallel_kernel
def draw_side(given, prior, size, seed, Z, means, static):
    """Draw the numbers of every row given those of the other side; Z[r] depends on (seed, r), not on threads.

    Parameters
    ----------
    given : Conditional
    prior : (n, width) array
        Mean of each row's numbers before anything is observed; their covariance is the identity.
    size : int
        Numbers of a row, below the width.
    Z, means : (n, width) arrays, written
        The draws, and what they would be on average.
    """
    width = given.W.shape[1]
    n_slices, n_rows = len(given.starts) - 1, (size // _TILE + 1) * _TILE
    # Outside the loop: of a thread that finds no memory Numba makes a SystemError, not a MemoryError.
    A, G = np.zeros((n_slices, n_rows, width), Z.dtype), np.zeros((n_slices, max(_BATCH, size + 1), 2 * width), Z.dtype)
    for s in prange(n_slices):
        scratch = A[s], G[s]
        for r in range(given.starts[s], given.starts[s + 1]):
            row_seed = hash_counter(seed, r)
            if given.indptr[r + 1] - given.indptr[r] < size:
                draw_by_entries(given, r, prior, size, row_seed, scratch, Z[r], means[r], static)
            else:
                draw_by_precision(given, r, prior, size, row_seed, scratch, Z[r], means[r], static)
            for p in range(size):
                Z[r, p] += prior[r, p]
                means[r, p] += prior[r, p]


@parallel_kernel
def sum_moments(given, M, sums, static):
    """Write the sums of y y, y m and m m over each row to `sums`, weighted by other[c].

    y is the observed entry in the units of its column, though not of its row; m = offsets_c + W_c . M_r.
    """
    n_chunks = given.W.shape[1] // LANES
    for s in prange(len(given.starts) - 1):
        for r in range(given.starts[s], given.starts[s + 1]):
            yy, ym, mm = 0.0, 0.0, 0.0
            for i in range(given.indptr[r], given.indptr[r + 1]):
                c = given.indices[i]
                m = np.float64(given.offsets[c] + dot_rows(given.W, c, M, r, n_chunks, static))
                y, weight = np.float64(given.values[i] * given.other_units[c]), np.float64(given.other[c])
                yy += weight * y * y
                ym += weight * y * m
                mm += weight * m * m
            sums[r, 0], sums[r, 1], sums[r, 2] = yy, ym, mm
