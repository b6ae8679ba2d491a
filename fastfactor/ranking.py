"""The best columns for each row, and the most similar rows: exact, in parallel, in bounded memory.

Blocks of rows are shared out over threads. For each block, tiles of scores small enough for a core's own cache are made
by a matrix product (one BLAS thread each) and searched at once, so that scores never travel to main memory.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from fastfactor.blas import one_blas_thread
from fastfactor.kernels.topn import Seen, Top, select_tile, sort_top
from fastfactor.matrix.inputs import check_structure, is_sparse
from fastfactor.threads import count_threads

if TYPE_CHECKING:
    from fastfactor.model import Factorization

Array = NDArray[Any]
Ranked = tuple[NDArray[np.int64], Array]

_BLOCK = 256  # rows of a tile
_TILE_BYTES = 1 << 20
_MIN_ROWS = 8  # products of fewer rows would take another path through the BLAS, with other rounding


def recommend(
    model: Factorization, rows: ArrayLike, n: int = 10, exclude: Any = None, n_threads: int | None = None
) -> Ranked:
    """Return the n columns of highest prediction for each row, best first; see `Factorization.recommend`."""
    positions, n = model._positions(rows, 0, "rows"), _check_n(n)
    if model.U.dtype.kind == "c":
        raise TypeError(f"the predictions of a model of dtype {model.U.dtype} are complex and have no order")
    seen = _as_seen(exclude, positions, model.shape)
    left, right = model.U, model.V
    if model.col_bias.any():
        right = np.column_stack([right, model.col_bias])
    cols, scores = select_top(left, right, positions, seen, n, n_threads)
    scores += (model.row_bias[positions] + model.mean)[:, None]
    return cols, scores


def find_similar(M: Array, positions: NDArray[np.int64], n: int, n_threads: int | None = None) -> Ranked:
    """Return the n rows of M of highest cosine with each of the given ones, themselves left out.

    For complex M it is the real part of the inner product that is compared; rows of zeros have cosine 0 with all.
    """
    n = _check_n(n)
    units = _as_units(M)
    own = np.arange(len(positions) + 1, dtype=np.int64)
    cols, scores = select_top(units, units, positions, Seen(positions, own[:-1], own[1:]), n, n_threads)
    return cols, np.clip(scores, -1, 1)


def _as_units(M: Array) -> Array:
    """Return the rows of M, complex numbers as pairs of real ones, scaled to length 1."""
    real = np.ascontiguousarray(M).view(M.real.dtype)
    largest = np.abs(real).max(axis=1, keepdims=True, initial=0)
    units: Array = real / np.where(largest > 0, largest, 1)  # so that squares neither overflow nor vanish
    lengths = np.sqrt(np.einsum("rq,rq->r", units, units))[:, None]
    units /= np.where(lengths > 0, lengths, 1)
    return units


def _check_n(n: Any) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an integer, got {n!r}")
    if n.__index__() < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return int(n.__index__())


def _as_seen(exclude: Any, positions: NDArray[np.int64], shape: tuple[int, int]) -> Seen:
    if exclude is None:
        none = np.zeros(len(positions), np.int64)
        return Seen(none[:0], none, none)
    if not is_sparse(exclude):
        raise TypeError(f"exclude must be a scipy.sparse matrix or None, got {type(exclude).__name__}")
    if exclude.shape != shape:
        raise ValueError(f"exclude has shape {exclude.shape}, the model has {shape}")
    check_structure(exclude, "exclude")
    matrix = sp.csr_array(exclude)
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()  # a copy: the user's own stays as it is
    indptr = matrix.indptr.astype(np.int64, copy=False)
    return Seen(matrix.indices, indptr[positions], indptr[positions + 1])


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

    starts = range(0, m if found else 0, block)
    with one_blas_thread(), ThreadPoolExecutor(count_threads(n_threads)) as pool:
        for _ in pool.map(work, starts):
            pass
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
