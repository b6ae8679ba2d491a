"""Passes over dense matrices: V -> A^H (A V) in one reading of A, eight rows at a time (gram.py: of sparse ones).

A wide matrix need not be transposed for V -> A (A^T V): it is taken in blocks of columns that stay in a core's cache
from the first product to the second.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from fastfactor.kernels.basis import load_quad, quad, store_quad
from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.simd import conj, load, store, zeros

TILE = 8  # rows at a time: of four, sums would wait for each other, and the narrow matrices be read twice as often


class DenseRows(NamedTuple):
    """A C-contiguous array A, in slices of rows or of columns.

    Attributes
    ----------
    values : (m, n) array
    starts : (n_slices + 1,) int64 array
        First row, or column, of each slice.
    """

    values: Any
    starts: Any


@kernel
def multiply_tile(values, r, lo, hi, V, first, q, static):
    """Return the products of columns lo:hi of rows r to r + 7 with the rows of V from `first` on, chunk q."""
    y0, y1, y2, y3 = zeros(V, static), zeros(V, static), zeros(V, static), zeros(V, static)
    y4, y5, y6, y7 = zeros(V, static), zeros(V, static), zeros(V, static), zeros(V, static)
    r0, r1, r2, r3 = quad(r)
    r4, r5, r6, r7 = quad(r + 4)
    for i in range(np.uint64(hi - lo)):
        c = np.uint64(lo) + i
        v = load(V, np.uint64(first) + i, q, static)
        y0 = y0 + V.dtype.type(values[r0, c]) * v
        y1 = y1 + V.dtype.type(values[r1, c]) * v
        y2 = y2 + V.dtype.type(values[r2, c]) * v
        y3 = y3 + V.dtype.type(values[r3, c]) * v
        y4 = y4 + V.dtype.type(values[r4, c]) * v
        y5 = y5 + V.dtype.type(values[r5, c]) * v
        y6 = y6 + V.dtype.type(values[r6, c]) * v
        y7 = y7 + V.dtype.type(values[r7, c]) * v
    return (y0, y1, y2, y3), (y4, y5, y6, y7)


@kernel
def scatter_tile(values, r, lo, hi, y, z, G, static):
    """Add the adjoint of columns lo:hi of rows r to r + 3 times y, and of the four after them times z, to G."""
    (y0, y1, y2, y3), (z0, z1, z2, z3) = y, z
    r0, r1, r2, r3 = quad(r)
    r4, r5, r6, r7 = quad(r + 4)
    for i in range(np.uint64(hi - lo)):
        c = np.uint64(lo) + i
        g = load(G, i, 0, static)
        g = g + conj(G.dtype.type(values[r0, c])) * y0
        g = g + conj(G.dtype.type(values[r1, c])) * y1
        g = g + conj(G.dtype.type(values[r2, c])) * y2
        g = g + conj(G.dtype.type(values[r3, c])) * y3
        g = g + conj(G.dtype.type(values[r4, c])) * z0
        g = g + conj(G.dtype.type(values[r5, c])) * z1
        g = g + conj(G.dtype.type(values[r6, c])) * z2
        g = g + conj(G.dtype.type(values[r7, c])) * z3
        store(G, i, 0, g, static)


@kernel
def multiply_row(values, r, lo, hi, V, first, q, static):
    """Return the product of columns lo:hi of row r with the rows of V from `first` on, chunk q."""
    y = zeros(V, static)
    for i in range(np.uint64(hi - lo)):
        y = y + V.dtype.type(values[r, np.uint64(lo) + i]) * load(V, np.uint64(first) + i, q, static)
    return y


@kernel
def scatter_row(values, r, lo, hi, y, G, static):
    """Add the adjoint of columns lo:hi of row r times y to G."""
    for i in range(np.uint64(hi - lo)):
        a = conj(G.dtype.type(values[r, np.uint64(lo) + i]))
        store(G, i, 0, load(G, i, 0, static) + a * y, static)


@kernel
def whole_tiles(start, stop):
    """Return where the last whole tile of start:stop ends; the rows after it are taken one by one."""
    return start + (stop - start) // TILE * TILE


@parallel_kernel
def add_gram_dense(A, X, G, static):
    """Add A_s^H (A_s X) to G[s] for each slice s of rows."""
    values, n = A.values, A.values.shape[1]
    for s in prange(len(A.starts) - 1):
        start, stop = A.starts[s], A.starts[s + 1]
        for r in range(start, whole_tiles(start, stop), TILE):
            y, z = multiply_tile(values, r, 0, n, X, 0, 0, static)
            scatter_tile(values, r, 0, n, y, z, G[s], static)
        for r in range(whole_tiles(start, stop), stop):
            scatter_row(values, r, 0, n, multiply_row(values, r, 0, n, X, 0, 0, static), G[s], static)


@kernel
def scale_quad(U, r, q, y, factor, static):
    """Store y times factor as chunk q of four rows of U; return it."""
    u0, u1, u2, u3 = y[0] * factor, y[1] * factor, y[2] * factor, y[3] * factor
    store_quad(U, r, q, u0, u1, u2, u3, static)
    return u0, u1, u2, u3


@kernel
def add_quad(G, r, y, static):
    """Add y to four rows of G."""
    g0, g1, g2, g3 = load_quad(G, r, 0, static)
    store_quad(G, r, 0, g0 + y[0], g1 + y[1], g2 + y[2], g3 + y[3], static)


@parallel_kernel
def add_triplets_dense(A, V, U, inverse, G, q, static):
    """Store u = (A_r V) * inverse as row r of U and add A_s^H U_s to G[s]; all of chunk q, `inverse` is (1, width)."""
    values, n = A.values, A.values.shape[1]
    for s in prange(len(A.starts) - 1):
        factor, start, stop = load(inverse, 0, q, static), A.starts[s], A.starts[s + 1]
        for r in range(start, whole_tiles(start, stop), TILE):
            y, z = multiply_tile(values, r, 0, n, V, 0, q, static)
            u, w = scale_quad(U, r, q, y, factor, static), scale_quad(U, r + 4, q, z, factor, static)
            scatter_tile(values, r, 0, n, u, w, G[s], static)
        for r in range(whole_tiles(start, stop), stop):
            u = multiply_row(values, r, 0, n, V, 0, q, static) * factor
            store(U, r, q, u, static)
            scatter_row(values, r, 0, n, u, G[s], static)


@kernel
def multiply_columns(A, lo, hi, V, q, Y, static):
    """Y = A[:, lo:hi]^T V, chunk q, of real numbers."""
    Y[:] = 0
    values, whole = A.values, whole_tiles(0, len(A.values))
    for r in range(0, whole, TILE):
        v, w = load_quad(V, r, q, static), load_quad(V, r + 4, q, static)
        scatter_tile(values, r, lo, hi, v, w, Y, static)
    for r in range(whole, len(values)):
        scatter_row(values, r, lo, hi, load(V, r, q, static), Y, static)


@kernel
def add_columns(A, lo, hi, Y, first, q, G, static):
    """Add A[:, lo:hi] Y, of the rows of Y from `first` on and chunk q, to G."""
    values, whole = A.values, whole_tiles(0, len(A.values))
    for r in range(0, whole, TILE):
        y, z = multiply_tile(values, r, lo, hi, Y, first, q, static)
        add_quad(G, r, y, static)
        add_quad(G, r + 4, z, static)
    for r in range(whole, len(values)):
        y = multiply_row(values, r, lo, hi, Y, first, q, static)
        store(G, r, 0, load(G, r, 0, static) + y, static)


@parallel_kernel
def add_gram_wide(A, X, Y, G, static):
    """Add A_s (A_s^T X) to G[s] for each slice s of columns, as many at a time as Y[s] has rows."""
    for s in prange(len(A.starts) - 1):
        for lo in range(A.starts[s], A.starts[s + 1], Y.shape[1]):
            hi = min(lo + Y.shape[1], A.starts[s + 1])
            multiply_columns(A, lo, hi, X, 0, Y[s], static)
            add_columns(A, lo, hi, Y[s], 0, 0, G[s], static)


@parallel_kernel
def add_triplets_wide(A, V, U, inverse, Y, G, q, static):
    """Store (A_s^T V) * inverse as rows of U and add A_s U_s to G[s]; all of chunk q, `inverse` is (1, width)."""
    for s in prange(len(A.starts) - 1):
        factor = load(inverse, 0, q, static)
        for lo in range(A.starts[s], A.starts[s + 1], Y.shape[1]):
            hi = min(lo + Y.shape[1], A.starts[s + 1])
            multiply_columns(A, lo, hi, V, q, Y[s], static)
            for c in range(lo, hi):
                store(U, c, q, load(Y[s], c - lo, 0, static) * factor, static)
            add_columns(A, lo, hi, U, lo, q, G[s], static)


@parallel_kernel
def transpose(A, starts, B):
    """B = A^T, a slice of the columns of A at a time: eight of them, so that whole cache lines are read."""
    for t in prange(len(starts) - 1):
        for first in range(starts[t], starts[t + 1], 8):
            last = min(first + 8, starts[t + 1])
            for r in range(np.uint64(A.shape[0])):
                for c in range(np.uint64(first), np.uint64(last)):
                    B[c, r] = A[r, c]


@parallel_kernel
def find_largest_bits(bits, mask, starts, found):
    """found[s] = the largest of bits[starts[s]:starts[s + 1]] & mask.

    Floating-point numbers without their sign are in the order of their bits, infinities and NaNs above all others; and
    the maximum of integers, unlike that of numbers that may be NaN, is taken in vectors.
    """
    for s in prange(len(starts) - 1):
        largest = bits.dtype.type(0)
        for i in range(np.uint64(starts[s]), np.uint64(starts[s + 1])):
            largest = max(largest, bits[i] & mask)
        found[s] = largest
