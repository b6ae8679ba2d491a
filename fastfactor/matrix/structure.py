"""Arrays of any kind as arrays of a known one, and index arrays checked: scipy and our kernels follow them blindly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.matrix.mapped import PIECE, drop_pages


def as_array(X: Any, name: str) -> NDArray[Any]:
    """Return `X` as an array.

    Raises
    ------
    TypeError
        If it is a masked array, whose mask would be lost.
    ValueError
        If it is a nested list whose parts differ in length.
    """
    if np.ma.is_masked(X):
        raise TypeError(f"{name} is a masked array: hand over {name}.filled(numpy.nan), or what is to count there")
    try:
        return np.asarray(X)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made an array: {error}") from None


def as_index(index: Any, name: str) -> NDArray[Any]:
    """Return a 1-D int32 or int64 array.

    Raises
    ------
    TypeError, ValueError
        If it does not hold integers, or one that int64 has no room for, has a mask, or is not 1-D.
    """
    index = as_array(index, name)
    if index.size == 0 and index.dtype.kind == "f":
        index = index.astype(np.int64)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got dtype {index.dtype}")
    if index.ndim != 1:
        raise ValueError(f"{name} must be 1-D, got {index.ndim}-D")
    if index.dtype == np.uint64 and index.size and index.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {index.max()}, which is no index")
    return index.astype(np.int32 if index.dtype.itemsize < 4 or index.dtype == np.int32 else np.int64, copy=False)


def check_range(index: NDArray[Any], size: int, name: str) -> None:
    """Raise a ValueError that names the first index outside 0..size - 1."""
    for start in range(0, len(index), PIECE):  # arrays in files do not stay in memory
        part = index[start : start + PIECE]
        if part.view(f"u{part.itemsize}").max() >= size:  # a negative number is a large one without a sign
            at = start + int(np.flatnonzero((part < 0) | (part >= size))[0])
            raise ValueError(f"{name}[{at}] is {index[at]}, outside 0..{size - 1}")
        drop_pages(index, start, start + len(part))


def check_indptr(indptr: Any, n: int, n_stored: int, name: str) -> NDArray[np.int64]:
    """Return the offsets of `n` rows (or columns, or rows of blocks) into `n_stored` entries as int64."""
    indptr = as_index(indptr, f"{name}.indptr").astype(np.int64, copy=False)
    if len(indptr) != n + 1 or indptr[0] != 0:
        raise ValueError(f"{name}.indptr must hold {n + 1} offsets from 0, got {len(indptr)} from {indptr[:1]}")
    falls = np.flatnonzero(np.diff(indptr) < 0)
    if falls.size:
        raise ValueError(f"{name}.indptr must not decrease, but falls at position {falls[0] + 1}")
    if indptr[-1] > n_stored:
        raise ValueError(f"{name}.indptr ends at {indptr[-1]}, beyond its {n_stored} entries")
    return indptr


def check_structure(X: Any, name: str) -> Any:
    """Return a scipy matrix whose index arrays lead nowhere but into it: `X`, or one that shares its values.

    Raises
    ------
    TypeError, ValueError
        If an index array has a wrong type, size or value.
    """
    if X.ndim != 2:
        raise ValueError(f"{name} must be 2-D, got {X.ndim}-D")
    if X.format == "coo":
        return _check_coo(X, name)
    if X.format in ("csr", "csc", "bsr"):
        return _check_compressed(X, name)
    if X.format == "lil":
        for row, (cols, values) in enumerate(zip(X.rows, X.data, strict=True)):
            if len(cols) != len(values):
                raise ValueError(f"{name}: row {row} has {len(cols)} columns and {len(values)} values")
            check_range(as_index(cols, f"{name}: row {row}"), X.shape[1], f"{name}: row {row}: column index")
    return X


def widen_integers(X: Any) -> Any:
    """Return a scipy matrix of integers as one of float64, in which what is stored twice has a sum."""
    return X.astype(np.float64) if X.dtype.kind in "iu" else X


def _check_coo(X: Any, name: str) -> Any:
    n_rows, n_cols = X.shape
    if not len(X.row) == len(X.col) == len(X.data):
        raise ValueError(f"{name}: its {len(X.data)} entries have {len(X.row)} rows and {len(X.col)} columns")
    rows, cols = as_index(X.row, f"{name}: rows"), as_index(X.col, f"{name}: cols")
    check_range(rows, n_rows, f"{name}: rows")
    check_range(cols, n_cols, f"{name}: cols")
    if rows is X.row and cols is X.col:
        return X
    return type(X)((X.data, (rows, cols)), shape=X.shape)


def _check_compressed(X: Any, name: str) -> Any:
    n_rows, n_cols = X.shape
    height, width = X.blocksize if X.format == "bsr" else (1, 1)
    n_major, n_minor, minor = n_rows // height, n_cols // width, "column"
    if X.format == "csc":
        n_major, n_minor, minor = n_cols, n_rows, "row"
    indices = as_index(X.indices, f"{name}.indices")
    indptr = check_indptr(X.indptr, n_major, min(len(indices), len(X.data)), name)
    check_range(indices[: indptr[-1]], n_minor, f"{name}: {minor} index")
    n = int(indptr[-1])
    if indices is X.indices and X.indptr.dtype == indices.dtype and len(indices) == len(X.data) == n:
        return X
    kept = X.copy() if X.format == "bsr" else type(X)(X.shape, dtype=X.dtype)
    kept.data, kept.indices, kept.indptr = X.data[:n], indices[:n], indptr.astype(indices.dtype, copy=False)
    return kept
