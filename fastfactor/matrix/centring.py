"""Columns centred and scaled: explicitly when the matrix is dense or small, implicitly when it is sparse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.operand import BLOCK, Operand
from fastfactor.matrix.operators import as_operand, check_finite_matrix, frobenius_norm
from fastfactor.matrix.streaming import as_stream, is_stream, measure_stream, walk_pieces
from fastfactor.matrix.structure import widen_integers
from fastfactor.matrix.values import find_largest, power_of_two

Array = NDArray[Any]

SMALL = 100_000  # entries up to which a sparse matrix may as well be dense


class CentredOperand(Operand):
    """(X - 1 mean^T) / deviation, without forming it, from X as an operand; or its adjoint, when X's was given.

    Parameters
    ----------
    base : Operand
    is_adjoint : bool
        Whether `base` is the adjoint of X.
    mean, deviation : (n_cols,) arrays
    """

    def __init__(self, base: Operand, is_adjoint: bool, mean: Array, deviation: Array) -> None:
        self.base, self.is_adjoint = base, is_adjoint
        self.m, self.n, self.dtype, self.scale = base.m, base.n, base.dtype, base.scale
        ones: Array = np.ones((base.n if is_adjoint else base.m, 1), base.dtype)
        offset: Array = ((mean / deviation).conj() * base.scale).astype(base.dtype)[:, None]
        self.p, self.q = (offset, ones) if is_adjoint else (ones, offset)
        self.deviation = deviation[:, None]
        eps = float(np.finfo(self.dtype).eps)
        self.rounding = eps * float(np.linalg.norm(self.p) * np.linalg.norm(self.q))

    def multiply(self, V: Array) -> Array:
        """Return B V - p (q^H V), B being divided by the deviations."""
        d, q = self.deviation, self.q.conj().T @ V
        product = self.base.multiply(V) / d if self.is_adjoint else self.base.multiply(V / d)
        return np.asarray(product - self.p @ q)

    def adjoint(self, U: Array) -> Array:
        """Return B^H U - q (p^H U)."""
        d, p = self.deviation, self.p.conj().T @ U
        product = self.base.adjoint(U / d) if self.is_adjoint else self.base.adjoint(U) / d
        return np.asarray(product - self.q @ p)


@dataclass
class Centred:
    """A matrix (X - 1 mean^T) / scale, where X is what was handed in times `unit`.

    Attributes
    ----------
    mean, scale : (n_cols,) arrays
    norm : float
        Its Frobenius norm.
    unit : float
        A power of two by which squares neither overflow nor vanish; mostly 1.
    dense : array or None
        The matrix itself, when it was formed.
    base : callable or None
        From a random generator to X as an operand (its adjoint when it is wide), when it was not.
    """

    mean: Array
    scale: Array
    norm: float
    unit: float
    dense: Array | None
    base: Callable[[np.random.Generator], Operand] | None

    def operand(self, rng: np.random.Generator, is_adjoint: bool) -> Operand:
        """Return it as an Operand (its adjoint when it is wide)."""
        assert self.base is not None
        return CentredOperand(self.base(rng), is_adjoint, self.mean, self.scale)


def in_units(X: Any, unit: float) -> Any:
    """Return an array or a CSR matrix times `unit`."""
    return X if unit == 1.0 else X.astype(np.result_type(X.dtype, np.float64)) * unit


def rescale(operand: Operand) -> float:
    """Return the `unit` (of `Centred`) for what an operand was made of, and have the operand count in it."""
    unit = power_of_two(1 / operand.scale)
    operand.scale /= unit
    return unit


def sum_columns(operand: Operand, is_adjoint: bool) -> Array:
    """Return the sums of X's columns, by a product with ones."""
    ones = np.zeros((operand.n if is_adjoint else operand.m, BLOCK), operand.dtype)
    ones[:, 0] = 1
    product = operand.multiply(ones).conj() if is_adjoint else operand.adjoint(ones).conj()
    return np.asarray(product[:, 0] / operand.scale)


def _sum_in_double(X: Any) -> Array:
    """Return the sums of the columns of an array or a CSR matrix; scipy sums single precision in single precision."""
    wide = np.result_type(X.dtype, np.float64)
    if not is_sparse(X):
        return np.asarray(X.sum(axis=0, dtype=wide))
    sums = np.zeros(X.shape[1], wide)
    sums.real = np.bincount(X.indices, X.data.real, X.shape[1])
    if wide.kind == "c":
        sums.imag = np.bincount(X.indices, X.data.imag, X.shape[1])
    return sums


