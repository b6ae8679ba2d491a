"""What `svds` and its kin accept, as what the passes eat: an `Operand`, taller than wide.

A wide matrix is replaced by its adjoint, so that the passes iterate on the shorter side. Values are scaled by a power
of two on the way, so that neither A^H A overflows nor underflows.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from fastfactor.blas import aligned_empty, aligned_zeros, pad, run_in_slices
from fastfactor.kernels.gram import (
    DenseRows,
    SparseRows,
    add_adjoint_sparse,
    add_gram_dense,
    add_gram_sparse,
    add_triplets_sparse,
    certify_sparse,
    drain,
    multiply_sparse,
)
from fastfactor.kernels.simd import Spec, Static
from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.structure import widen_integers
from fastfactor.matrix.transposing import transpose_arrays
from fastfactor.threads import launch

BLOCK = 8  # columns that a pass works on
LANES = Static(Spec(lanes=BLOCK, whole=False))
N_SLICES = 2  # row slices of A, each with an accumulator of its own: more of them leave the caches

Array = NDArray[Any]


class Operand(ABC):
    """A tall m x n matrix B, scaled: A itself, or its adjoint when A is wide.

    Attributes
    ----------
    m, n : int
        m >= n.
    dtype : numpy.dtype
        float64 or complex128: what its products are computed in.
    scale : float
        B is `scale` times what was handed in.
    """

    m: int
    n: int
    dtype: np.dtype[Any]
    scale: float

    @abstractmethod
    def multiply(self, V: Array) -> Array:
        """Return B V; V has a multiple of BLOCK columns."""

    @abstractmethod
    def adjoint(self, U: Array) -> Array:
        """Return B^H U; U has a multiple of BLOCK columns."""

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X, for a block X, to the accumulators G of shape (N_SLICES, rows, BLOCK)."""
        G[0, : self.n] += self.adjoint(self.multiply(X[: self.n]))

    def triplets(self, V: Array, s: Array) -> tuple[Array, Array]:
        """Return U = B V / s and B^H U; columns where s is zero come out as zeros.

        All three matrices have rows of zeros up to a multiple of four, and a multiple of BLOCK columns.
        """
        U, Z = np.zeros((pad(self.m, 4), V.shape[1]), V.dtype), np.zeros_like(V)
        U[: self.m] = self.multiply(V[: self.n]) * invert(s)
        Z[: self.n] = self.adjoint(U[: self.m])
        return U, Z

    def certify(self, V: Array, U: Array, s: Array) -> tuple[Array, Array]:
        """Return the norms of the columns of B V - U s and of B^H U - V s, computed anew from B."""
        return _norms(self.multiply(V) - U * s), _norms(self.adjoint(U) - V * s)


def invert(s: Array) -> Array:
    """Return 1 / s, and 0 for 0."""
    return np.divide(1.0, s, out=np.zeros_like(s), where=s > 0.0)


def _norms(M: Array) -> Array:
    return np.asarray(np.linalg.norm(M, axis=0), np.float64)


