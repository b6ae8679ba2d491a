"""One weight per stored entry, in the order of the entries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.layout import sort_by_row
from fastfactor.matrix.domains import locate_in
from fastfactor.matrix.inputs import Observations, as_values, is_sparse
from fastfactor.matrix.structure import as_index, check_structure


def _of_triplets(weights: NDArray[Any], X: Any, observed: Observations) -> NDArray[Any]:
    """Return the weights of triplets, brought into the order of the rows as these were."""
    n = len(np.asarray(X[2]))
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has shape {weights.shape}, X has {n} entries")
    if observed.n_entries != n:
        raise ValueError("sample_weight cannot be combined with duplicates: combine both before the fit")
    rows = as_index(X[0], "X: rows")
    indptr, order = np.zeros(observed.shape[0] + 1, np.int64), np.empty(n, np.int64)
    sort_by_row(rows, indptr, order)
    return weights[order]


def _of_sparse(weights: Any, observed: Observations) -> NDArray[Any]:
    """Return the weights of a sparse matrix, at the entries of X; both may hold theirs in any order."""
    weights = check_structure(weights, "sample_weight").tocoo()
    row, col = (as_index(index, "sample_weight") for index in weights.coords)
    mine = np.lexsort((observed.indices[: observed.n_entries], observed.rows))
    theirs = np.lexsort((col, row))
    same = len(mine) == len(theirs)
    same = same and np.array_equal(observed.rows[mine], row[theirs])
    if not same or not np.array_equal(observed.indices[mine], col[theirs]):
        raise ValueError(f"sample_weight must store {observed.n_entries} entries, at the places of those of X")
    result = np.empty(len(mine), weights.data.dtype)
    result[mine] = weights.data[theirs]
    return result


def weigh_moments(observed: Observations, weights: NDArray[np.float64]) -> Observations:
    """Return the same entries, with the weighted mean and standard deviation of their values."""
    values = observed.data[: observed.n_entries]
    values = values.astype(np.result_type(values, np.float64))
    mean = np.average(values, weights=weights)
    std = float(np.sqrt(np.average(np.abs(values - mean) ** 2, weights=weights)))
    return replace(observed, mean=complex(mean) if values.dtype.kind == "c" else float(mean), std=std)


def as_weights(weights: Any, X: Any, observed: Observations) -> NDArray[np.float64]:
    """Return a weight for each entry of `observed`; their mean is what it is, 1 or not.

    Parameters
    ----------
    weights : array or sparse matrix
        Of the shape of X: a sparse one stores the same places; a dense one is looked at where X has entries. For
        triplets an array of one weight each.
    X : what the user handed over
    observed : Observations
        What came of it.

    Raises
    ------
    TypeError
        If they are not real numbers.
    ValueError
        If the shape differs, one is negative, NaN or infinite (named with its place), or all are zero.
    """
    if is_sparse(weights):
        shape = weights.shape
    else:
        weights = as_values(weights, "sample_weight")
        shape = weights.shape
    if not (isinstance(X, tuple) and len(shape) == 1) and shape != observed.shape:
        raise ValueError(f"sample_weight has shape {shape}, X has {observed.shape}")
    if is_sparse(weights):
        found = as_values(_of_sparse(weights, observed), "sample_weight")
    elif len(shape) == 1:
        found = _of_triplets(weights, X, observed)
    else:
        found = weights[observed.rows, observed.indices[: observed.n_entries]]
    if found.dtype.kind == "c":
        raise TypeError("sample_weight must be real, got complex numbers")
    bad = np.flatnonzero(~(found >= 0) | np.isinf(found))
    if bad.size:
        row, col = locate_in(observed)(int(bad[0]))
        raise ValueError(f"sample_weight[{row}, {col}] is {found[bad[0]]}: weights must be finite and at least 0")
    if not found.any():
        raise ValueError("sample_weight is 0 for every entry of X")
    return found.astype(np.float64)