def sum_squares(X: Any, mean: Array) -> Array:
    """Return the sum of |x - mean|^2 of each column of an array or a CSR matrix without duplicates."""
    if not is_sparse(X):
        return np.asarray((np.abs(X - mean) ** 2).sum(axis=0))
    squares = np.abs(X.data - mean[X.indices]) ** 2
    counts = np.bincount(X.indices, minlength=X.shape[1])
    return np.bincount(X.indices, squares, X.shape[1]) + (X.shape[0] - counts) * np.abs(mean) ** 2


def _find_deviation(squares: Array, mean: Array, n_rows: int, unit: float) -> Array:
    """Return standard deviations from sums of squares about the mean; `unit` for constant columns."""
    deviation = np.sqrt(squares / n_rows)
    tiny = 10 * np.finfo(np.float64).eps * np.abs(mean)
    deviation[deviation <= tiny] = unit
    return np.asarray(deviation)


def centre_columns(X: Any, center: bool, scale: bool, n_threads: int, needs_dense: bool) -> Centred:
    """Return X with its columns centred and scaled as asked.

    Raises
    ------
    ValueError
        If X contains infinities or NaNs.
    """
    is_small = needs_dense or X.shape[0] * X.shape[1] <= SMALL
    if is_stream(X) and not is_small:
        return _centre_stream(X, center, scale)
    if is_sparse(X):
        X = widen_integers(X).tocsr()
        X = X if X.has_canonical_format else _canonical(X)
    check_finite_matrix(X)
    unit = power_of_two(find_largest(X.data if is_sparse(X) else X))
    X = in_units(X, unit)
    n_rows = X.shape[0]
    mean = _sum_in_double(X) / n_rows
    squares = sum_squares(X, mean) if scale else None
    if not is_sparse(X) or is_small:
        deviation = np.ones(X.shape[1]) if squares is None else _find_deviation(squares, mean, n_rows, unit)
        shift = mean if center else np.zeros_like(mean)
        dense = ((X.toarray() if is_sparse(X) else X) - shift) / deviation
        return Centred(shift, deviation, frobenius_norm(dense) or 0.0, unit, dense, None)
    norm = frobenius_norm(X) or 0.0
    return centre(lambda rng: as_operand(X, n_threads, rng), n_rows, mean, squares, norm, center, unit)


def centre(
    base: Callable[[np.random.Generator], Operand],
    n_rows: int,
    mean: Array,
    squares: Array | None,
    norm: float,
    center: bool,
    unit: float = 1.0,
) -> Centred:
    """Return a matrix centred implicitly.

    Parameters
    ----------
    base : callable
        See `Centred`.
    n_rows : int
    mean : (n_cols,) array
    squares : (n_cols,) array or None
        About the mean, where the columns are to be scaled.
    norm : float
        Frobenius norm of X.
    center : bool
    unit : float
        See `Centred`.
    """
    kept = mean if center else np.zeros_like(mean)
    if squares is None:
        total = norm**2 - n_rows * float(np.sum(np.abs(kept) ** 2))
        return Centred(kept, np.ones(len(mean)), float(np.sqrt(max(total, 0.0))), unit, None, base)
    deviation = _find_deviation(squares, mean, n_rows, unit)
    total = float(np.sum((squares + n_rows * np.abs(mean - kept) ** 2) / deviation**2))
    return Centred(kept, deviation, float(np.sqrt(total)), unit, None, base)


def _centre_stream(X: Any, center: bool, scale: bool) -> Centred:
    """Centre what lies in files: one reading for the means, one for the deviations."""
    is_adjoint = X.shape[0] < X.shape[1]
    operand = as_stream(X, is_adjoint)
    unit = rescale(operand)
    mean = sum_columns(operand, is_adjoint) / X.shape[0]
    squares = _sum_stream(walk_pieces(X), X, mean, unit) if scale else None
    return centre(lambda rng: operand, X.shape[0], mean, squares, measure_stream(X) * unit, center, unit)


def _sum_stream(pieces: Iterable[tuple[int, int, Any]], X: Any, mean: Array, unit: float) -> Array:
    squares = np.zeros(X.shape[1])
    for start, stop, piece in pieces:
        piece = in_units(piece, unit)
        if X.format == "csr":
            squares += sum_squares(piece, mean)
        else:  # the piece holds columns, as rows
            column = np.repeat(np.arange(stop - start), np.diff(piece.indptr))
            own = np.abs(piece.data - mean[start:stop][column]) ** 2
            n_zeros = X.shape[0] - np.diff(piece.indptr)
            squares[start:stop] = np.bincount(column, own, stop - start) + n_zeros * np.abs(mean[start:stop]) ** 2
    return squares


def _canonical(X: Any) -> Any:
    X = X.copy()
    X.sum_duplicates()
    return X
