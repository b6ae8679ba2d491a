"""Which columns can be among the n best of a row, from products of 8-bit integers with a bound on their error.

A row u becomes a scale a times a vector q of integers, |q_i| <= 127, and so does a column, v = b w + rest, with one
scale b for a tile of columns of about the same length. Then (Cauchy and Schwarz)

    |u'v - a b q'w| <= |u - a q| |v| + |a q| |v - b w|,

and the sum q'w is exact (int8.py). Of a row's columns those are kept whose upper bound reaches the n-th best lower
bound so far; only they are scored in full (topn.py), so the result is that of scoring all. Tiles come in descending
order of their columns' lengths: where |u| |v| itself is below the n-th best, nothing after it is looked at.

The idea of bounding inner products by lengths is that of LEMP (Teflioudi, Gemulla and Mykytiuk 2015).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastfactor.kernels.compiling import kernel
from fastfactor.kernels.int8 import LARGEST, multiply, put
from fastfactor.kernels.topn import is_among, offer, score

STEP = 64  # sums compared at once
SAFE = 1 + 1e-9  # more than float64 can lose in a bound
GRAIN = 1e-300  # more than scores and bounds can lose where products vanish
_BEYOND = 2.0**25  # all sums (int8.MAX_WIDTH)


class CodedRows(NamedTuple):
    """Rows as scales times integers.

    Attributes
    ----------
    codes : (at least n, width) array
    scales, lengths, errors : (n,) float64 arrays
        a, |u| and |u - a q|.
    """

    codes: Any
    scales: Any
    lengths: Any
    errors: Any


class CodedColumns(NamedTuple):
    """Tiles of columns as scales times integers, the longest columns first.

    Attributes
    ----------
    codes : array of the shape that `int8.shape_of_columns` gives
    order : (n,) int64 array
        The columns, as they lie in the tiles.
    scales, lengths, errors : (n_tiles,) float64 arrays
        b, the largest |v| and the largest |v - b w| of each tile.
    """

    codes: Any
    order: Any
    scales: Any
    lengths: Any
    errors: Any


class Kept(NamedTuple):
    """The columns that may be among the best: cols[r, :counts[r]], with upper bounds of their scores."""

    cols: Any
    bounds: Any
    counts: Any


@kernel
def largest_of(v):
    """Return the largest absolute value in v."""
    largest = 0.0
    for q in range(len(v)):
        largest = max(largest, abs(np.float64(v[q])))
    return largest


@kernel
def length_of(v):
    """Return |v|, or inf where it is not a number; no square overflows or vanishes before it must."""
    largest, squares = largest_of(v), 0.0
    if largest == 0:
        return 0.0
    for q in range(len(v)):
        squares += (np.float64(v[q]) / largest) ** 2
    length = largest * np.sqrt(squares)
    return length if length < np.inf else np.inf


@kernel
def invert(scale):
    """Return 1 / scale, or 0 for a scale too small for it: all integers are 0 then, and the error is the vector."""
    return 1 / scale if scale > 1e-300 else 0.0


@kernel
def error_of(scale, squares, length):
    """Return |u - a q| from its squares in units of a, in which none overflows or vanishes."""
    return scale * np.sqrt(squares) if invert(scale) > 0 else length


@kernel
def encode_rows(rows, coded):
    """Fill `coded`, but for the lengths, with the rows; what is left of `coded` stays zero."""
    for r in range(len(rows)):
        scale = largest_of(rows[r]) / LARGEST
        inverse, squares = invert(scale), 0.0
        for q in range(rows.shape[1]):
            number = np.float64(rows[r, q]) * inverse
            code = np.rint(number)
            squares += (number - code) ** 2
            coded.codes[r, q] = code
        coded.scales[r], coded.errors[r] = scale, error_of(scale, squares, coded.lengths[r])


@kernel
def measure(vectors, start, stop, lengths):
    """Write the lengths of vectors[start:stop]."""
    for i in range(start, stop):
        lengths[i] = length_of(vectors[i])


@kernel
def encode_tile(columns, coded, t, width):
    """Fill tile t, but for its length, with the `width` columns from coded.order[t * width] on."""
    first, largest = t * width, 0.0
    last = min(first + width, len(coded.order))
    for i in range(first, last):
        largest = max(largest, largest_of(columns[coded.order[i]]))
    scale, worst = largest / LARGEST, 0.0
    inverse = invert(scale)
    for i in range(first, last):
        v, squares = columns[coded.order[i]], 0.0
        for q in range(len(v)):
            number = np.float64(v[q]) * inverse
            code = np.rint(number)
            squares += (number - code) ** 2
            put(coded.codes, i, q, code)
        worst = max(worst, squares)
    coded.scales[t], coded.errors[t] = scale, error_of(scale, worst, coded.lengths[t])


@kernel
def bound_error(length, error, longest, worst):
    """Return what scores can be off by: of a row and of a tile of columns, |u|, |u - a q|, and |v| and |v - b w|."""
    lost = error * longest + (length + error) * worst
    return lost * SAFE + 1e-12 * length * longest + GRAIN  # the second for rounding, also in the full scores


@kernel
def lowest_sum(threshold, slack, scale):
    """Return what all sums of use exceed: those with scale * sum + slack >= threshold, and a few more."""
    if scale == 0:
        return -_BEYOND if slack >= threshold else _BEYOND
    return max(min(np.floor((threshold - slack) / scale) - 2, _BEYOND), -_BEYOND)


@kernel
def has_more(sums, r, start, lowest):
    """Whether one of the `STEP` sums of row r from `start` on is above `lowest`.

    A loop of fixed length over int32 flags and unsigned positions becomes vector comparisons. Of 16 or 32 steps it is
    unrolled before that can happen, and takes four times as long.
    """
    found = np.int32(0)
    for j in range(STEP):
        found = np.int32(found | np.int32(sums[r, np.uint64(start + j)] > lowest))
    return found != 0


@kernel
def collect(sums, r, count, lowest, hits):
    """Write the places among sums[r, :count] with more than `lowest` to `hits`; return how many there are."""
    found, lowest_ = 0, sums.dtype.type(lowest)
    for start in range(0, count, STEP):
        if has_more(sums, r, start, lowest_):
            for j in range(start, min(start + STEP, count)):
                hits[found] = j
                found += sums[r, j] > lowest_
    return found


@kernel
def worst_of(scores, cols, r, count):
    """Return the n-th best lower bound of row r, and its column."""
    if count == scores.shape[1]:
        return scores[r, 0], cols[r, 0]
    return -np.inf, np.int64(-1)


@kernel
def can_enter(bound, c, threshold, worst):
    """Whether a column c of at most this score may be better than the n-th best."""
    return bound > threshold or (bound == threshold and c <= worst)


@kernel
def drop_hopeless(kept, top, r):
    """Leave out the columns that cannot be among the n best of row r any more."""
    count, (threshold, worst) = 0, worst_of(top.scores, top.cols, r, top.counts[r])
    for i in range(kept.counts[r]):
        c, bound = kept.cols[r, i], kept.bounds[r, i]
        if can_enter(bound, c, threshold, worst):
            kept.cols[r, count], kept.bounds[r, count] = c, bound
            count += 1
    kept.counts[r] = count


@kernel
def settle(factors, kept, top, r):
    """Score what is kept of row r in full: the heap's lower bounds become the scores of the n best, all else goes."""
    rows, columns = factors
    drop_hopeless(kept, top, r)
    count = 0
    for i in range(kept.counts[r]):
        c = kept.cols[r, i]
        count = offer(score(rows, r, columns, c), c, top.scores, top.cols, r, count)
    for i in range(count):
        kept.cols[r, i], kept.bounds[r, i] = top.cols[r, i], top.scores[r, i]
    kept.counts[r] = top.counts[r] = count


