"""Rows in the order of their lengths, so that where one ends can be guessed: what passes over short rows gain by it.

Only rows that are near each other change places: those of one window. Where a matrix has to be transposed anyway, the
order costs nothing. Else a copy is worth it for short rows and many passes (docs/performance.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.packing import copy_rows, sort_by_length
from fastfactor.threads import launch

Array = NDArray[Any]

WINDOW = 1024
N_LENGTHS = 128  # longer rows are taken for equals
N_SLICES = 4
TURN = np.dtype(np.int16)


class Stored(NamedTuple):
    """Rows of a CSR matrix: what is stored as the i-th is row ``i + turns[i]``."""

    indptr: Array
    indices: Array
    values: Array
    turns: Array


def slice_windows(n_rows: int) -> Array:
    """Return the boundaries of slices of windows."""
    return np.minimum(np.arange(N_SLICES + 1) * -(-n_rows // (N_SLICES * WINDOW)) * WINDOW, n_rows)


def sort_rows(indptr: Array) -> NDArray[np.int16]:
    """Return where the rows come from: the i-th of those sorted by length, within each window, is row i + turns[i]."""
    turns = np.empty(len(indptr) - 1, TURN)
    counts = np.zeros((N_SLICES, N_LENGTHS + 1), np.int64)
    launch(sort_by_length, indptr, WINDOW, slice_windows(len(turns)), counts, turns)
    return turns


def leave(indptr: Array, indices: Array, values: Array) -> Stored:
    """Return the rows as they lie."""
    return Stored(indptr, indices, values, np.zeros(len(indptr) - 1, TURN))


def copy_sorted(stored: Stored, n_cols: int, room: int) -> Stored:
    """Return a sorted copy of the first rows, as many whole windows as fit into `room` bytes; all of them if all do."""
    indptr, indices, values = stored.indptr, stored.indices, stored.values
    index = np.dtype(np.uint16 if n_cols <= 1 << 16 else indices.dtype)
    n_entries = (room - indptr.nbytes - stored.turns.nbytes) // (index.itemsize + values.itemsize)
    n_rows = int(np.searchsorted(indptr, n_entries, side="right")) - 1
    n_rows -= n_rows % WINDOW if n_rows < len(indptr) - 1 else 0
    indptr = indptr[: n_rows + 1]
    turns = sort_rows(indptr)
    copy = Stored(indptr.copy(), np.empty(indptr[-1], index), np.empty(indptr[-1], values.dtype), turns)
    launch(copy_rows, indptr, indices, values, turns, slice_windows(n_rows), *copy[:3])
    return copy
