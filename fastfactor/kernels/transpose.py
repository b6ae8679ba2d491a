"""Compressed rows to compressed columns, or back: a counting sort over fixed slices of the rows."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel


@parallel_kernel
def count_in_slices(indptr, indices, slices, counts):
    """counts[s, c] += the number of entries that column c has in slice s of the rows."""
    for s in prange(len(slices) - 1):
        count = counts[s]
        for i in range(np.uint64(indptr[slices[s]]), np.uint64(indptr[slices[s + 1]])):
            count[np.uint64(indices[i])] += 1


@kernel
def add_up_counts(counts, starts):
    """starts[c] = the number of entries of the columns before c."""
    starts[0] = 0
    for c in range(counts.shape[1]):
        total = starts[c]
        for s in range(counts.shape[0]):
            total += counts[s, c]
        starts[c + 1] = total


@parallel_kernel
def give_places(starts, turns, slices, counts, packed):
    """Lay out the columns as `turns` has them: packed[i] is where the i-th begins, counts[s, c] the place for slice s.

    `slices` are of columns here, and begin with a window: what lies before it is the same in either order.
    """
    for t in prange(len(slices) - 1):
        place = starts[slices[t]]
        for i in range(slices[t], slices[t + 1]):
            c = i + turns[i]
            packed[i] = place
            for s in range(counts.shape[0]):
                n = counts[s, c]
                counts[s, c] = place
                place += n


@parallel_kernel
def scatter_slices(indptr, indices, values, slices, places, rows, moved):
    """Write each entry's row and value to the next of its column's places; places[s, c] is the first for slice s."""
    for s in prange(len(slices) - 1):
        place = places[s]
        for r in range(slices[s], slices[s + 1]):
            for i in range(np.uint64(indptr[r]), np.uint64(indptr[r + 1])):
                c = np.uint64(indices[i])
                p = np.uint64(place[c])
                place[c] += 1
                rows[p] = r
                moved[p] = values[i]
