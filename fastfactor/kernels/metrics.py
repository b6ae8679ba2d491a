"""What models are judged by, row by row or slice by slice, so that no result depends on the number of threads."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.topn import is_among


@kernel
def holds_twice(ranked):
    """Whether a column, which is not negative, occurs twice in `ranked`."""
    ascending = np.sort(ranked)
    return ((ascending[1:] == ascending[:-1]) & (ascending[1:] >= 0)).any()


@parallel_kernel
def score_lists(lists, k, relevant, gains, scores, faults):
    """Judge the first k columns of each list by the columns that are relevant to its row.

    Parameters
    ----------
    lists : (n, width) integer array
        Negative: no column.
    relevant : topn.Seen
        Relevant columns of each row.
    gains : (k,) float64 array
        gains[i] is what a relevant column at position i brings.
    scores : (n, 2) float64 array
        Written: the share of relevant columns found; the gains of those found, over the most they could be.
    faults : (n,) bool array
        Written: whether a column is listed twice.
    """
    for r in prange(len(lists)):
        ranked = lists[r, :k]
        faults[r] = holds_twice(ranked)
        n_relevant = relevant.stops[r] - relevant.starts[r]
        found, gained, best = 0, 0.0, 0.0
        for i in range(len(ranked)):
            if ranked[i] >= 0 and is_among(ranked[i], relevant.indices, relevant.starts[r], relevant.stops[r]):
                found += 1
                gained += gains[i]
        for i in range(min(k, n_relevant)):
            best += gains[i]
        scores[r, 0] = found / max(n_relevant, 1)
        scores[r, 1] = gained / best if best > 0 else 0.0


@parallel_kernel
def sum_errors(actual, predicted, zero, sums):
    """Write sums of |actual - predicted| and of its square over each of len(sums) equal slices, (slices, 2).

    `zero` is that of the type to compute in.
    """
    n, n_slices = len(actual), len(sums)
    for s in prange(n_slices):
        total, square = 0.0, 0.0
        for i in range(s * n // n_slices, (s + 1) * n // n_slices):
            e = abs((actual[i] + zero) - (predicted[i] + zero))
            total += e
            square += e * e
        sums[s, 0], sums[s, 1] = total, square
