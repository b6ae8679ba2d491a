"""One epoch: `prange` over blocks that share no row and no column, so that no two threads touch the same factors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.extending import overload

from fastfactor.kernels.ahead import prefetch_all, prefetch_number
from fastfactor.kernels.compiling import entry_kernel, kernel, parallel_kernel
from fastfactor.kernels.rivals import draw_rival, select_rivals
from fastfactor.kernels.simd import prefetch
from fastfactor.kernels.subnormals import flush_subnormals, restore_subnormals
from fastfactor.kernels.update import Factors, Step, cut, n_chunks, update_entry, update_pair, weight_of

# Inside a block the entries are sorted by row, and eight runs of it are walked in turn. Neighbouring updates then do
# not wait for each other, while each run's factor row stays in the first-level cache (docs/performance.md).
RUNS = np.uint64(8)
AHEAD = np.uint64(2)  # entries ahead in the same run, so 16 updates ahead in time; `entries` ends with as many spare
# The columns of a block are near by then; its rows and its entries come from memory, which takes longer.
ROWS_AHEAD = np.uint64(16)
ENTRIES_AHEAD = np.uint64(64)
KEPT = 1 << 20  # bytes: column factors of larger stripes do not stay in the caches, asked for or not


class Blocks(NamedTuple):
    """The stored entries, cut into B x B blocks of rows and columns (see matrix/grid.py).

    Attributes
    ----------
    entries : (n + spare,) record array
        Fields row, col (within the block's stripes), value, and weight where entries have one.
    starts, stops : (B * B,) uint64 arrays
        Block (i, j) holds entries[starts[B * i + j] : stops[B * i + j]].
    row_starts, col_starts : (B + 1,) int64 arrays
        First row of each row stripe, first column of each column stripe, in the order of the factors.
    """

    entries: Any
    starts: Any
    stops: Any
    row_starts: Any
    col_starts: Any


@kernel
def select_stripes(factors, r0, r1, c0, c1):
    """Return the factors of rows r0:r1 and columns c0:c1, as views."""
    return Factors(
        factors.U[r0:r1],
        factors.V[c0:c1],
        factors.row_bias[r0:r1],
        factors.col_bias[c0:c1],
    )


@kernel
def select_step(step, r0, r1, c0, c1):
    """Return the step with what it says of rows r0:r1 and columns c0:c1."""
    return Step(
        step.lr,
        cut(step.shrink_u, r0, r1),
        cut(step.shrink_v, c0, c1),
        step.place,
        step.prox,
        cut(step.pace_u, r0, r1),
        cut(step.pace_v, c0, c1),
        step.origin,
        step.stretch,
    )


@entry_kernel
def ask_for(factors, entries, i, rows_ahead, static):
    """Ask for the factors of entries that follow entry i in its run, and for later entries."""
    col, row = entries[i + AHEAD].col, entries[i + rows_ahead].row
    prefetch_number(entries, i + ENTRIES_AHEAD)
    for k in range(n_chunks(factors.V, static)):
        prefetch(factors.V, col, k, static)
        prefetch(factors.U, row, k, static)


@entry_kernel
def sweep_entry(factors, entries, i, step, static):
    """Update on entry i."""
    entry = entries[i]
    return update_entry(factors, entry.row, entry.col, entry.value, step, static, weight_of(entry))


@entry_kernel
def sweep_pair(factors, entries, i, step, static, rivals):
    """Update on entry i and the column it is held against."""
    entry = entries[i]
    rival = draw_rival(rivals, i, entry.row)
    if rival < 0:
        return step.lr - step.lr
    return update_pair(factors, entry.row, entry.col, rival, entry.value, step, static, weight_of(entry))


def visit(factors, entries, i, step, static, rivals):
    """Update on entry i, or on the pair that it makes with one of the `rivals`."""
    if rivals is None:
        return sweep_entry(factors, entries, i, step, static)
    return sweep_pair(factors, entries, i, step, static, rivals)


@overload(visit, inline="always")
def _visit(factors, entries, i, step, static, rivals):
    if isinstance(rivals, types.NoneType):
        return lambda factors, entries, i, step, static, rivals: sweep_entry(factors, entries, i, step, static)
    return lambda factors, entries, i, step, static, rivals: sweep_pair(factors, entries, i, step, static, rivals)


@kernel
def sweep_block(factors, entries, start, stop, step, static, rivals):
    """Update on each entry of a block once, `RUNS` runs in turn. Return the sum of their losses.

    Eight losses at a time are summed in their own precision, which is cheaper than to widen each.
    """
    if len(factors.V) <= stop - start and factors.V.nbytes <= KEPT:  # in order, several lines come at once
        prefetch_all((factors.V, factors.row_bias, factors.col_bias, step))
    length = (stop - start) // RUNS
    loss, before = 0.0, flush_subnormals()
    for i in range(start, start + length):
        rows_ahead = min(ROWS_AHEAD, start + length - np.uint64(1) - i)
        part = step.lr - step.lr
        for j in range(RUNS):
            ask_for(factors, entries, i + j * length, rows_ahead, static)
            part += visit(factors, entries, i + j * length, step, static, rivals)
        loss += part
    for i in range(start + RUNS * length, stop):
        loss += visit(factors, entries, i, step, static, rivals)
    restore_subnormals(before)
    return loss


@parallel_kernel
def sweep_stored(factors, blocks, rivals, diagonals, losses, step, static):
    """Visit the blocks of the given diagonals; block (b, b + d) writes its loss to losses[b, d].

    Each entry is an update of its own where `rivals` is None, else one of the pair that it makes with a rival.

    The blocks of one diagonal touch disjoint factors, and each is walked in a fixed order by one thread: the result is
    the same, bit for bit, for any number of threads.
    """
    rows, cols = blocks.row_starts, blocks.col_starts
    B = len(rows) - 1
    for d in diagonals:
        for b in prange(B):
            c = (b + d) % B
            r0, r1, c0, c1 = rows[b], rows[b + 1], cols[c], cols[c + 1]
            factors_here = select_stripes(factors, r0, r1, c0, c1)
            start, stop = blocks.starts[B * b + c], blocks.stops[B * b + c]
            step_here = select_step(step, r0, r1, c0, c1)
            rivals_here = select_rivals(rivals, r0, r1, c0, c1)
            losses[b, d] = sweep_block(factors_here, blocks.entries, start, stop, step_here, static, rivals_here)


@kernel
def sweep_dense_block(A, factors, step, static):
    """Update on every entry of the dense block `A`, `RUNS` rows in turn, each a step further along its columns."""
    n_rows, n_cols = A.shape
    runs = min(np.int64(RUNS), n_cols)
    loss, before = 0.0, flush_subnormals()
    for top in range(0, n_rows, runs):
        height = min(runs, n_rows - top)
        for t in range(n_cols):
            part = step.lr - step.lr
            for j in range(height):
                c = t + j if t + j < n_cols else t + j - n_cols
                part += update_entry(factors, top + j, c, A[top + j, c], step, static)
            loss += part
    restore_subnormals(before)
    return loss


@parallel_kernel
def sweep_dense(factors, A, stripes, diagonals, losses, step, static):
    """Visit the blocks of the given diagonals of a dense matrix, as `sweep_stored` does.

    Parameters
    ----------
    A : (n_rows, n_cols) C-contiguous array
    stripes : (row_starts, col_starts)
    """
    row_starts, col_starts = stripes
    B = len(row_starts) - 1
    for d in diagonals:
        for b in prange(B):
            c = (b + d) % B
            r0, r1, c0, c1 = row_starts[b], row_starts[b + 1], col_starts[c], col_starts[c + 1]
            factors_here = select_stripes(factors, r0, r1, c0, c1)
            step_here = select_step(step, r0, r1, c0, c1)
            losses[b, d] = sweep_dense_block(A[r0:r1, c0:c1], factors_here, step_here, static)
