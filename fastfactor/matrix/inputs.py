"""Validation and conversion of what the user hands over; the only place that knows about formats."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.kernels.layout import find_duplicate, inspect_rows, sort_by_row
from fastfactor.matrix.labelled import Labelled, StoredGrid, as_stored
from fastfactor.matrix.mapped import drop_pages, is_mapped, walk_rows
from fastfactor.matrix.structure import (
    as_array,
    as_index,
    check_indptr,
    check_range,
    check_structure,
    widen_integers,
)
from fastfactor.threads import launch

DUPLICATES = ("error", "sum", "mean", "last")
_EXACT_IN_FLOAT32 = 1 << 24  # integers up to here are
_MAPPED_SLICES = 4  # of the next at a time where the arrays lie in a file
_SLICES = 64  # of the rows, to share out over threads; fixed, for sums that do not depend on the number of threads


@dataclass(frozen=True)
class Observations:
    """Stored entries in CSR form: checked, finite, without duplicates. Arrays may be the user's own: read only.

    Attributes
    ----------
    shape : (int, int)
    indptr : (n_rows + 1,) int64 array
    indices : (n_entries or more,) int32 or int64 array
    data : (n_entries or more,) float32, float64, complex64 or complex128 array
        scipy's arrays may have room after the entries that `indptr` knows.
    mean, std : number
        Of the values.
    """

    shape: tuple[int, int]
    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    data: NDArray[Any]
    mean: complex
    std: float

    @property
    def n_entries(self) -> int:
        """Number of stored entries."""
        return int(self.indptr[-1])

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each entry, (n_entries,); computed anew each time."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))


def is_sparse(X: Any) -> bool:
    """Whether `X` is a scipy.sparse matrix or array (plain bool: what scipy's own narrows X to has no attributes)."""
    return bool(sp.issparse(X))


def as_values(values: Any, name: str) -> NDArray[Any]:
    """Return numbers as a float32, float64, complex64 or complex128 array, without a copy where they are one already.

    Integers and booleans become float32 where that is exact, else float64; wider numbers than these become the widest.

    Raises
    ------
    TypeError
        If the dtype is not numeric.
    """
    values = as_array(values, name)
    if values.dtype.kind not in "biufc":
        raise TypeError(f"{name} must hold numbers, got dtype {values.dtype}")
    is_wide = values.dtype.kind in "iu" and values.dtype.itemsize > 2 and values.size > 0
    bounds = (values.min(), values.max()) if is_wide else (0, 0)
    with np.errstate(over="ignore"):  # what only a wider type holds becomes infinite, which is refused
        return values.astype(choose_float(values.dtype, *bounds), copy=False)


def choose_float(dtype: np.dtype[Any], low: Any, high: Any) -> type[np.inexact[Any]]:
    """Return the type that numbers of `dtype` between two bounds are computed with; see `as_values`."""
    if dtype.kind in "iu":
        return np.float32 if low >= -_EXACT_IN_FLOAT32 and high <= _EXACT_IN_FLOAT32 else np.float64
    if dtype.kind == "c":
        return np.complex64 if dtype == np.complex64 else np.complex128
    return np.float32 if dtype.itemsize <= 4 else np.float64


def check_shape(shape: Any, name: str) -> tuple[int, int]:
    """Return `shape` as two integers >= 1, or raise a TypeError or ValueError that names it."""
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError as error:
        raise TypeError(f"{name} must be two integers, got {shape!r}") from error
    if len(sizes) != 2:
        raise ValueError(f"{name} must be 2-D, got shape {sizes}")
    if min(sizes) < 1:
        raise ValueError(f"{name} is empty: its shape is {sizes}")
    return sizes[0], sizes[1]


def _check_own_shape(shape: Any, X: Any, name: str) -> tuple[int, int]:
    """Return the shape of the matrix `X`, which `shape` must repeat unless it is None."""
    own = check_shape(X.shape, name)
    if shape is not None and check_shape(shape, "shape") != own:
        raise ValueError(f"shape is {tuple(shape)}, but {name} has shape {own}")
    return own


def combine_rows(
    indptr: NDArray[np.int64], cols: NDArray[Any], values: NDArray[Any], how: str
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Combine entries at the same place into one; each row is then sorted by column. Returns CSR arrays."""
    n_rows = len(indptr) - 1
    rows = np.repeat(np.arange(n_rows), np.diff(indptr))
    order = np.lexsort((cols, rows))
    rows, cols, values = rows[order], cols[order], values[order]
    first = np.concatenate(([True], (np.diff(rows) != 0) | (np.diff(cols) != 0)))
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(values))
    if how == "last":
        combined = values[ends - 1]
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # sums that are no numbers are refused, as values are
            combined = np.add.reduceat(values, starts)
            if how == "mean":
                combined = (combined / (ends - starts)).astype(values.dtype)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows[starts], minlength=n_rows))))
    return indptr, cols[starts], combined


def _from_csr(indptr: Any, indices: Any, data: Any, shape: tuple[int, int], duplicates: str, name: str) -> Observations:
    indices, data = as_index(indices, f"{name}.indices"), as_values(data, name)
    indptr = check_indptr(indptr, shape[0], min(len(indices), len(data)), name)
    return inspect_csr(indptr, indices, data, shape, duplicates, name)


def slice_rows(indptr: NDArray[np.int64], n_slices: int = _SLICES) -> NDArray[np.int64]:
    """Return boundaries of slices of the rows with nearly equal shares of the entries, whatever their rows hold."""
    shares = np.linspace(0, int(indptr[-1]), n_slices + 1).astype(np.int64)
    slices = np.searchsorted(indptr, shares, side="right") - 1
    slices[0], slices[-1] = 0, len(indptr) - 1
    return np.asarray(slices, np.int64)


def inspect_csr(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    shape: tuple[int, int],
    duplicates: str,
    name: str,
    combine: Callable[..., Any] = combine_rows,
) -> Observations:
    """Return CSR arrays as Observations, after one look at every entry: in range, finite, none twice in a row."""
    n = int(indptr[-1])
    if n == 0:
        raise ValueError(f"{name} has no observed entry")
    slices = slice_rows(indptr)
    sums, faults = np.empty((_SLICES, 3)), np.empty((_SLICES, 2), np.int64)
    at_once = _MAPPED_SLICES if is_mapped(indices, data) else _SLICES
    for s in range(0, _SLICES, at_once):
        part = slice(s, s + at_once)
        launch(inspect_rows, indptr, indices, data, shape[1], slices[s : s + at_once + 1], sums[part], faults[part])
        for array in (indices, data):
            drop_pages(array, int(indptr[slices[s]]), int(indptr[slices[s + at_once]]))
    outside, unsorted = faults.sum(axis=0)
    if outside:
        check_range(indices[:n], shape[1], f"{name}: column index")
    with np.errstate(over="ignore", invalid="ignore"):  # `_moments` has another way
        total, square, imaginary = sums.sum(axis=0)
    if not np.isfinite(square):
        _check_finite(data[:n], name)
    if unsorted:
        row, col = _find_repeated(indptr, indices, shape[1])
        if row >= 0 and duplicates == "error":
            raise ValueError(
                f"{name} holds entry ({row}, {col}) more than once; pass duplicates='sum', 'mean' or 'last' to combine"
            )
        if row >= 0:
            indptr, indices, data = combine(indptr, indices[:n], data[:n], duplicates)
            return inspect_csr(indptr, indices, data, shape, duplicates, name)
    mean, std = _moments(float(total), float(imaginary), float(square), n, data)
    return Observations(shape, indptr, indices, data, mean, std)


def _find_repeated(indptr: NDArray[np.int64], indices: NDArray[Any], n_cols: int) -> tuple[int, int]:
    for start, stop in walk_rows(indptr, (indices,)):
        row, col = find_duplicate(indptr[start : stop + 1], indices, n_cols)
        if row >= 0:
            return start + row, col
    return -1, -1


def _check_finite(values: NDArray[Any], name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"{name} holds {values[bad[0]]} at stored entry {bad[0]}: NaN and infinity cannot be stored")


def _moments(total: float, imaginary: float, square: float, n: int, data: NDArray[Any]) -> tuple[complex, float]:
    """Return mean and standard deviation; where the sums cancel or overflow, from a second, scaled look."""
    mean = complex(total, imaginary) / n
    mean_square = math.hypot(mean.real, mean.imag) ** 2 if square < np.inf else np.inf
    variance = square / n - mean_square
    if not np.isfinite(square) or variance <= 1e-8 * mean_square or square < 1e-200:
        return measure_moments(data[:n])
    return (mean if data.dtype.kind == "c" else mean.real), float(np.sqrt(variance))


def measure_moments(data: NDArray[Any]) -> tuple[complex, float]:
    """Return mean and standard deviation of some values, shifted and scaled so that nothing cancels or overflows."""
    values = data.astype(np.result_type(data.dtype, np.float64))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # moduli of complex numbers may overflow
        largest = float(np.abs(values).max()) or 1.0
        values /= largest
        first = values[0]
        values -= first  # so that equal values have a standard deviation of exactly 0
        centre = values.mean()
    mean, variance = complex(first + centre) * largest, float(np.mean(np.abs(values - centre) ** 2))
    return (mean if data.dtype.kind == "c" else mean.real), float(np.sqrt(variance)) * largest


def _from_triplets(triplets: Any, shape: Any, duplicates: str, name: str) -> Observations:
    if len(triplets) != 3:
        raise ValueError(f"{name} must be (rows, cols, values), got a tuple of {len(triplets)}")
    rows, cols = as_index(triplets[0], f"{name}: rows"), as_index(triplets[1], f"{name}: cols")
    values = as_values(triplets[2], name)
    if values.ndim != 1 or not len(rows) == len(cols) == len(values):
        raise ValueError(
            f"{name}: rows, cols and values must be 1-D of one length, got {len(rows)}, {len(cols)} and {values.shape}"
        )
    if shape is None:
        if not len(rows):
            raise ValueError(f"{name} has no observed entry")
        shape = (max(int(rows.max()), 0) + 1, max(int(cols.max()), 0) + 1)
    shape = check_shape(shape, "shape")
    check_range(rows, shape[0], f"{name}: rows")
    check_range(cols, shape[1], f"{name}: cols")
    indptr, order = np.zeros(shape[0] + 1, np.int64), np.empty(len(rows), np.int64)
    sort_by_row(rows, indptr, order)
    return inspect_csr(indptr, cols[order], values[order], shape, duplicates, name)


def _from_dense(X: NDArray[Any], name: str) -> Observations:
    check_shape(X.shape, name)
    values = as_values(X, name)
    if np.isinf(values).any():
        row, col = np.argwhere(np.isinf(values))[0]
        raise ValueError(f"{name}[{row}, {col}] is {values[row, col]}: infinity is not a value")
    seen = ~np.isnan(values)
    indptr = np.concatenate(([0], np.cumsum(seen.sum(axis=1)))).astype(np.int64)
    indices = np.nonzero(seen)[1].astype(np.int32)
    return inspect_csr(indptr, indices, values[seen], X.shape, "error", name)


def without_ids(X: Any, shape: Any) -> tuple[Any, Any]:
    """Return the matrix that a `Labelled` holds and its shape, which `shape` may repeat; anything else as it is.

    A `StoredGrid` stays one.
    """
    if not isinstance(X, Labelled):
        return X, shape
    if shape is not None and check_shape(shape, "shape") != X.shape:
        raise ValueError(f"shape is {tuple(shape)}, but what was read has shape {X.shape}")
    return (X if isinstance(X, StoredGrid) else X.matrix), X.shape


def as_observations(X: Any, *, shape: Any = None, duplicates: str = "error", name: str = "X") -> Observations:
    """Return the stored entries of `X`: explicit zeros included, NaN of a dense matrix excluded.

    Parameters
    ----------
    X : array-like, scipy.sparse matrix or array, (rows, cols, values), or Labelled
    shape : (int, int), optional
        For triplets; by default just large enough. For a matrix it must be the matrix's own.
    duplicates : {"error", "sum", "mean", "last"}
        What to do with several entries at the same place.
    name : str
        Of the argument, for messages.

    Raises
    ------
    TypeError
        If `X` does not hold numbers.
    ValueError
        If it is not 2-D, is empty, has no observed entry, NaN or infinity stored, indices out of range, or duplicates.
    """
    if not isinstance(duplicates, str) or duplicates not in DUPLICATES:
        raise ValueError(f"duplicates must be one of {', '.join(DUPLICATES)}, got {duplicates!r}")
    X, shape = without_ids(X, shape)
    if isinstance(X, StoredGrid):
        if duplicates != "error":
            raise ValueError(f"duplicates is for build_grid where {name} is a grid on disk, got {duplicates!r}")
        return X.observations.inspected
    if isinstance(X, tuple):
        return _from_triplets(X, shape, duplicates, name)
    if not is_sparse(X):
        X = as_array(X, name)
    own_shape = _check_own_shape(shape, X, name)
    if not is_sparse(X):
        return _from_dense(X, name)
    if X.format == "coo":  # scipy's own conversion would sum duplicates without a word
        return _from_triplets((*X.coords, X.data), own_shape, duplicates, name)
    if X.format != "csr":
        X = check_structure(X, name).tocsr()
    return _from_csr(X.indptr, X.indices, X.data, own_shape, duplicates, name)


def as_dense(X: Any, *, shape: Any = None, name: str = "X") -> NDArray[Any]:
    """Return every entry of `X` as a C-contiguous array, what is not stored as 0; a view where `X` is one already.

    Parameters
    ----------
    X : array-like, scipy.sparse matrix or array, or Labelled
        What a sparse one (or a table) stores twice is summed, as scipy means it.
    shape : (int, int), optional
        The matrix's own.
    name : str
        Of the argument, for messages.

    Raises
    ------
    TypeError
        If `X` does not hold numbers, or is given as triplets (convert them with scipy.sparse.coo_array first).
    ValueError
        If it is not 2-D, is empty, or holds NaN or infinity.
    """
    if isinstance(X, StoredGrid):
        raise TypeError(f"{name} is a grid on disk, which is not made dense")
    X = as_stored(X)
    if isinstance(X, tuple):
        raise TypeError(f"{name} must be a matrix where unobserved='zero', not triplets")
    X = X if is_sparse(X) else as_array(X, name)
    _check_own_shape(shape, X, name)
    if is_sparse(X):
        X = widen_integers(check_structure(X, name)).toarray()
    values = np.ascontiguousarray(as_values(X, name))
    if not np.isfinite(values).all():
        row, col = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{name}[{row}, {col}] is {values[row, col]}: every entry counts here, so it must be finite")
    return values
