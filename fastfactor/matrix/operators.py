"""What `svds` and its kin accept, as what the passes eat (operand.py).

A wide matrix is replaced by its adjoint, so that the passes iterate on the shorter side. Values are scaled by a power
of two on the way where A^H A would overflow or underflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from fastfactor.matrix.dense import DenseOperand
from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.operand import CallableOperand, Operand, SparseOperand
from fastfactor.matrix.packing import leave
from fastfactor.matrix.structure import widen_integers
from fastfactor.matrix.transposing import transpose_arrays
from fastfactor.matrix.values import check_finite, find_largest, power_of_two

Array = NDArray[Any]


def check_matrix(A: Any, name: str = "A") -> None:
    """Raise what scipy's svds raises for what it cannot decompose.

    Raises
    ------
    TypeError
        If A is neither an array, a sparse matrix nor a LinearOperator.
    ValueError
        If it is not two-dimensional, not numeric, or empty.
    """
    try:
        dtype = A.dtype if is_sparse(A) and A.ndim == 2 else aslinearoperator(A).dtype
    except TypeError as error:
        expected = "an array, a sparse matrix or a LinearOperator"
        raise TypeError(f"{name} must be {expected}, got {type(A).__name__} ({error})") from None
    except ValueError as error:
        raise ValueError(f"{name} must be 2-D, got shape {A.shape} ({error})") from None
    if not np.issubdtype(dtype, np.number):
        raise ValueError("`A` must be of numeric data type.")
    if 0 in A.shape:
        raise ValueError("`A` must not be empty.")


def _as_float(values: Array) -> Array:
    """Integers and half or extended precision as float64 (complex128); the four dtypes of LAPACK as they are."""
    if values.dtype.char in "fdFD":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # what only a wider type holds becomes infinite, which is refused
        return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def is_dense(A: Any) -> bool:
    """Tell whether A is an array (a matrix, a list) rather than sparse or an operator."""
    return not is_sparse(A) and not isinstance(A, LinearOperator) and not hasattr(A, "rmatvec")


def as_operand(A: Any, n_threads: int, rng: np.random.Generator) -> Operand:
    """Return A, or its adjoint when A is wide, as an Operand. A has passed `check_matrix`.

    Raises
    ------
    ValueError
        If A contains infinities or NaNs.
    """
    is_adjoint = A.shape[0] < A.shape[1]
    if is_sparse(A):
        return _as_sparse_operand(A, is_adjoint)
    if is_dense(A):
        B = _as_float(np.asarray(A))
        size = find_largest(B)
        check_finite(size)
        return DenseOperand(B.conj().T if is_adjoint else B, power_of_two(size), n_threads)
    operand = CallableOperand(aslinearoperator(A), is_adjoint)
    operand.fit_scale(rng)
    return operand


def _as_sparse_operand(A: Any, is_adjoint: bool) -> SparseOperand:
    A = A if A.format in ("csr", "csc") else widen_integers(A).tocsr()
    values = _as_float(A.data[: A.indptr[-1]])
    size = find_largest(values)
    check_finite(size)
    if is_adjoint and values.dtype.kind == "c":
        values = values.conj()
    shape, scale = A.shape[::-1] if is_adjoint else A.shape, power_of_two(size, harmless=0)
    if is_adjoint != (A.format == "csc"):  # otherwise the CSC arrays of A are the CSR arrays of its transpose
        stored = transpose_arrays(A.indptr, A.indices, values, shape[0])
    else:
        stored = leave(A.indptr, A.indices, values)
    return SparseOperand(stored, shape, scale)


def check_finite_matrix(A: Any) -> None:
    """Raise a ValueError if an array or a sparse matrix contains infinities or NaNs."""
    check_finite(find_largest(A.data if is_sparse(A) else A))


def frobenius_norm(A: Any) -> float | None:
    """Return the Frobenius norm of A, None for a LinearOperator; it neither overflows nor underflows."""
    if not is_sparse(A) and not is_dense(A):
        return None
    values = _distinct(A) if is_sparse(A) else A
    scale = power_of_two(find_largest(values))
    if scale == 1.0 and values.dtype.char in "dD":
        with np.errstate(over="ignore"):  # of sums of what is stored twice
            return float(np.linalg.norm(values.ravel()))
    flat, total = values.ravel().view(values.real.dtype), 0.0  # of complex numbers both parts
    for start in range(0, len(flat), 1 << 20):  # squares of single precision overflow, a copy of all would take room
        wide = flat[start : start + (1 << 20)].astype(np.float64) * scale
        total += float(wide @ wide)
    return total**0.5 / scale


def _distinct(A: Any) -> Array:
    """Return the stored values of a sparse matrix, with duplicates summed."""
    A = widen_integers(A)
    A = A if A.format in ("csr", "csc") else A.tocsr()
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    return np.asarray(A.data)


def to_dense(A: Any) -> Array:
    """Return A as a float64 or complex128 array, checked for infinities and NaNs. A has passed `check_matrix`."""
    if is_sparse(A):
        dense = widen_integers(A).toarray()
    elif is_dense(A):
        dense = np.asarray(A)
    else:
        operator = aslinearoperator(A)
        tall = operator.shape[0] >= operator.shape[1]
        eye = np.eye(min(operator.shape), dtype=np.result_type(operator.dtype, np.float64))
        dense = operator.matmat(eye) if tall else operator.rmatmat(eye).conj().T
    with np.errstate(over="ignore"):
        dense = dense.astype(np.complex128 if dense.dtype.kind == "c" else np.float64, copy=False)
    check_finite(find_largest(dense))
    return np.asarray(dense)
