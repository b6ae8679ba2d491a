"""The n largest scores of each row: heaps of (score, column) pairs, and the scores themselves.

The score of row r and column c is p_rc (docs/derivation.md, equation 1), summed in float64. Of equal scores the one of
the lower column is better.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastfactor.kernels.compiling import inlined_kernel, kernel, strict_kernel


class Top(NamedTuple):
    """The best so far of some rows.

    Attributes
    ----------
    scores : (n_rows, n) float64 array
    cols : (n_rows, n) int64 array
        Heaps, the worst pair first, filled up to `counts`.
    counts : (n_rows,) int64 array
    """

    scores: Any
    cols: Any
    counts: Any


class Seen(NamedTuple):
    """Columns that do not count: indices[starts[r]:stops[r]], ascending, for row r."""

    indices: Any
    starts: Any
    stops: Any


@kernel
def is_worse(x, c, y, d):
    """Whether (score x, column c) ranks below (score y, column d)."""
    return x < y or (x == y and c > d)


@kernel
def is_among(c, indices, start, stop):
    """Whether c is one of indices[start:stop], which ascend."""
    lo, hi = np.int64(start), np.int64(stop)
    while lo < hi:
        middle = (lo + hi) // 2
        if indices[middle] < c:
            lo = middle + 1
        else:
            hi = middle
    return lo < stop and indices[lo] == c


@inlined_kernel
def update_down(scores, cols, r, size, x, c):
    """Put (x, c) on top of the heap of `size` pairs of row r, in place of what is there, and let it sink."""
    i, child = 0, 1
    while child < size:
        if child + 1 < size and is_worse(scores[r, child + 1], cols[r, child + 1], scores[r, child], cols[r, child]):
            child += 1
        if not is_worse(scores[r, child], cols[r, child], x, c):
            break
        scores[r, i], cols[r, i] = scores[r, child], cols[r, child]
        i, child = child, 2 * child + 1
    scores[r, i], cols[r, i] = x, c


@inlined_kernel
def update_up(scores, cols, r, size, x, c):
    """Add (x, c) to the heap of `size` pairs of row r."""
    i = size
    while i > 0:
        parent = (i - 1) // 2
        if not is_worse(x, c, scores[r, parent], cols[r, parent]):
            break
        scores[r, i], cols[r, i] = scores[r, parent], cols[r, parent]
        i = parent
    scores[r, i], cols[r, i] = x, c


@kernel
def offer(x, c, scores, cols, r, count):
    """Put (x, c) in the heap of `count` pairs of row r if there is room or it is better than the worst pair there.

    Returns how many there are then. NaN is no score.
    """
    if count == scores.shape[1]:
        if is_worse(scores[r, 0], cols[r, 0], x, c):
            update_down(scores, cols, r, count, x, c)
    elif x == x:
        update_up(scores, cols, r, count, x, c)
        count += 1
    return count


@strict_kernel
def score(rows, r, columns, c):
    """Return the inner product of rows[r] and columns[c], summed in float64 in one order wherever it is called."""
    rank = rows.shape[1]
    whole = rank // 4 * 4
    s0 = s1 = s2 = s3 = 0.0
    for q in range(0, whole, 4):  # four sums at once, each in its order
        s0 += np.float64(rows[r, q]) * np.float64(columns[c, q])
        s1 += np.float64(rows[r, q + 1]) * np.float64(columns[c, q + 1])
        s2 += np.float64(rows[r, q + 2]) * np.float64(columns[c, q + 2])
        s3 += np.float64(rows[r, q + 3]) * np.float64(columns[c, q + 3])
    for q in range(whole, rank):
        s0 += np.float64(rows[r, q]) * np.float64(columns[c, q])
    return (s0 + s1) + (s2 + s3)


@kernel
def rank_all(rows, columns, seen, top):
    """Offer every column that is not seen to the heap of each row."""
    n = top.scores.shape[1]
    for c in range(len(columns)):
        for r in range(len(rows)):
            x = score(rows, r, columns, c)
            if (top.counts[r] < n or x >= top.scores[r, 0]) and not is_among(
                c, seen.indices, seen.starts[r], seen.stops[r]
            ):
                top.counts[r] = offer(x, c, top.scores, top.cols, r, top.counts[r])


@kernel
def sort_top(top):
    """Turn each heap into a list, best first; what it lacks becomes column -1 and score NaN."""
    scores, cols = top.scores, top.cols
    for r in range(len(top.counts)):
        for size in range(top.counts[r] - 1, 0, -1):
            x, c = scores[r, 0], cols[r, 0]
            update_down(scores, cols, r, size, scores[r, size], cols[r, size])
            scores[r, size], cols[r, size] = x, c
        for i in range(top.counts[r], scores.shape[1]):
            scores[r, i], cols[r, i] = np.nan, -1
