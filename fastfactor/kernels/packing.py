"""Rows of a compressed matrix in the order of their lengths, within windows: a counting sort."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import parallel_kernel


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


@parallel_kernel
def copy_rows(indptr, indices, values, turns, slices, starts, columns, numbers):
    """Store the rows in the order that `turns` gives them; windows, with which `slices` begin, stay in their places."""
    for s in prange(len(slices) - 1):
        e = np.uint64(indptr[slices[s]])
        for i in range(slices[s], slices[s + 1]):
            r = i + turns[i]
            starts[i] = e
            for source in range(np.uint64(indptr[r]), np.uint64(indptr[r + 1])):
                columns[e] = indices[source]
                numbers[e] = values[source]
                e += np.uint64(1)
