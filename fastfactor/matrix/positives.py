"""Stored entries seen from both sides: by row and by column, in slices for the kernels that solve row by row."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.layout import sort_by_row
from fastfactor.kernels.ridge import Stored
from fastfactor.matrix.domains import locate_in
from fastfactor.matrix.inputs import Observations, as_dense, as_observations, is_sparse

_SLICES = 256  # enough to share out over cores, whatever the machine


def slice_by_work(indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return boundaries of slices of rows with about equal work: their entries, and something for each row."""
    n = len(indptr) - 1
    work = indptr + np.arange(n + 1) * (1 + indptr[-1] // n)
    starts = np.searchsorted(work, np.linspace(0, work[-1], min(n, _SLICES) + 1))
    starts[0], starts[-1] = 0, n
    return starts.astype(np.int64)


def store_rows(indptr: NDArray[np.int64], indices: Any, values: Any, weights: Any, dtype: Any) -> Stored:
    """Return the entries as the kernels eat them; `weights` None means 1."""
    n = int(indptr[-1])
    targets = values[:n] if weights is None else values[:n] * weights
    weights = np.ones(n, dtype) if weights is None else np.asarray(weights, dtype)
    return Stored(indptr, indices[:n], np.asarray(targets, dtype), weights, slice_by_work(indptr))


def transpose_rows(stored: Stored, n_cols: int) -> Stored:
    """Return the same entries by column."""
    indptr, order = np.zeros(n_cols + 1, np.int64), np.empty(len(stored.indices), np.int64)
    sort_by_row(stored.indices, indptr, order)
    rows = np.repeat(np.arange(len(stored.indptr) - 1, dtype=np.int32), np.diff(stored.indptr))
    return Stored(indptr, rows[order], stored.targets[order], stored.weights[order], slice_by_work(indptr))


@dataclass(frozen=True)
class Positives:
    """The stored entries from both sides.

    Attributes
    ----------
    shape : (int, int)
    sides : (Stored, Stored)
        By row and by column.
    """

    shape: tuple[int, int]
    sides: tuple[Stored, Stored]

    @classmethod
    def of(cls, by_row: Stored, n_cols: int) -> Positives:
        """Return the entries, which are given by row; on both sides they are sorted."""
        by_col, n_rows = transpose_rows(by_row, n_cols), len(by_row.indptr) - 1
        return cls((n_rows, n_cols), (transpose_rows(by_col, n_rows), by_col))

    @property
    def n_entries(self) -> int:
        """Number of stored entries."""
        return len(self.sides[0].indices)

    @functools.cached_property
    def weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight of the stored entries of each row, and of each column."""
        (by_row, by_col), (n_rows, n_cols) = self.sides, self.shape
        rows = np.bincount(by_col.indices, by_col.weights, n_rows).astype(np.float64)
        return rows, np.bincount(by_row.indices, by_row.weights, n_cols).astype(np.float64)

    def weigh_all(self, side: int, others: float) -> NDArray[np.float64]:
        """Return the weight of all entries of each row (of each column: side 1), those that are not stored included."""
        missing = self.shape[1 - side] - np.diff(self.sides[side].indptr)
        return np.asarray(self.weights[side] + others * missing)

    def without(self, held: NDArray[np.bool_]) -> Positives:
        """Return the entries that are not `held`, one flag for each in the order of the rows."""
        stored, kept = self.sides[0], ~held
        indptr = np.concatenate(([0], np.cumsum(kept)))[stored.indptr]
        rest = stored._replace(
            indptr=indptr, indices=stored.indices[kept], targets=stored.targets[kept], weights=stored.weights[kept]
        )
        return Positives.of(rest, self.shape[1])


def as_positives(X: Any, shape: Any, duplicates: str, name: str = "X") -> Observations:
    """Return the stored entries of `X` (of a dense matrix those that are not 0), which must be above 0.

    Raises
    ------
    TypeError
        If `X` does not hold real numbers.
    ValueError
        If it stores none, one that is 0 or negative, or is bad in a way that `as_observations` names.
    """
    if not isinstance(X, tuple) and not is_sparse(X):
        A = as_dense(X, shape=shape, name=name)
        X, shape = (*np.nonzero(A), A[A != 0]), A.shape
    observed = as_observations(X, shape=shape, duplicates=duplicates, name=name)
    values = observed.data[: observed.n_entries]
    if values.dtype.kind == "c":
        raise TypeError(f"{name} is complex, but positives are real numbers above 0")
    bad = np.flatnonzero(values <= 0)
    if bad.size:
        row, col = locate_in(observed)(int(bad[0]))
        raise ValueError(
            f"{name}[{row}, {col}] is {values[bad[0]]}: where unobserved='weak' all that is stored is a positive, "
            "above 0"
        )
    return observed
