"""Selection of the n largest scores of each row, tile by tile of the columns, with a running threshold.

For a row r of scores p_rc (docs/derivation.md, equation 1) a heap of n (score, column) pairs is kept, the worst first.
A tile is scanned in steps against that worst score: after the first tiles hardly a step holds anything better, so the
scan costs little beside the product that made the scores. Tiles come in ascending order of columns, and only a strictly
better score enters, so of equal scores the lower columns stay.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastfactor.kernels.compiling import kernel

STEP = 64  # scores compared at once


class Top(NamedTuple):
    """The best so far of some rows.

    Attributes
    ----------
    scores : (n_rows, n) array
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
def is_seen(seen, r, c):
    """Whether column c is among those that do not count for row r (binary search)."""
    lo, hi = np.int64(seen.starts[r]), np.int64(seen.stops[r])
    while lo < hi:
        middle = (lo + hi) // 2
        if seen.indices[middle] < c:
            lo = middle + 1
        else:
            hi = middle
    return lo < seen.stops[r] and seen.indices[lo] == c


@kernel
def update_down(scores, cols, size, x, c):
    """Put (x, c) on top of a heap of `size` pairs, in place of what is there, and let it sink to its level."""
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and is_worse(scores[child + 1], cols[child + 1], scores[child], cols[child]):
            child += 1
        if not is_worse(scores[child], cols[child], x, c):
            break
        scores[i], cols[i] = scores[child], cols[child]
        i = child
    scores[i], cols[i] = x, c


@kernel
def update_up(scores, cols, size, x, c):
    """Add (x, c) to a heap of `size` pairs."""
    i = size
    while i > 0:
        parent = (i - 1) // 2
        if not is_worse(x, c, scores[parent], cols[parent]):
            break
        scores[i], cols[i] = scores[parent], cols[parent]
        i = parent
    scores[i], cols[i] = x, c


@kernel
def has_better(scores, start, threshold):
    """Whether one of the `STEP` scores from `start` on is above `threshold`; NaN is not.

    A loop of fixed length over int32 flags and unsigned positions becomes vector comparisons. Of 16 or 32 steps it is
    unrolled before that can happen, and takes four times as long.
    """
    found = np.int32(0)
    for j in range(STEP):
        found = np.int32(found | np.int32(scores[np.uint64(start + j)] > threshold))
    return found != 0


@kernel
def offer(x, c, scores, cols, count):
    """Put (x, c) in a heap of `count` pairs that it is worthy of; return how many there are then."""
    if count < len(scores):
        update_up(scores, cols, count, x, c)
        return count + 1
    update_down(scores, cols, count, x, c)
    return count


@kernel
def select_row(row, skip, first, seen, r, top):
    """Offer row[j], the score of column first + j, for j >= skip, to the heap of row r."""
    scores, cols, count = top.scores[r], top.cols[r], top.counts[r]
    n, lowest = len(scores), row.dtype.type(-np.inf)
    threshold = scores[0] if count == n else lowest
    for start in range(skip, len(row), STEP):
        stop = min(start + STEP, len(row))
        if stop - start == STEP and not has_better(row, start, threshold):
            continue
        for j in range(start, stop):
            if row[j] > threshold and not is_seen(seen, r, first + j):
                count = offer(row[j], first + j, scores, cols, count)
                threshold = scores[0] if count == n else lowest
    top.counts[r] = count


@kernel
def select_tile(tile, skip, first, seen, top):
    """Offer tile[r, j], the score of column first + j, for j >= skip, to the heap of each row r."""
    for r in range(len(top.counts)):
        select_row(tile[r], skip, first, seen, r, top)


@kernel
def sort_top(top):
    """Turn each heap into a list, best first; what it lacks becomes column -1 and score NaN."""
    n = top.scores.shape[1]
    for r in range(len(top.counts)):
        scores, cols = top.scores[r], top.cols[r]
        for size in range(top.counts[r] - 1, 0, -1):
            x, c = scores[0], cols[0]
            update_down(scores, cols, size, scores[size], cols[size])
            scores[size], cols[size] = x, c
        for i in range(top.counts[r], n):
            scores[i], cols[i] = np.nan, -1
