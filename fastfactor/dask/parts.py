"""What workers hold: a part is some rows of the matrix; and what they do with it for `svd`.

Each task computes on one thread, and its result depends on its arguments alone, so it may run anywhere, and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.kernels.gram import SparseRows, add_adjoint_sparse, add_gram_sparse, multiply_sparse
from fastfactor.matrix.inputs import as_observations, is_sparse
from fastfactor.matrix.operators import BLOCK, LANES
from fastfactor.threads import launch, using_threads

Array = NDArray[Any]


@dataclass(frozen=True)
class Part:
    """Some rows of a matrix, as CSR arrays, checked: see `Observations`.

    Attributes
    ----------
    number : int
        Which part it is.
    matrix : scipy.sparse.csr_array
    """

    number: int
    matrix: Any


@dataclass(frozen=True)
class Look:
    """What the client has to know of a part."""

    n: int
    total: complex
    square: float
    largest: float
    dtype: np.dtype[Any]
    row_counts: NDArray[np.int64]
    col_counts: NDArray[np.int64]

    def squares_about(self, mean: complex) -> float:
        """Return the sum of |x - mean|^2."""
        return self.square - 2 * (self.total * np.conj(mean)).real + self.n * abs(mean) ** 2

    def squares(self, scale: float) -> float:
        """Return the sum of |x / scale|^2."""
        return self.square / scale**2


def make_part(number: int, pieces: list[Any], n_rows: int, n_cols: int, missing_is_zero: bool) -> Part:
    """Return a part from blocks of rows (matrices one below the other), or from triplets in terms of its own rows.

    Raises
    ------
    TypeError, ValueError
        If they hold no numbers, or bad ones; see `as_observations`.
    """
    if pieces and isinstance(pieces[0], tuple):
        parts = [np.concatenate([piece[i] for piece in pieces]) for i in range(3)]
        if not len(parts[2]):
            return Part(number, sp.csr_array((n_rows, n_cols), dtype=np.float32))
        X = as_observations((parts[0], parts[1], parts[2]), shape=(n_rows, n_cols))
        return Part(number, sp.csr_array((X.data, X.indices, X.indptr), shape=X.shape))
    if not all(map(is_sparse, pieces)):
        dense = np.concatenate([piece.toarray() if is_sparse(piece) else np.asarray(piece) for piece in pieces])
        return Part(number, _from_dense(dense, missing_is_zero))
    whole: Any = sp.csr_array(sp.vstack(pieces, format="csr"))
    if whole.nnz:
        X = as_observations(whole, duplicates="sum" if missing_is_zero else "error")
        whole = sp.csr_array((X.data, X.indices, X.indptr), shape=X.shape)
    return Part(number, whole)


def _from_dense(dense: Array, missing_is_zero: bool) -> Any:
    if missing_is_zero and not np.isfinite(dense).all():
        raise ValueError("X must not contain infinities or NaNs")
    seen = ~np.isnan(dense)
    if not seen.any():
        return sp.csr_array(dense.shape, dtype=np.float32)
    X = as_observations(dense)
    return sp.csr_array((X.data, X.indices, X.indptr), shape=X.shape)


def inspect_part(part: Part) -> Look:
    """Return sums and counts of a part."""
    X = part.matrix
    values = X.data.astype(np.result_type(X.data, np.float64))
    return Look(
        int(X.nnz),
        values.sum().item(),
        float(np.vdot(values, values).real),
        float(np.abs(values).max()) if len(values) else 0.0,
        X.data.dtype,
        np.diff(X.indptr).astype(np.int64),
        np.bincount(X.indices, minlength=X.shape[1]),
    )


def _rows_of(part: Part, scale: float) -> SparseRows:
    X = part.matrix
    return SparseRows(X.indptr, X.indices, X.data, np.float64(scale), np.array([0, X.shape[0]], np.int64))


def _own(X: Array) -> Array:
    """Return an array that kernels take for writable, as those that came over a wire may not be."""
    return X if X.flags.writeable else X.copy()


def gram_part(part: Part, X: Array, scale: float) -> Array:
    """Return A^H (A X) for the part A."""
    G = np.zeros((1, *X.shape), X.dtype)
    with using_threads(1):
        launch(add_gram_sparse, _rows_of(part, scale), _own(X), G, LANES)
    return G[0]


def multiply_part(part: Part, V: Array, scale: float) -> Array:
    """Return A V for the part A."""
    U = np.empty((part.matrix.shape[0], V.shape[1]), V.dtype)
    with using_threads(1):
        for q in range(V.shape[1] // BLOCK):
            launch(multiply_sparse, _rows_of(part, scale), _own(V), U, q, LANES)
    return U


def scatter_part(part: Part, U: Array, scale: float) -> Array:
    """Return A^H U for the part A."""
    Z = np.empty((part.matrix.shape[1], U.shape[1]), U.dtype)
    with using_threads(1):
        for q in range(U.shape[1] // BLOCK):
            G = np.zeros((1, len(Z), BLOCK), U.dtype)
            launch(add_adjoint_sparse, _rows_of(part, scale), _own(U), G, q, LANES)
            Z[:, q * BLOCK : (q + 1) * BLOCK] = G[0]
    return Z


def add_up(first: Array, second: Array) -> Array:
    """Return the sum."""
    return first + second
