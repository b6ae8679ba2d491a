"""The largest entries of each row of a product of factors, in parallel and in bounded memory.

Blocks of rows are shared out over threads. For each block, tiles of scores small enough for a core's own cache are made
by a matrix product (one BLAS thread each) and searched at once, so that scores never travel to main memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import one_blas_thread, run_in_threads
from fastfactor.kernels.topn import Seen, Top, select_tile, sort_top
from fastfactor.threads import count_threads

Array = NDArray[Any]
Ranked = tuple[NDArray[np.int64], Array]

_BLOCK = 256  # rows of a tile
_TILE_BYTES = 1 << 20
_MIN_ROWS = 8  # products of fewer rows would take another path through the BLAS, with other rounding


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
        Of equal values the one of the lower column comes first. The result does not depend on `n_threads`.
    """
    m = len(positions)
    found = min(n, len(right))
    top = Top(np.empty((m, found), right.dtype), np.empty((m, found), np.int64), np.zeros(m, np.int64))
    block = min(_BLOCK, max(_MIN_ROWS, -(-m // 64) * 8))  # eight blocks where there are few rows

    def work(start: int) -> None:
        part = slice(start, min(start + block, m))
        rows = np.ones((max(part.stop - part.start, _MIN_ROWS), right.shape[1]), right.dtype)
        rows[: part.stop - part.start, : left.shape[1]] = left[positions[part]]
        _search(rows, right, Seen(seen.indices, seen.starts[part], seen.stops[part]), Top(*(a[part] for a in top)))

    with one_blas_thread():
        run_in_threads(work, range(0, m if found else 0, block), count_threads(n_threads))
    if found == n:
        return top.cols, top.scores
    missing = ((0, 0), (0, n - found))
    return np.pad(top.cols, missing, constant_values=-1), np.pad(top.scores, missing, constant_values=np.nan)


def _search(rows: Array, right: Array, seen: Seen, top: Top) -> None:
    """Fill `top` for the given rows, tile by tile; all tiles are of one shape, so that all scores round alike."""
    n_cols = len(right)
    width = min(n_cols, _TILE_BYTES // (_BLOCK * right.dtype.itemsize))
    tile = np.empty((len(rows), width), right.dtype)
    for start in range(0, n_cols, width):
        first = min(start, n_cols - width)  # the last tile begins with columns that the one before had too
        np.dot(rows, right[first : first + width].T, out=tile)
        select_tile(tile, start - first, first, seen, top)
    sort_top(top)
