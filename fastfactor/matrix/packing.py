"""Rows in the order of their lengths, so that where one ends can be guessed: what passes over short rows gain by it.

Only rows that are near each other change places: those of one window. Where a matrix has to be transposed anyway, the
order costs nothing; what lies in order already is left as it is (docs/performance.md has what a copy saves and costs).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.packing import sort_by_length
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


def sort_rows(indptr: Array) -> NDArray[np.int16]:
    """Return where the rows come from: the i-th of those sorted by length, within each window, is row i + turns[i]."""
    n_rows = len(indptr) - 1
    turns = np.empty(n_rows, TURN)
    counts = np.zeros((N_SLICES, N_LENGTHS + 1), np.int64)
    slices = np.minimum(np.arange(N_SLICES + 1) * -(-n_rows // (N_SLICES * WINDOW)) * WINDOW, n_rows)
    launch(sort_by_length, indptr, WINDOW, slices, counts, turns)
    return turns


def leave(indptr: Array, indices: Array, values: Array) -> Stored:
    """Return the rows as they lie."""
    return Stored(indptr, indices, values, np.zeros(len(indptr) - 1, TURN))


def pack_starts(indptr: Array, order: Array) -> Array:
    """Return where each row begins, and the last ends, once they lie in that order."""
    packed = np.zeros_like(indptr)
    np.cumsum(np.diff(indptr)[order], out=packed[1:])
    return packed
