"""From CSR to blocks: a parallel counting sort, and the one look at the user's arrays that comes before it."""

from __future__ import annotations

import numpy as np
from numba import prange, types
from numba.extending import overload

from fastfactor.kernels.ahead import prefetch_number
from fastfactor.kernels.compiling import kernel, parallel_kernel, strict_kernel

# Numbers at the start of the next row that `fill_blocks` asks for: half a kilobyte, by when the hardware has noticed.
EARLY = 128
LINE = 16  # numbers of four bytes in a cache line


@kernel
def hash_counter(seed, counter):
    """Return 64 well-mixed bits of (seed, counter): splitmix64 (Steele, Lea and Flood, OOPSLA 2014).

    A counter-based generator draws the same number for an entry whichever thread asks.
    """
    z = np.uint64(seed) + (np.uint64(counter) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def is_held_out(seed, i, threshold):
    """Decide whether entry `i` is kept for validation; a share of threshold / 2**32 of them is."""
    return threshold > 0 and (hash_counter(seed, i) >> np.uint64(32)) < threshold


@strict_kernel
def add_moments(data, first, last):
    """Return the sums over data[first:last] of the values' real parts, squared moduli and imaginary parts.

    Four sums of each take turns, so that none has to wait for the addition before it.
    """
    re0, re1, re2, re3 = 0.0, 0.0, 0.0, 0.0
    im0, im1, im2, im3 = 0.0, 0.0, 0.0, 0.0
    sq0, sq1, sq2, sq3 = 0.0, 0.0, 0.0, 0.0
    quads = (last - first) // np.uint64(4)
    for q in range(quads):
        i = first + np.uint64(4) * q
        x0, x1, x2, x3 = data[i], data[i + np.uint64(1)], data[i + np.uint64(2)], data[i + np.uint64(3)]
        re0, im0, sq0 = add_moment(x0, re0, im0, sq0)
        re1, im1, sq1 = add_moment(x1, re1, im1, sq1)
        re2, im2, sq2 = add_moment(x2, re2, im2, sq2)
        re3, im3, sq3 = add_moment(x3, re3, im3, sq3)
    for i in range(first + np.uint64(4) * quads, last):
        re0, im0, sq0 = add_moment(data[i], re0, im0, sq0)
    return (re0 + re1) + (re2 + re3), (sq0 + sq1) + (sq2 + sq3), (im0 + im1) + (im2 + im3)


@strict_kernel
def add_moment(x, re, im, sq):
    """Add the parts of x, and its squared modulus, to the sums."""
    a, b = np.float64(x.real), np.float64(x.imag)
    return re + a, im + b, sq + (a * a + b * b)


@parallel_kernel
def inspect_rows(indptr, indices, data, n_cols, slices, sums, faults):
    """Look once at every stored entry, slice by slice of the rows.

    Parameters
    ----------
    slices : (n + 1,) int64 array
        Row boundaries; the sums are kept per slice so that they do not depend on the number of threads.
    sums : (n, 3) float64 array, written
        Sum of the values, of their squared moduli, and of the imaginary parts.
    faults : (n, 2) int64 array, written
        Entries whose column is out of range; entries not above the one before them in their row.
    """
    one = np.uint64(1)
    for s in prange(len(slices) - 1):
        sums[s] = add_moments(data, np.uint64(indptr[slices[s]]), np.uint64(indptr[slices[s + 1]]))
        outside, unsorted = 0, 0
        for r in range(slices[s], slices[s + 1]):
            first, last = np.uint64(indptr[r]), np.uint64(indptr[r + 1])
            for i in range(first, last):  # two loops: each is vectorised, one that does both is not
                c = np.int64(indices[i])
                outside += (c < 0) | (c >= n_cols)
            for i in range(first + one, last):
                unsorted += indices[i] <= indices[i - one]
        faults[s, 0], faults[s, 1] = outside, unsorted


@kernel
def find_duplicate(indptr, indices, n_cols):
    """Return (row, col) of the first entry that repeats one of its row, or (-1, -1); columns may be unsorted."""
    seen_in = np.full(n_cols, -1, np.int64)
    for r in range(len(indptr) - 1):
        for i in range(indptr[r], indptr[r + 1]):
            if seen_in[indices[i]] == r:
                return r, np.int64(indices[i])
            seen_in[indices[i]] = r
    return -1, -1


@kernel
def count_columns(indptr, indices, counts, stride):
    """Add up in `counts` how often each column occurs in every `stride`-th row."""
    for r in range(0, len(indptr) - 1, stride):
        for i in range(indptr[r], indptr[r + 1]):
            counts[indices[i]] += 1


@kernel
def sort_by_row(rows, indptr, order):
    """Stable counting sort: fill `indptr` (n_rows + 1) and `order`, so that rows[order] ascends."""
    for i in range(len(rows)):
        indptr[rows[i] + 1] += 1
    for r in range(len(indptr) - 1):
        indptr[r + 1] += indptr[r]
    cursor = indptr[:-1].copy()
    for i in range(len(rows)):
        order[cursor[rows[i]]] = i
        cursor[rows[i]] += 1


@parallel_kernel
def count_blocks(indptr, indices, slices, row_stripe, col_stripe, held_out, counts, held_counts):
    """Count the entries of each slice of rows in each block, and its held-out ones in each row stripe.

    Parameters
    ----------
    slices : (n + 1,) int64 array
        Row boundaries; the arrays are read forwards.
    row_stripe, col_stripe : arrays
        For each row and each column its stripe.
    held_out : (seed, threshold)
        See `is_held_out`.
    counts, held_counts : (n, B, B), (n, B) int64 arrays, added to
    """
    seed, threshold = held_out
    for s in prange(len(slices) - 1):
        for r in range(slices[s], slices[s + 1]):
            here, b = counts[s, row_stripe[r]], row_stripe[r]
            for i in range(np.uint64(indptr[r]), np.uint64(indptr[r + 1])):
                if is_held_out(seed, i, threshold):
                    held_counts[s, b] += 1
                else:
                    here[col_stripe[np.uint64(indices[i])]] += 1


def set_weight(target, weights, i):
    """Write weights[i] to the field `weight` of a record; weights of None compile to nothing."""
    if weights is not None:
        target.weight = weights[i]


def copy_weight(target, h, weights, i):
    """Write weights[i] to target[h]; weights of None compile to nothing."""
    if weights is not None:
        target[h] = weights[i]


@kernel
def _set_weight(target, weights, i):
    target.weight = weights[i]


@overload(set_weight, inline="always")
def _set_weight_of(target, weights, i):
    if isinstance(weights, types.NoneType):
        return lambda target, weights, i: None
    return lambda target, weights, i: _set_weight(target, weights, i)


@overload(copy_weight, inline="always")
def _copy_weight_of(target, h, weights, i):
    def copy(target, h, weights, i):
        target[h] = weights[i]

    return (lambda target, h, weights, i: None) if isinstance(weights, types.NoneType) else copy


@parallel_kernel
def fill_blocks(matrix, weights, row_order, col_place, blocks, standard, held_out, held, held_weights):
    """Write each entry to its block, standardised, rows ascending within the block; held-out ones to `held`.

    One row stripe at a time, so that few places are written to at once: B times as many were slower.

    Parameters
    ----------
    matrix : (indptr, indices, data)
    weights : (n_entries,) array or None
        Of the entries.
    col_place : (stripe, local)
        For each column its stripe, and its position in the stripe.
    blocks : sweep.Blocks
        Its `entries` are written.
    standard : (shift, factor)
        What is stored is (x - shift) * factor.
    held_out : (seed, threshold)
    held : (starts, rows, cols, values)
        Where each row stripe's held-out entries begin, and their positions and values, written.
    held_weights : array or None
        Their weights, written.
    """
    indptr, indices, data = matrix
    stripe, local = col_place
    shift, factor = standard
    seed, threshold = held_out
    held_starts, held_rows, held_cols, held_values = held
    entries, row_starts = blocks.entries, blocks.row_starts
    n_across = len(blocks.col_starts) - 1
    cursors = blocks.starts.copy()  # not in the loop, where a lack of memory is a SystemError
    for b in prange(len(row_starts) - 1):
        cursor = cursors[n_across * b : n_across * (b + 1)]
        h = held_starts[b]
        for p in range(row_starts[b], row_starts[b + 1]):
            r = row_order[p]
            following = indptr[row_order[min(p + 1, row_starts[b + 1] - 1)]]  # rows of a stripe lie apart
            for k in range(0, EARLY, LINE):
                prefetch_number(indices, following + k)
                prefetch_number(data, following + k)
            for i in range(np.uint64(indptr[r]), np.uint64(indptr[r + 1])):
                j = np.uint64(indices[i])  # unsigned: no look at negative indices
                c = stripe[j]
                x = (data[i] - shift) * factor
                if is_held_out(seed, i, threshold):
                    held_rows[h] = p
                    held_cols[h] = blocks.col_starts[c] + local[j]
                    held_values[h] = x
                    copy_weight(held_weights, h, weights, i)
                    h += 1
                else:
                    entry = entries[cursor[c]]
                    cursor[c] += np.uint64(1)
                    entry.row = p - row_starts[b]
                    entry.col = local[j]
                    entry.value = x
                    set_weight(entry, weights, i)


@parallel_kernel
def count_strays(blocks, d, strays):
    """Count the entries of each block of diagonal `d` that lie outside its stripes: a sweep would follow them."""
    rows, cols = blocks.row_starts, blocks.col_starts
    B = len(rows) - 1
    for b in prange(B):
        c = (b + d) % B
        height, width = rows[b + 1] - rows[b], cols[c + 1] - cols[c]
        found = 0
        for i in range(blocks.starts[B * b + c], blocks.stops[B * b + c]):
            entry = blocks.entries[i]
            if entry.row >= height or entry.col >= width:
                found += 1
        strays[b] = found
