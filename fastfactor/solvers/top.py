"""The largest entries of each row of a product of factors, in parallel and in bounded memory.

Blocks of rows are shared out over threads. Where there are few rows or few columns every score is computed; else 8-bit
integers, four times as fast, rule out nearly all columns first (kernels/screen.py). The result is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import aligned_empty, aligned_zeros, one_blas_thread, pad, run_in_threads
from fastfactor.kernels.int8 import COLUMN_CODE, GROUP, MAX_WIDTH, ROW_CODE, ROWS, SUM, shape_of_columns
from fastfactor.kernels.screen import CodedColumns, CodedRows, Kept, encode_rows, encode_tile, measure, screen
from fastfactor.kernels.topn import Seen, Top, rank_all, sort_top
from fastfactor.threads import count_threads

Array = NDArray[Any]
Ranked = tuple[NDArray[np.int64], Array]
Search = Callable[[Array, Seen, Top], None]

_BLOCK = 256  # rows of a tile
_WIDTH = 512  # columns of a tile: its sums stay in a core's own cache
_SLICE = 16  # tiles that are prepared by one thread at a time
_FEW_ROWS = 16  # for fewer, integers take longer to make than they save
_LIST_BYTES = 1 << 23  # of the lists of columns that a block of rows keeps
_LARGEST = 1e300  # of the products of lengths that can be told apart


def select_top(
    left: Array, right: Array, positions: NDArray[np.int64], seen: Seen, n: int, n_threads: int | None
) -> Ranked:
    """Return the n largest entries of each row left[positions] @ right.T: columns and values, best first.

    Parameters
    ----------
    left : (n_rows, rank) array
    right : (n_cols, rank) or (n_cols, rank + 1) array
        A column more than `left` stands for one that is all ones.
    positions : (m,) array
    seen : Seen
        What to leave out.
    n : int

    Returns
    -------
    cols : (m, n) int64 array, padded with -1
    values : (m, n) array, padded with NaN
        Of equal values the one of the lower column comes first. They are summed in float64 and rounded at the end, so
        neither `n_threads` nor which other rows are asked for changes a bit.
    """
    m, threads = len(positions), count_threads(n_threads)
    found = min(n, len(right))
    cols, values = np.full((m, n), -1), np.full((m, n), np.nan, right.dtype)
    right, indices = _lock(np.ascontiguousarray(right)), _lock(seen.indices)
    search = _prepare(right, m, found, threads)
    block = _choose_block(m, found)

    def work(start: int) -> None:
        part = slice(start, min(start + block, m))
        rows = np.ones((part.stop - part.start, right.shape[1]), right.dtype)
        rows[:, : left.shape[1]] = left[positions[part]]
        shape = (len(rows), found)
        top = Top(np.empty(shape), np.empty(shape, np.int64), np.zeros(len(rows), np.int64))
        with np.errstate(over="ignore", invalid="ignore"):  # a score beyond its type is inf, as a prediction is
            search(rows, Seen(indices, seen.starts[part], seen.stops[part]), top)
            sort_top(top)
            cols[part, :found], values[part, :found] = top.cols, top.scores

    with one_blas_thread():
        run_in_threads(work, range(0, m if found else 0, block), threads)
    return cols, values


def _lock(array: Array) -> Array:
    """Return a view that cannot be written, as what a model on disk gives is: one type of array, one compilation."""
    view = array.view()
    view.flags.writeable = False
    return view


def _choose_block(m: int, n: int) -> int:
    """Return how many rows are searched at once: eight blocks where there are few, fewer rows where n is large."""
    shared = max(ROWS, pad(-(-m // 8), ROWS))
    return min(_BLOCK, shared, max(ROWS, _LIST_BYTES // (16 * _room(n)) // ROWS * ROWS))


def _room(n: int) -> int:
    """Return how many columns are kept for a row: twice what is wanted, or the lists could not be halved, and some."""
    return 2 * n + 64


def _prepare(right: Array, m: int, n: int, threads: int) -> Search:
    """Return what fills the heaps of some rows: by all scores, or by those of the columns that integers leave over."""

    def search_all(rows: Array, seen: Seen, top: Top) -> None:
        rank_all(rows, right, seen, top)

    if m < _FEW_ROWS or len(right) < max(_WIDTH, 4 * n) or right.shape[1] > MAX_WIDTH:
        return search_all
    lengths = np.empty(len(right))
    run_in_threads(lambda s: measure(right, s.start, s.stop, lengths), _slices(len(right), _WIDTH * _SLICE), threads)
    if not lengths.max() < _LARGEST:
        return search_all
    columns = _encode(right, lengths, threads)

    def search(rows: Array, seen: Seen, top: Top) -> None:
        coded = _make_rows(len(rows), right.shape[1])
        measure(rows, 0, len(rows), coded.lengths)
        if not coded.lengths.max() * columns.lengths[0] < _LARGEST:
            search_all(rows, seen, top)
            return
        encode_rows(rows, coded)
        places = (len(rows), _room(n))
        kept = Kept(np.empty(places, np.int64), np.empty(places), np.zeros(len(rows), np.int64))
        sums = aligned_empty((len(coded.codes), _WIDTH), SUM)
        screen((rows, right), (coded, columns), sums, seen, kept, top)

    return search


def _slices(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _make_rows(n: int, rank: int) -> CodedRows:
    """Return zeros: whole steps of rows, whole groups of numbers."""
    return CodedRows(np.zeros((pad(n, ROWS), pad(rank, GROUP)), ROW_CODE), *np.zeros((3, n)))


def _encode(right: Array, lengths: Array, threads: int) -> CodedColumns:
    """Return the columns as integers, the longest first."""
    n_tiles = -(-len(right) // _WIDTH)
    codes = aligned_zeros(shape_of_columns(n_tiles * _WIDTH, pad(right.shape[1], GROUP)), COLUMN_CODE)
    order = np.argsort(-lengths, kind="stable")
    columns = CodedColumns(codes, order, np.empty(n_tiles), lengths[order[::_WIDTH]], np.empty(n_tiles))

    def work(part: slice) -> None:
        for t in range(part.start, part.stop):
            encode_tile(right, columns, t, _WIDTH)

    run_in_threads(work, _slices(n_tiles, _SLICE), threads)
    return columns
