"""What models are judged by, row by row or slice by slice, so that no result depends on the number of threads."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel


@kernel
def is_among(indices, start, stop, c):
    """Whether c is in indices[start:stop], which ascend (binary search)."""
    lo, hi = start, stop
    while lo < hi:
        middle = (lo + hi) // 2
        if indices[middle] < c:
            lo = middle + 1
        else:
            hi = middle
    return lo < stop and indices[lo] == c


@kernel
def count_unusual(ranked, n_cols):
    """Return how often `ranked` holds a column twice, and how often one from `n_cols` on."""
    twice, outside = 0, 0
    ascending = np.sort(ranked)
    for i in range(len(ascending)):
        c = ascending[i]
        outside += c >= n_cols
        twice += i > 0 and c >= 0 and c == ascending[i - 1]
    return twice, outside


@parallel_kernel
def score_lists(lists, k, indptr, indices, n_cols, gains, scores, faults):
    """Judge the first k columns of each list by the columns that are relevant to its row.

    Parameters
    ----------
    lists : (n, width) integer array
        Negative: no column.
    indptr, indices : arrays
        Relevant columns of each row in CSR form, ascending.
    gains : (k,) float64 array
        gains[i] is what a relevant column at position i brings.
    scores : (n, 2) float64 array
        Written: the share of relevant columns found; the gains of those found, over the most they could be.
    faults : (n, 2) int64 array
        Written: columns listed twice; columns outside.
    """
    for r in prange(len(lists)):
        ranked = lists[r, :k]
        faults[r, 0], faults[r, 1] = count_unusual(ranked, n_cols)
        start, stop = np.int64(indptr[r]), np.int64(indptr[r + 1])
        found, gained, best = 0, 0.0, 0.0
        for i in range(len(ranked)):
            if ranked[i] >= 0 and is_among(indices, start, stop, ranked[i]):
                found += 1
                gained += gains[i]
        for i in range(min(k, stop - start)):
            best += gains[i]
        scores[r, 0] = found / max(stop - start, 1)
        scores[r, 1] = gained / best if best > 0 else 0.0


@parallel_kernel
def sum_errors(actual, predicted, sums):
    """Write sums of |actual - predicted| and of its square over each of len(sums) equal slices, (slices, 2)."""
    n, n_slices = len(actual), len(sums)
    for s in prange(n_slices):
        total, square = 0.0, 0.0
        for i in range(s * n // n_slices, (s + 1) * n // n_slices):
            e = abs(actual[i] - predicted[i])
            total += e
            square += e * e
        sums[s, 0], sums[s, 1] = total, square
