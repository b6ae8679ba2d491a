"""How large a matrix is, and what it takes to make `Observations` of it: seen without making them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfactor.matrix.inputs import check_shape, is_sparse
from fastfactor.matrix.labelled import Labelled, StoredGrid
from fastfactor.matrix.structure import as_array, as_index

_ROWS_AT_ONCE = 256  # of a dense matrix


@dataclass(frozen=True)
class Size:
    """What a matrix takes.

    Attributes
    ----------
    shape : (int, int)
    n_entries : int
    value_size : int
        Bytes of a value.
    kept, peak : int
        Bytes that its `Observations` take beside the user's own arrays, and that making them takes.
    on_disk : bool
    """

    shape: tuple[int, int]
    n_entries: int
    value_size: int
    kept: int
    peak: int
    on_disk: bool = False


def _float_size(dtype: np.dtype[Any]) -> int:
    """Return how long a number is once it is a float or complex one; see `as_values`."""
    if dtype.kind in "biu":
        return 4 if dtype.itemsize <= 2 else 8
    return max(dtype.itemsize, 4)


def measure(X: Any, shape: Any = None) -> Size | None:
    """Return the size of what `fit` takes, None where it is nothing that `fit` takes (which is said later)."""
    if isinstance(X, StoredGrid):
        return Size(X.shape, X.n_entries, X.observations.data.dtype.itemsize, 8 * X.shape[0], 8 * X.shape[0], True)
    if isinstance(X, Labelled):
        X, shape = X.matrix, X.shape
    if isinstance(X, tuple):
        return _measure_triplets(X, shape) if len(X) == 3 else None
    dtype = getattr(X, "dtype", None)
    if getattr(X, "ndim", 0) != 2 or dtype is None or dtype.kind not in "biufc" or 0 in X.shape:
        return None
    value = _float_size(dtype)
    if is_sparse(X):
        n, pointers = int(X.nnz), 8 * (X.shape[0] + 1)
        converted = 0 if dtype.kind in "fc" and dtype.itemsize >= 4 else n * value
        if X.format == "csr":
            return Size(X.shape, n, value, pointers + converted, pointers + converted)
        kept = n * (4 + value) + pointers
        return Size(X.shape, n, value, kept, kept + (8 * n if X.format == "coo" else 0) + converted)
    n = sum(
        int(np.count_nonzero(X[start : start + _ROWS_AT_ONCE] == X[start : start + _ROWS_AT_ONCE]))
        for start in range(0, len(X), _ROWS_AT_ONCE)
    )
    kept = n * (4 + value)
    return Size(X.shape, n, value, kept, kept + 2 * int(np.prod(X.shape)) + 16 * n)


def _measure_triplets(X: Any, shape: Any) -> Size | None:
    try:
        rows, cols, values = as_index(X[0], "rows"), as_index(X[1], "cols"), as_array(X[2], "values")
        if shape is None and len(rows) and len(cols):
            shape = (max(int(rows.max()), 0) + 1, max(int(cols.max()), 0) + 1)
        shape = check_shape(shape, "shape")
    except (TypeError, ValueError):
        return None
    if values.ndim != 1 or values.dtype.kind not in "biufc":
        return None
    n, value = len(values), _float_size(values.dtype)
    converted = 0 if values.dtype.kind in "fc" and values.dtype.itemsize >= 4 else n * value
    kept = n * (cols.dtype.itemsize + value) + 8 * (shape[0] + 1)
    return Size(shape, n, value, kept, kept + 8 * n + converted)
