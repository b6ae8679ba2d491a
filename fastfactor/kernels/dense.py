"""Passes over dense matrices: V -> A^H (A V) in one reading of A, ROWS rows at a time (gram.py: of sparse ones).

A wide matrix need not be transposed for V -> A (A^T V): it is taken in blocks of columns that stay in a core's cache
from the first product to the second.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.rows import ROWS, down, load_rows, store_rows, sum_rows, zero_rows
from fastfactor.kernels.simd import conj, load, store, zeros


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
def multiply_rows(values, r, lo, hi, V, first, q, static):
    """Return the products of columns lo:hi of ROWS rows from r on with the rows of V from `first` on, chunk q."""
    y = zero_rows(V, static)
    for i in range(np.uint64(hi - lo)):
        column = down(values, np.uint64(r), np.uint64(lo) + i, V, static)
        y = y + column * load(V, np.uint64(first) + i, q, static)
    return y


@kernel
def scatter_rows(values, r, lo, hi, y, G, static):
    """Add the adjoint of columns lo:hi of ROWS rows from r on, times y, to G."""
    for i in range(np.uint64(hi - lo)):
        column = down(values, np.uint64(r), np.uint64(lo) + i, G, static)
        store(G, i, 0, load(G, i, 0, static) + sum_rows(conj(column) * y), static)


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
def end_of_whole(start, stop):
    """Return where the last ROWS rows of start:stop end; the rows after them are taken one by one."""
    return start + (stop - start) // ROWS * ROWS


@parallel_kernel
def add_gram_dense(A, X, G, static):
    """Add A_s^H (A_s X) to G[s] for each slice s of rows."""
    values, n = A.values, A.values.shape[1]
    for s in prange(len(A.starts) - 1):
        start, stop = A.starts[s], A.starts[s + 1]
        for r in range(start, end_of_whole(start, stop), ROWS):
            scatter_rows(values, r, 0, n, multiply_rows(values, r, 0, n, X, 0, 0, static), G[s], static)
        for r in range(end_of_whole(start, stop), stop):
            scatter_row(values, r, 0, n, multiply_row(values, r, 0, n, X, 0, 0, static), G[s], static)


@parallel_kernel
def add_triplets_dense(A, V, U, inverse, G, q, static):
    """Store u = (A_r V) * inverse as row r of U and add A_s^H U_s to G[s]; all of chunk q, `inverse` is (1, width)."""
    values, n = A.values, A.values.shape[1]
    for s in prange(len(A.starts) - 1):
        factor, start, stop = load(inverse, 0, q, static), A.starts[s], A.starts[s + 1]
        for r in range(start, end_of_whole(start, stop), ROWS):
            u = multiply_rows(values, r, 0, n, V, 0, q, static) * factor
            store_rows(U, r, q, u, static)
            scatter_rows(values, r, 0, n, u, G[s], static)
        for r in range(end_of_whole(start, stop), stop):
            u = multiply_row(values, r, 0, n, V, 0, q, static) * factor
            store(U, r, q, u, static)
            scatter_row(values, r, 0, n, u, G[s], static)


@kernel
def multiply_columns(A, lo, hi, V, q, Y, static):
    """Y = A[:, lo:hi]^T V, chunk q, of real numbers."""
    Y[:] = 0
    values, whole = A.values, end_of_whole(0, len(A.values))
    for r in range(0, whole, ROWS):
        scatter_rows(values, r, lo, hi, load_rows(V, r, q, static), Y, static)
    for r in range(whole, len(values)):
        scatter_row(values, r, lo, hi, load(V, r, q, static), Y, static)


@kernel
def add_columns(A, lo, hi, Y, first, q, G, static):
    """Add A[:, lo:hi] Y, of the rows of Y from `first` on and chunk q, to G."""
    values, whole = A.values, end_of_whole(0, len(A.values))
    for r in range(0, whole, ROWS):
        y = multiply_rows(values, r, lo, hi, Y, first, q, static)
        store_rows(G, r, 0, load_rows(G, r, 0, static) + y, static)
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
