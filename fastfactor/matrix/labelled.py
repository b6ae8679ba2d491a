"""A matrix with the ids of its rows and columns: what `fastfactor.io` reads and `fit` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.ids import Ids, WithIds

Triplets = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Labelled(WithIds):
    """What a file or a frame held.

    Attributes
    ----------
    matrix : array, scipy.sparse matrix, or (rows, cols, values)
        As it lay in the file; triplets for tables.
    shape : (int, int)
    row_labels, col_labels : Ids or None
        None where the file has no ids but positions.
    n_skipped : int
        Bad lines that were left out.
    n_unknown : int
        Entries that were left out since an id of theirs is not in the model (`read(..., like=model)`).
    """

    matrix: Any
    shape: tuple[int, int]
    row_labels: Ids | None = None
    col_labels: Ids | None = None
    n_skipped: int = 0
    n_unknown: int = 0

    def __repr__(self) -> str:
        return f"Labelled({self.shape[0]} x {self.shape[1]}, {self.n_entries} entries)"

    @property
    def n_entries(self) -> int:
        """Stored entries: explicit zeros and duplicates count, NaN of a dense matrix does not."""
        if isinstance(self.matrix, tuple):
            return len(self.matrix[2])
        if bool(sp.issparse(self.matrix)):
            return int(self.matrix.nnz)
        return int((~np.isnan(self.matrix)).sum())

    @property
    def triplets(self) -> Triplets:
        """Rows, columns and values of the stored entries; of a dense matrix of those that are not NaN."""
        if isinstance(self.matrix, tuple):
            rows, cols, values = self.matrix
            return rows, cols, values
        if bool(sp.issparse(self.matrix)):
            coo: Any = sp.coo_array(self.matrix)
            return (*coo.coords, coo.data)
        rows, cols = np.nonzero(~np.isnan(self.matrix))
        return rows, cols, self.matrix[rows, cols]

    def to_csr(self) -> sp.csr_array:
        """Return the stored entries as scipy means them: duplicates summed."""
        rows, cols, values = self.triplets
        coo: Any = sp.coo_array((values, (rows, cols)), shape=self.shape)
        return coo.tocsr()


@dataclass(frozen=True, eq=False)
class StoredGrid(Labelled):
    """A matrix in a folder, laid out for sweeps: what `fastfactor.io.build_grid` makes, and `fit` and `svd` take.

    Attributes
    ----------
    matrix : scipy.sparse.csr_array
        Its arrays are mapped from the folder, read-only.
    shape, row_labels, col_labels, n_skipped
        See `Labelled`.
    folder : Path
    observations : object
        What `fit` works on.
    """

    folder: Path = Path()
    observations: Any = None

    def __repr__(self) -> str:
        return f"StoredGrid({self.shape[0]} x {self.shape[1]}, {self.n_entries} entries, in {str(self.folder)!r})"


def as_stored(X: Any) -> Any:
    """Return the matrix that a `Labelled` holds, triplets as scipy means them; anything else as it is."""
    if not isinstance(X, Labelled):
        return X
    return X.to_csr() if isinstance(X.matrix, tuple) else X.matrix


def mark_stored(X: Labelled, shape: tuple[int, int]) -> sp.csr_array:
    """Return True at what X has stored, as a matrix of that shape: rows and columns beyond it are left out."""
    rows, cols, _ = X.triplets
    known = (rows < shape[0]) & (cols < shape[1])
    marks: Any = sp.coo_array((np.ones(int(known.sum()), np.bool_), (rows[known], cols[known])), shape=shape)
    return marks.tocsr()
