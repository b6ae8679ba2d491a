"""What workers hold: a part is some rows of the matrix; and what they do with it for `svd`.

Each task computes on one thread, and its result depends on its arguments alone, so it may run anywhere, and again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.blas import aligned_zeros, one_blas_thread, pad
from fastfactor.kernels.rows import MOST_ROWS
from fastfactor.matrix.centring import in_units, sum_squares
from fastfactor.matrix.dense import DenseOperand
from fastfactor.matrix.inputs import as_observations, is_sparse, measure_moments
from fastfactor.matrix.operand import BLOCK, N_SLICES, Operand, SparseOperand
from fastfactor.matrix.operators import frobenius_norm
from fastfactor.matrix.packing import leave
from fastfactor.matrix.values import find_largest
from fastfactor.threads import using_threads

Array = NDArray[Any]


@dataclass(frozen=True)
class Part:
    """Some rows of a matrix, checked: see `Observations`.

    Attributes
    ----------
    number : int
        Which part it is.
    matrix : scipy.sparse.csr_array, or array
        The latter where every entry of dense chunks counts.
    """

    number: int
    matrix: Any


@dataclass(frozen=True)
class Look:
    """What the client has to know of a part before a fit.

    Attributes
    ----------
    n : int
        Stored entries.
    mean, std : number
        Of their values.
    dtype : numpy dtype
    row_counts, col_counts : (rows of the part,), (n_cols,) int64 arrays
        Entries of each row and of each column.
    """

    n: int
    mean: complex
    std: float
    dtype: np.dtype[Any]
    row_counts: NDArray[np.int64]
    col_counts: NDArray[np.int64]


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
        return Part(number, _as_finite(dense) if missing_is_zero else _from_dense(dense))
    whole: Any = sp.csr_array(sp.vstack(pieces, format="csr"))
    if whole.nnz:
        X = as_observations(whole, duplicates="sum" if missing_is_zero else "error")
        whole = sp.csr_array((X.data, X.indices, X.indptr), shape=X.shape)
    return Part(number, whole)


def _as_finite(dense: Array) -> Array:
    if not np.isfinite(dense).all():
        raise ValueError("X must not contain infinities or NaNs")
    return np.ascontiguousarray(dense if dense.dtype.char in "fdFD" else dense.astype(np.float64))


def _from_dense(dense: Array) -> Any:
    seen = ~np.isnan(dense)
    if not seen.any():
        return sp.csr_array(dense.shape, dtype=np.float32)
    X = as_observations(dense)
    return sp.csr_array((X.data, X.indices, X.indptr), shape=X.shape)


def inspect_part(part: Part) -> Look:
    """Return moments and counts of a part."""
    X = part.matrix
    mean, std = measure_moments(X.data) if X.nnz else (0.0, 0.0)
    counts = np.diff(X.indptr).astype(np.int64), np.bincount(X.indices, minlength=X.shape[1])
    return Look(int(X.nnz), mean, std, X.data.dtype, *counts)


def combine_moments(looks: Sequence[Look]) -> tuple[complex, float]:
    """Return mean and standard deviation of the entries of some parts, one of which has some.

    By differences of means: those of sums and of squares would cancel, or overflow.
    """
    seen, n = [look for look in looks if look.n], sum(look.n for look in looks)
    shares, first = [look.n / n for look in seen], seen[0].mean
    mean = first + sum(share * (look.mean - first) for look, share in zip(seen, shares, strict=True))
    spreads = (math.hypot(look.std, abs(look.mean - mean)) for look in seen)
    return mean, math.hypot(*(share**0.5 * spread for share, spread in zip(shares, spreads, strict=True)))


def measure_part(part: Part) -> tuple[float, float, np.dtype[Any]]:
    """Return the largest magnitude in a part, its Frobenius norm, and its dtype."""
    values = part.matrix if isinstance(part.matrix, np.ndarray) else part.matrix.data
    with using_threads(1):
        return find_largest(values), frobenius_norm(values) or 0.0, values.dtype


def _as_operand(part: Part, scale: float) -> Operand:
    X = part.matrix
    if isinstance(X, np.ndarray):
        return DenseOperand(X, scale, 1)
    return SparseOperand(leave(X.indptr, X.indices, X.data), X.shape, scale)


def _own(X: Array) -> Array:
    """Return an array that kernels take for writable, as those that came over a wire may not be."""
    return X if X.flags.writeable else X.copy()


def add_tree(terms: list[Array], add: Any = np.add) -> Any:
    """Return the sum of neighbours, and of neighbours of these: of equal parts the same bits whoever adds up which."""
    while len(terms) > 1:
        pairs = (terms[i : i + 2] for i in range(0, len(terms), 2))
        terms = [add(*pair) if len(pair) > 1 else pair[0] for pair in pairs]
    return terms[0]


def gram_parts(parts: list[Part], X: Array, scale: float) -> Array:
    """Return A^H (A X) for the rows A of some parts."""
    n, wide = len(X), np.zeros((pad(len(X), MOST_ROWS), BLOCK), X.dtype)
    wide[:n] = X
    found = []
    with using_threads(1), one_blas_thread():
        for part in parts:
            G = aligned_zeros((N_SLICES, *wide.shape), X.dtype)
            _as_operand(part, scale).add_gram(wide, G)
            found.append(G.sum(axis=0)[:n])
    return np.asarray(add_tree(found))


def multiply_parts(parts: list[Part], V: Array, scale: float) -> Array:
    """Return A V."""
    with using_threads(1), one_blas_thread():
        return np.concatenate([_as_operand(part, scale).multiply(_own(V)) for part in parts])


def scatter_parts(parts: list[Part], U: Array, scale: float) -> Array:
    """Return A^H U."""
    cuts = np.split(_own(U), np.cumsum([part.matrix.shape[0] for part in parts])[:-1])
    with using_threads(1), one_blas_thread():
        products = [_as_operand(part, scale).adjoint(cut) for part, cut in zip(parts, cuts, strict=True)]
    return np.asarray(add_tree(products))


def triplets_parts(parts: list[Part], V: Array, inverse: Array, scale: float) -> tuple[Array, Array]:
    """Return U = A V / s and A^H U, so that U need not come back."""
    U = multiply_parts(parts, V, scale) * inverse
    return U, scatter_parts(parts, U, scale)


def deviations_of(part: Part, mean: Array, unit: float) -> Array:
    """Return the sum of |x - mean|^2 of each column, for the part's values times `unit`."""
    return sum_squares(in_units(part.matrix, unit), mean)
