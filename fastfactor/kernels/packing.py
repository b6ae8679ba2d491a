"""Rows of a compressed matrix in the order of their lengths, within windows: a counting sort."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel

# Entries that are copied at once for rows of up to that many: where a loop ends that ends elsewhere for each row has to
# be guessed, and what is copied too much lies where the next rows go.
AT_ONCE = np.uint64(16)


@parallel_kernel
def sort_by_length(indptr, window, slices, counts, turns):
    """turns[i] = r - i where row r becomes the i-th; stable, in each window of rows by itself.

    `slices` begin with a window; counts[s] has a place for each length that is told apart, and one more.
    """
    for s in prange(len(slices) - 1):
        count = counts[s]
        longest = len(count) - 2
        for start in range(slices[s], slices[s + 1], window):
            stop = min(start + window, slices[s + 1])
            count[:] = 0
            for r in range(start, stop):
                count[min(indptr[r + 1] - indptr[r], longest) + 1] += 1
            for length in range(longest + 1):
                count[length + 1] += count[length]
            for r in range(start, stop):
                length = min(indptr[r + 1] - indptr[r], longest)
                i = start + count[length]
                count[length] += 1
                turns[i] = r - i


@kernel
def copy_numbers(source, first, count, target, place):
    """target[place], target[place + 1], ... = source[first], source[first + 1], ..."""
    for j in range(count):
        target[place + j] = source[first + j]


@parallel_kernel
def copy_rows(indptr, indices, values, turns, slices, starts, columns, numbers):
    """Store the rows in the order that `turns` gives them; windows, with which `slices` begin, stay in their places."""
    n_entries = np.uint64(indptr[-1])
    for s in prange(len(slices) - 1):
        e, end = np.uint64(indptr[slices[s]]), np.uint64(indptr[slices[s + 1]])
        for i in range(slices[s], slices[s + 1]):
            r = i + turns[i]
            first, count = np.uint64(indptr[r]), np.uint64(indptr[r + 1] - indptr[r])
            starts[i] = e
            if count <= AT_ONCE and e + AT_ONCE <= end and first + AT_ONCE <= n_entries:
                copy_numbers(indices, first, AT_ONCE, columns, e)
                copy_numbers(values, first, AT_ONCE, numbers, e)
            else:
                copy_numbers(indices, first, count, columns, e)
                copy_numbers(values, first, count, numbers, e)
            e += count