@kernel
def make_room(factors, kept, top, r):
    """Leave at least half of the places for row r free."""
    drop_hopeless(kept, top, r)
    if 2 * kept.counts[r] > kept.cols.shape[1]:
        settle(factors, kept, top, r)


@kernel
def screen_tile(factors, coded, sums, t, hits, seen, kept, top):
    """Keep what may be among the n best of each row; sums[r, j] belongs to the j-th column of tile t.

    Arrays are taken out of their tuples once: within the loops that would be an atomic count of references each time.
    """
    rows, columns = coded
    scales, lengths, errors, order = rows.scales, rows.lengths, rows.errors, columns.order
    scale_, longest, error_ = columns.scales[t], columns.lengths[t], columns.errors[t]
    indices, starts, stops = seen.indices, seen.starts, seen.stops
    places, bounds, n_kept = kept.cols, kept.bounds, kept.counts
    scores, cols, counts = top.scores, top.cols, top.counts
    first = t * sums.shape[1]
    width = min(sums.shape[1], len(order) - first)
    for r in range(len(counts)):
        scale, slack = scales[r] * scale_, bound_error(lengths[r], errors[r], longest, error_)
        threshold, worst = worst_of(scores, cols, r, counts[r])
        for i in range(collect(sums, r, width, lowest_sum(threshold, slack, scale), hits)):
            estimate, c = scale * sums[r, hits[i]], order[first + hits[i]]
            if not can_enter(estimate + slack, c, threshold, worst) or is_among(c, indices, starts[r], stops[r]):
                continue
            if n_kept[r] == places.shape[1]:
                make_room(factors, kept, top, r)
                threshold, worst = worst_of(scores, cols, r, counts[r])
            places[r, n_kept[r]], bounds[r, n_kept[r]] = c, estimate + slack
            n_kept[r] += 1
            if counts[r] < scores.shape[1] or estimate - slack >= threshold:
                counts[r] = offer(estimate - slack, c, scores, cols, r, counts[r])
                threshold, worst = worst_of(scores, cols, r, counts[r])


@kernel
def can_improve(lengths, longest, top):
    """Whether any row may find a better column among those that are no longer than `longest`."""
    scores, counts, found = top.scores, top.counts, False
    for r in range(len(counts)):
        found |= counts[r] < scores.shape[1] or lengths[r] * longest * SAFE + GRAIN >= scores[r, 0]
    return found


@kernel
def screen(factors, coded, sums, seen, kept, top):
    """Fill the heaps with the n best columns of each row and their scores.

    Parameters
    ----------
    factors : (rows, columns)
        The matrices that are multiplied.
    coded : (CodedRows, CodedColumns)
        The same as integers.
    sums : (len(rows.codes), width of a tile) array of dtype `int8.SUM`
        Working memory.
    seen : Seen
    kept : Kept
        Working memory.
    top : Top
        Empty heaps.
    """
    rows, columns = coded
    hits = np.empty(sums.shape[1], np.int64)
    for t in range(len(columns.scales)):
        if not can_improve(rows.lengths, columns.lengths[t], top):
            break
        multiply(rows.codes, columns.codes, t * sums.shape[1], sums)
        screen_tile(factors, coded, sums, t, hits, seen, kept, top)
    for r in range(len(top.counts)):
        settle(factors, kept, top, r)
