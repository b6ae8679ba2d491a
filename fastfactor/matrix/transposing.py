"""Compressed rows as compressed columns: what scipy's conversion does, by all threads, with rows sorted on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.transpose import count_in_slices, scatter_slices
from fastfactor.matrix.packing import Stored, pack_starts, sort_rows
from fastfactor.threads import launch

N_SLICES = 4  # each needs a counter for every column

Array = NDArray[Any]


def transpose_arrays(indptr: Array, indices: Array, values: Array, n_cols: int) -> Stored:
    """Return the arrays of the same matrix compressed the other way, its rows sorted (packing.py); duplicates stay.

    Parameters
    ----------
    indptr : (n_rows + 1,) integer array
    indices, values : (n_entries,) arrays
        Checked: every index lies in [0, n_cols).
    n_cols : int

    Returns
    -------
    Stored
        Its indices are int32, as scipy's mostly are, or int64 where they need it.
    """
    n_rows, n_entries = len(indptr) - 1, int(indptr[-1])
    slices = np.searchsorted(indptr, np.linspace(0, n_entries, N_SLICES + 1)).astype(np.int64)
    slices[0], slices[-1] = 0, n_rows
    counts = np.zeros((N_SLICES, n_cols), np.int64)
    launch(count_in_slices, indptr, indices, slices, counts)
    starts = np.concatenate(([0], np.cumsum(counts.sum(axis=0))))
    turns = sort_rows(starts)
    order = np.arange(n_cols) + turns
    packed = pack_starts(starts, order)
    places = np.cumsum(counts, axis=0) - counts
    places[:, order] += packed[:-1]
    index = np.int32 if max(n_rows, n_entries) <= np.iinfo(np.int32).max else np.int64
    rows = np.empty(n_entries, index)
    moved = np.empty(n_entries, values.dtype)
    launch(scatter_slices, indptr, indices, values, slices, places, rows, moved)
    return Stored(packed.astype(index), rows, moved, turns)
