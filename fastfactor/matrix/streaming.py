"""Sparse matrices whose arrays lie in files, as operands: each product reads them once, piece by piece of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.kernels.gram import SparseRows
from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.mapped import as_pages, is_mapped, use_large_pages, walk_rows
from fastfactor.matrix.operand import Operand, SparseOperand
from fastfactor.matrix.packing import leave
from fastfactor.matrix.values import check_finite, find_largest, power_of_two

Array = NDArray[Any]


class MappedOperand(SparseOperand):
    """Rows of a CSR matrix in files. Its sums are kept for each piece, so they differ from those in memory in rounding.

    Parameters
    ----------
    indptr, indices, values : arrays
    shape : (int, int)
    scale : float
    """

    def __init__(self, indptr: Array, indices: Array, values: Array, shape: tuple[int, int], scale: float) -> None:
        super().__init__(leave(as_pages(indptr), as_pages(indices), as_pages(values)), shape, scale)
        for array in (self.rows.indices, self.rows.values):
            use_large_pages(array)

    def sort(self) -> None:
        """Leave the rows where they are."""

    def walk(self) -> Iterator[SparseRows]:
        """Yield the pieces, each in two halves of about as many entries; pages are dropped behind."""
        rows = self.rows
        for start, stop in walk_rows(rows.indptr, (rows.indices, rows.values)):
            half = (int(rows.indptr[start]) + int(rows.indptr[stop])) // 2
            middle = start + int(np.searchsorted(rows.indptr[start:stop], half))
            yield rows._replace(starts=np.array([start, middle, stop], np.int64))


class AdjointOperand(Operand):
    """The adjoint of an operand: for what lies by the longer side, where it would have to be transposed in memory."""

    def __init__(self, base: Operand) -> None:
        self.base = base
        self.m, self.n, self.dtype, self.scale = base.n, base.m, base.dtype, base.scale

    def multiply(self, V: Array) -> Array:
        """Return B^H V for the base B."""
        return self.base.adjoint(np.ascontiguousarray(V))

    def adjoint(self, U: Array) -> Array:
        """Return B U for the base B."""
        return self.base.multiply(np.ascontiguousarray(U))


def is_stream(A: Any) -> bool:
    """Whether this is a sparse matrix that lies in files, in a format that can be read by rows or by columns."""
    return is_sparse(A) and A.format in ("csr", "csc") and A.data.dtype.char in "fdFD" and is_mapped(A.data, A.indices)


def as_stream(A: Any, is_adjoint: bool) -> Operand:
    """Return a matrix for which `is_stream` holds, or its adjoint, as an Operand.

    Raises
    ------
    ValueError
        If it contains infinities or NaNs.
    """
    largest = max(find_largest(A.data[part]) for part in _parts(A))
    check_finite(largest)
    is_by_column = A.format == "csc"
    values, shape = A.data, A.shape
    if is_by_column:  # its arrays are the CSR arrays of its transpose
        values, shape = values.conj() if values.dtype.kind == "c" else values, shape[::-1]
    operand = MappedOperand(A.indptr, A.indices, values, shape, power_of_two(largest, harmless=0))
    return operand if is_by_column == is_adjoint else AdjointOperand(operand)


def _parts(A: Any) -> Iterator[slice]:
    for start, stop in walk_rows(A.indptr, (A.indices, A.data)):
        yield slice(int(A.indptr[start]), int(A.indptr[stop]))


def walk_pieces(A: Any) -> Iterator[tuple[int, int, Any]]:
    """Yield where some rows begin and end, and these as CSR without duplicates; of CSC, the transpose's rows."""
    width = A.shape[0] if A.format == "csc" else A.shape[1]
    for start, stop in walk_rows(A.indptr, (A.indices, A.data)):
        part = slice(int(A.indptr[start]), int(A.indptr[stop]))
        indptr = A.indptr[start : stop + 1] - A.indptr[start]
        piece: Any = sp.csr_array((A.data[part], A.indices[part], indptr), shape=(stop - start, width))
        if not piece.has_canonical_format:
            piece = piece.copy()
            piece.sum_duplicates()
        yield start, stop, piece


def measure_stream(A: Any) -> float:
    """Return the Frobenius norm; what is stored twice counts as its sum."""
    scale = power_of_two(max(find_largest(A.data[part]) for part in _parts(A)))
    total = 0.0
    for _, _, piece in walk_pieces(A):
        wide = piece.data.astype(np.result_type(piece.data, np.float64), copy=False)
        total += float(np.linalg.norm(wide * scale)) ** 2
    return total**0.5 / scale
