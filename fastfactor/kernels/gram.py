"""Passes over a matrix for its singular vectors: V -> A^H (A V) in one reading of A, and the wide products at the end.

For fixed orthonormal V the best U of ``|| A - U V^H ||_F`` is A V, and the gradient in V comes from A^H (A V)
(docs/svd.md). For each row r, y = A_r V stays in registers and A_r^H y is added into a private accumulator, one per
fixed slice of rows: the sums are the same, bit for bit, for any number of threads.

All narrow matrices are walked in chunks of `static.lanes` columns; chunk `q` is what one call works on.

Rows of a few entries cost as much by the guess at their end that goes wrong as by their entries: stored in the order of
their lengths, within a window (matrix/packing.py), they take up to half as long. So the i-th row that is stored is not
row i of the matrix but row ``i + turns[i]``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.simd import conj, load, prefetch, store, store_past, zeros

AHEAD = 16  # entries by which a pass asks for rows of its vectors before it comes to them


class SparseRows(NamedTuple):
    """Rows of A in CSR form. Entries are multiplied by `scale` (a power of two) when they are read.

    Attributes
    ----------
    indptr, indices, values : arrays
        As in ``scipy.sparse.csr_array``; duplicates count as their sum.
    turns : int16 array
        The i-th row that is stored is row ``i + turns[i]`` of A.
    scale : float64
    starts : (n_slices + 1,) int64 array
        Where each slice begins, among the rows as they are stored.
    """

    indptr: Any
    indices: Any
    values: Any
    turns: Any
    scale: Any
    starts: Any


@kernel
def entries_of(A, i):
    """Return where the entries of the i-th row begin and end; unsigned, so that nothing looks for negative indices."""
    return np.uint64(A.indptr[i]), np.uint64(A.indptr[i + 1])


@kernel
def multiply_row(A, i, V, q, static):
    """Return the i-th row times V, chunk q. Two sums take turns: neither waits for the addition before it.

    In one plain loop, though: for rows of a few entries an unrolled one, with its rest, took half as long again.
    """
    y0, y1 = zeros(V, static), zeros(V, static)
    start, stop = entries_of(A, i)
    for e in range(start, stop):
        y0, y1 = y1, y0 + V.dtype.type(A.scale * A.values[e]) * load(V, A.indices[e], q, static)
    return y0 + y1


@kernel
def column_ahead(A, e, distance):
    """Return the column of the entry that follows at that distance, or of the last one."""
    return A.indices[min(e + np.uint64(distance), np.uint64(len(A.indices)) - np.uint64(1))]


@kernel
def multiply_row_ahead(A, i, X, G, static):
    """Return the i-th row times X, having asked for the rows of X and of G that entries a little further on work on."""
    y0, y1 = zeros(X, static), zeros(X, static)
    start, stop = entries_of(A, i)
    for e in range(start, stop):
        c = column_ahead(A, e, AHEAD)
        prefetch(X, c, 0, static)
        prefetch(G, c, 0, static)
        y0, y1 = y1, y0 + X.dtype.type(A.scale * A.values[e]) * load(X, A.indices[e], 0, static)
    return y0 + y1


@kernel
def multiply_row_wide(A, i, V, q, static):
    """Return the i-th row times V, chunk q of several cache lines: of fewer entries a chunk is asked for ahead."""
    y = zeros(V, static)
    start, stop = entries_of(A, i)
    for e in range(start, stop):
        prefetch(V, column_ahead(A, e, AHEAD // 2), q, static)
        y = y + V.dtype.type(A.scale * A.values[e]) * load(V, A.indices[e], q, static)
    return y


@kernel
def scatter_row(A, i, y, G, static):
    """Add the adjoint of the i-th row times y to G."""
    start, stop = entries_of(A, i)
    for e in range(start, stop):
        c = A.indices[e]
        store(G, c, 0, load(G, c, 0, static) + conj(G.dtype.type(A.scale * A.values[e])) * y, static)


@parallel_kernel
def add_gram_sparse(A, X, G, static):
    """Add A_s^H (A_s X) to G[s] for each slice s of rows; X and G[s] are (n_cols, lanes)."""
    for s in prange(len(A.starts) - 1):
        for i in range(A.starts[s], A.starts[s + 1]):
            scatter_row(A, i, multiply_row(A, i, X, 0, static), G[s], static)


@parallel_kernel
def add_gram_ahead(A, X, G, static):
    """Do the same for an X and G that leave a core's caches."""
    for s in prange(len(A.starts) - 1):
        for i in range(A.starts[s], A.starts[s + 1]):
            scatter_row(A, i, multiply_row_ahead(A, i, X, G[s], static), G[s], static)


@parallel_kernel
def multiply_sparse(A, V, U, factors, wide, static):
    """U = (A V) * factors, `factors` being (1, width): as many chunks as there are of `wide`, then of `static`.

    U, which begins on a cache line, is not read again soon.
    """
    n_wide, n_chunks = V.shape[1] // wide.lanes, V.shape[1] // static.lanes
    for s in prange(len(A.starts) - 1):
        for i in range(A.starts[s], A.starts[s + 1]):
            r = i + A.turns[i]
            for q in range(n_wide):
                store_past(U, r, q, multiply_row_wide(A, i, V, q, wide) * load(factors, 0, q, wide), wide)
            for q in range(n_wide * wide.lanes // static.lanes, n_chunks):
                store_past(U, r, q, multiply_row(A, i, V, q, static) * load(factors, 0, q, static), static)


@parallel_kernel
def add_adjoint_sparse(A, U, G, q, static):
    """Add A_s^H U_s to G[s], chunk q of U."""
    for s in prange(len(A.starts) - 1):
        for i in range(A.starts[s], A.starts[s + 1]):
            scatter_row(A, i, load(U, i + A.turns[i], q, static), G[s], static)


@parallel_kernel
def add_triplets_sparse(A, V, U, inverse, G, q, static):
    """Store u = (A_r V) * inverse as row r of U and add A_s^H U_s to G[s]; all of chunk q, `inverse` is (1, width)."""
    for s in prange(len(A.starts) - 1):
        factor = load(inverse, 0, q, static)
        for i in range(A.starts[s], A.starts[s + 1]):
            u = multiply_row(A, i, V, q, static) * factor
            store(U, i + A.turns[i], q, u, static)
            scatter_row(A, i, u, G[s], static)


@parallel_kernel
def certify_sparse(A, V, U, values, squares, G, q, static):
    """Add |A_r V - U_r * values|^2 to squares[s], and A_s^H U_s to G[s]; all of chunk q, `values` is (1, width)."""
    for s in prange(len(A.starts) - 1):
        factor, total = load(values, 0, q, static), zeros(V, static)
        for i in range(A.starts[s], A.starts[s + 1]):
            u = load(U, i + A.turns[i], q, static)
            d = multiply_row(A, i, V, q, static) - u * factor
            total = total + d * conj(d)
            scatter_row(A, i, u, G[s], static)
        store(squares[s], 0, q, total, static)


@parallel_kernel
def take_chunk(V, X, starts, q, static):
    """X = chunk q of V."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1]):
            store(X, r, 0, load(V, r, q, static), static)


@parallel_kernel
def drain(G, Z, starts, q, static):
    """Store the sum of G[s] over s as chunk q of Z, and make G zero."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1]):
            z = zeros(Z, static)
            for s in range(G.shape[0]):
                z = z + load(G[s], r, 0, static)
                store(G[s], r, 0, zeros(Z, static), static)
            store(Z, r, q, z, static)