class SparseOperand(Operand):
    """Rows of a CSR matrix, walked by the fused kernels."""

    def __init__(self, indptr: Array, indices: Array, values: Array, shape: tuple[int, int], scale: float) -> None:
        self.m, self.n = shape
        self.dtype = np.result_type(values.dtype, np.float64)
        self.scale = scale
        starts = np.searchsorted(indptr, np.linspace(0, indptr[-1], N_SLICES + 1)).astype(np.int64)
        starts[0], starts[-1] = 0, self.m
        self.rows = SparseRows(indptr, indices, values, np.float64(scale), starts)

    def walk(self) -> Iterator[SparseRows]:
        """Yield the rows, all at once."""
        yield self.rows

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X to G."""
        for rows in self.walk():
            launch(add_gram_sparse, rows, X, G, LANES)

    def multiply(self, V: Array) -> Array:
        """Return B V."""
        U = np.empty((self.m, V.shape[1]), V.dtype)
        for rows in self.walk():
            for q in range(V.shape[1] // BLOCK):
                launch(multiply_sparse, rows, V, U, q, LANES)
        return U

    def adjoint(self, U: Array) -> Array:
        """Return B^H U."""
        Z = np.empty((self.n, U.shape[1]), U.dtype)
        G = aligned_zeros((N_SLICES, self.n, BLOCK), U.dtype)
        for q in range(U.shape[1] // BLOCK):
            for rows in self.walk():
                launch(add_adjoint_sparse, rows, U, G, q, LANES)
            self._drain(G, Z, q)
        return Z

    def triplets(self, V: Array, s: Array) -> tuple[Array, Array]:
        """Return U = B V / s and B^H U, in one reading of B for each block."""
        U, Z = aligned_empty((pad(self.m, 4), V.shape[1]), V.dtype), np.empty_like(V)
        U[self.m :], Z[self.n :] = 0, 0
        inverse = invert(s)[None, :].astype(V.dtype)
        G = aligned_zeros((N_SLICES, self.n, BLOCK), V.dtype)
        for q in range(V.shape[1] // BLOCK):
            for rows in self.walk():
                launch(add_triplets_sparse, rows, V, U, inverse, G, q, LANES)
            self._drain(G, Z, q)
        return U, Z

    def certify(self, V: Array, U: Array, s: Array) -> tuple[Array, Array]:
        """Return the norms of the columns of B V - U s and of B^H U - V s."""
        width = V.shape[1]
        found, values = np.zeros(width), s[None, :].astype(V.dtype)
        Z, G = np.empty_like(V), aligned_zeros((N_SLICES, self.n, BLOCK), V.dtype)
        for q in range(width // BLOCK):
            for rows in self.walk():
                squares = np.zeros((N_SLICES, 1, width), V.dtype)
                launch(certify_sparse, rows, V, U, values, squares, G, q, LANES)
                found += squares.sum(axis=(0, 1)).real
            self._drain(G, Z, q)
        return np.sqrt(found), _norms(Z - V * s)

    def _drain(self, G: Array, Z: Array, q: int) -> None:
        launch(drain, G, Z, np.linspace(0, self.n, 2 * N_SLICES + 1).astype(np.int64), q, LANES)


class DenseOperand(Operand):
    """A dense matrix: fused passes over blocks, BLAS on fixed slices of rows for wide products."""

    def __init__(self, B: Array, scale: float, n_threads: int) -> None:
        self.m, self.n = B.shape
        self.dtype = np.result_type(B.dtype, np.float64)
        self.scale, self.n_threads = scale, n_threads
        self.B = B
        self.rows: DenseRows | None = None

    def _prepare(self) -> DenseRows:
        if self.rows is None:
            starts = 4 * (np.arange(N_SLICES + 1) * (self.m // 4) // N_SLICES)
            self.rows = DenseRows(np.ascontiguousarray(self.B), np.float64(self.scale), starts)
        return self.rows

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X to G."""
        launch(add_gram_dense, self._prepare(), X, G, LANES)
        rest = self._take(slice(self.m - self.m % 4, self.m))  # the kernel takes four rows at a time
        G[0, : self.n] += rest.conj().T @ (rest @ X[: self.n])

    def _slices(self, work: Any, width: int) -> list[Any]:
        is_short = self.m * self.n * width < 1e8  # then threads cost more than they save
        return run_in_slices(work, self.m, 1 if is_short else self.n_threads)

    def gram(self) -> Array:
        """Return B^H B."""

        def work(part: slice) -> Array:
            rows = self._take(part)  # taken once: NumPy then sees a symmetric product, which costs half
            return np.asarray(rows.conj().T @ rows)

        n_slices = max(1, min(16, self.m // (3 * self.n)))  # each sums up a matrix of its own
        return np.asarray(functools.reduce(np.add, run_in_slices(work, self.m, self.n_threads, n_slices)))

    def _take(self, part: slice) -> Array:
        rows = self.B[part].astype(self.dtype, copy=False)
        return rows if self.scale == 1.0 else rows * self.scale

    def multiply(self, V: Array) -> Array:
        """Return B V."""
        U = np.empty((self.m, V.shape[1]), V.dtype)

        def work(part: slice) -> None:
            np.matmul(self._take(part), V, out=U[part])

        self._slices(work, V.shape[1])
        return U

    def adjoint(self, U: Array) -> Array:
        """Return B^H U."""
        return np.asarray(np.sum(self._slices(lambda part: self._take(part).conj().T @ U[part], U.shape[1]), axis=0))


class CallableOperand(Operand):
    """A LinearOperator, through matmat and rmatmat. The first product sets the scale."""

    def __init__(self, A: LinearOperator, is_adjoint: bool) -> None:
        self.forward, self.backward = (A.rmatmat, A.matmat) if is_adjoint else (A.matmat, A.rmatmat)
        self.m, self.n = A.shape[::-1] if is_adjoint else A.shape
        self.dtype = np.result_type(A.dtype, np.float64)
        self.scale = 1.0

    def fit_scale(self, rng: np.random.Generator) -> None:
        """Choose the scale from the product with a random vector."""
        size = float(np.abs(self.forward(rng.standard_normal((self.n, 1)).astype(self.dtype))).max())
        _check_finite(size)
        self.scale = power_of_two(size)

    def multiply(self, V: Array) -> Array:
        """Return B V."""
        return np.asarray(self.forward(V), self.dtype) * self.scale

    def adjoint(self, U: Array) -> Array:
        """Return B^H U."""
        return np.asarray(self.backward(U), self.dtype) * self.scale


class DeflatedOperand(Operand):
    """B without the triplets that are known: (I - U U^H) B (I - V V^H), each product projected on the left.

    What is left of B is then known to within rounding of its own norm, not of B's: the Gram operator of a graded
    matrix loses its small singular values, that of the remainder does not.
    """

    def __init__(self, base: Operand, U: Array, V: Array) -> None:
        self.base, self.U, self.V = base, U, V
        self.m, self.n, self.dtype, self.scale = base.m, base.n, base.dtype, base.scale

    def multiply(self, V: Array) -> Array:
        """Return (I - U U^H) B V."""
        return self._project(self.U, self.base.multiply(np.ascontiguousarray(self._project(self.V, V))))

    def adjoint(self, U: Array) -> Array:
        """Return (I - V V^H) B^H U."""
        return self._project(self.V, self.base.adjoint(np.ascontiguousarray(U)))

    def certify(self, V: Array, U: Array, s: Array) -> tuple[Array, Array]:
        """Return the norms of the columns of B V - U s and of B^H U - V s, of B itself."""
        return self.base.certify(V, U, s)

    @staticmethod
    def _project(Q: Array, X: Array) -> Array:
        return np.asarray(X - Q @ (Q.conj().T @ X))


def power_of_two(size: float) -> float:
    """Return the power of two that brings `size` to [1/2, 1); 1 where squares are harmless as they are."""
    exponent = int(np.frexp(size)[1])
    return 1.0 if size == 0.0 or abs(exponent) <= 100 else float(2.0 ** -max(min(exponent, 1000), -1000))


def _check_finite(size: float) -> None:
    if not np.isfinite(size):
        raise ValueError("A must not contain infinities or NaNs")


def find_largest(values: Array) -> float:
    """Return the largest magnitude; not finite when any value is not."""
    if values.size == 0:
        return 0.0
    if values.dtype.kind == "c":
        return float(np.maximum(find_largest(values.real), find_largest(values.imag)))  # NaN of either
    return max(float(values.max()), -float(values.min()))


def check_matrix(A: Any) -> None:
    """Raise what scipy's svds raises for what it cannot decompose.

    Raises
    ------
    TypeError
        If A is neither an array, a sparse matrix nor a LinearOperator.
    ValueError
        If it is not two-dimensional, not numeric, or empty.
    """
    dtype = A.dtype if is_sparse(A) and A.ndim == 2 else aslinearoperator(A).dtype
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
        _check_finite(size)
        return DenseOperand(B.conj().T if is_adjoint else B, power_of_two(size), n_threads)
    operand = CallableOperand(aslinearoperator(A), is_adjoint)
    operand.fit_scale(rng)
    return operand


def _as_sparse_operand(A: Any, is_adjoint: bool) -> SparseOperand:
    A = A if A.format in ("csr", "csc") else widen_integers(A).tocsr()
    values = _as_float(A.data[: A.indptr[-1]])
    size = find_largest(values)
    _check_finite(size)
    if is_adjoint and values.dtype.kind == "c":
        values = values.conj()
    arrays = A.indptr, A.indices, values
    if is_adjoint != (A.format == "csc"):  # otherwise the CSC arrays of A are the CSR arrays of its transpose
        arrays = transpose_arrays(*arrays, A.shape[1 if is_adjoint else 0])
    return SparseOperand(*arrays, A.shape[::-1] if is_adjoint else A.shape, power_of_two(size))


def check_finite_matrix(A: Any) -> None:
    """Raise a ValueError if an array or a sparse matrix contains infinities or NaNs."""
    _check_finite(find_largest(A.data if is_sparse(A) else A))


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
    _check_finite(find_largest(dense))
    return np.asarray(dense)
