"""Columns centred and scaled: explicitly when the matrix is dense or small, implicitly when it is sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.operators import (
    Operand,
    as_operand,
    check_finite_matrix,
    find_largest,
    frobenius_norm,
    power_of_two,
)
from fastfactor.matrix.structure import widen_integers

Array = NDArray[Any]

SMALL = 100_000  # entries up to which a sparse matrix may as well be dense


class CentredOperand(Operand):
    """B - p q^H for vectors p and q, without forming it."""

    def __init__(self, base: Operand, p: Array, q: Array) -> None:
        self.base, self.p, self.q = base, p.astype(base.dtype)[:, None], q.astype(base.dtype)[:, None]
        self.m, self.n, self.dtype, self.scale = base.m, base.n, base.dtype, base.scale

    def multiply(self, V: Array) -> Array:
        """Return B V - p (q^H V)."""
        return np.asarray(self.base.multiply(V) - self.p @ (self.q.conj().T @ V))

    def adjoint(self, U: Array) -> Array:
        """Return B^H U - q (p^H U)."""
        return np.asarray(self.base.adjoint(U) - self.q @ (self.p.conj().T @ U))


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
    scaled : sparse array or None
        X / scale, when it was not.
    """

    mean: Array
    scale: Array
    norm: float
    unit: float
    dense: Array | None
    scaled: Any
    n_threads: int

    def operand(self, rng: np.random.Generator) -> Operand:
        """Return it as an Operand (its adjoint when it is wide)."""
        base = as_operand(self.scaled, self.n_threads, rng)
        m, n = self.scaled.shape
        offset = (self.mean / self.scale).conj() * base.scale
        if m >= n:
            return CentredOperand(base, np.ones(m), offset)
        return CentredOperand(base, offset, np.ones(m))


def _moments(X: Any, center: bool, scale: bool, unit: float) -> tuple[Array, Array]:
    """Return what to subtract from and divide each column by; variances are summed about the mean."""
    n_rows, n_cols = X.shape
    dtype = np.result_type(X.dtype, np.float64)
    sums = np.asarray(X.sum(axis=0, dtype=dtype)).ravel()
    mean = sums / n_rows
    deviation = np.ones(n_cols)
    if scale:
        if is_sparse(X):
            C = X.tocsc()
            counts = np.diff(C.indptr)
            squares = np.abs(C.data - np.repeat(mean, counts)) ** 2
            column = np.repeat(np.arange(n_cols), counts)
            variance = np.bincount(column, squares, n_cols) + (n_rows - counts) * np.abs(mean) ** 2
        else:
            variance = (np.abs(X - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(variance / n_rows)
        tiny = 10 * np.finfo(np.float64).eps * np.abs(mean)
        deviation[deviation <= tiny] = unit
    return (mean if center else np.zeros_like(mean)), deviation


def centre_columns(X: Any, center: bool, scale: bool, n_threads: int, needs_dense: bool) -> Centred:
    """Return X with its columns centred and scaled as asked.

    Raises
    ------
    ValueError
        If X contains infinities or NaNs.
    """
    if is_sparse(X):
        X = widen_integers(X).tocsr()
        X = X if X.has_canonical_format else _canonical(X)
    check_finite_matrix(X)
    unit = power_of_two(find_largest(X.data if is_sparse(X) else X))
    if unit != 1.0:
        X = X.astype(np.result_type(X.dtype, np.float64)) * unit
    mean, deviation = _moments(X, center, scale, unit)
    if not is_sparse(X) or needs_dense or X.shape[0] * X.shape[1] <= SMALL:
        dense = ((X.toarray() if is_sparse(X) else X) - mean) / deviation
        return Centred(mean, deviation, frobenius_norm(dense) or 0.0, unit, dense, None, n_threads)
    scaled = sp.csr_array(X @ sp.diags_array(1.0 / deviation)) if scale else X
    total = (frobenius_norm(scaled) or 0.0) ** 2 - X.shape[0] * float(np.sum(np.abs(mean / deviation) ** 2))
    return Centred(mean, deviation, float(np.sqrt(max(total, 0.0))), unit, None, scaled, n_threads)


def _canonical(X: Any) -> Any:
    X = X.copy()
    X.sum_duplicates()
    return X
