"""Compressed rows as compressed columns: what scipy's conversion does, by all threads, with rows sorted on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.transpose import add_up_counts, count_in_slices, give_places, scatter_slices
from fastfactor.matrix.packing import Stored, slice_windows, sort_rows
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
    starts = np.empty(n_cols + 1, np.int64)
    add_up_counts(counts, starts)
    turns = sort_rows(starts)
    index = np.int32 if max(n_rows, n_entries) <= np.iinfo(np.int32).max else np.int64
    packed, rows, moved = np.empty(n_cols + 1, index), np.empty(n_entries, index), np.empty(n_entries, values.dtype)
    packed[-1] = n_entries
    launch(give_places, starts, turns, slice_windows(n_cols), counts, packed)
    launch(scatter_slices, indptr, indices, values, slices, counts, rows, moved)
    return Stored(packed, rows, moved, turns)
