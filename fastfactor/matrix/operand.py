"""What the passes eat: an `Operand`, taller than wide; sparse, callable and deflated ones (dense.py: dense ones)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from fastfactor.blas import aligned_empty, aligned_zeros, pad
from fastfactor.kernels.gram import (
    SparseRows,
    add_adjoint_sparse,
    add_gram_ahead,
    add_gram_sparse,
    add_triplets_sparse,
    certify_sparse,
    drain,
    multiply_sparse,
    take_chunk,
)
from fastfactor.kernels.rows import MOST_ROWS
from fastfactor.kernels.simd import Spec, Static
from fastfactor.matrix.packing import Stored, copy_sorted
from fastfactor.matrix.values import check_finite, power_of_two
from fastfactor.threads import launch

BLOCK = 8  # columns that a pass works on in double precision: a cache line
SINGLE_BLOCK = 2 * BLOCK  # in single precision
CHUNKS = {lanes: Static(Spec(lanes=lanes, whole=False)) for lanes in (BLOCK, 2 * BLOCK, 4 * BLOCK)}  # of wider rows
LANES = CHUNKS[BLOCK]
_BLOCKS = {width: Static(Spec(lanes=width)) for width in (BLOCK, SINGLE_BLOCK)}
SHORT_ROWS = 8  # entries a row, on average, up to which a sorted copy is worth it
CACHED = 1 << 19  # bytes of a block of vectors up to which it and its sums stay in a core's caches
N_SLICES = 2  # row slices of A, each with an accumulator of its own: more of them leave the caches

Array = NDArray[Any]


def lanes_of(block: int) -> Static:
    """Return what kernels take whose matrices are all as wide as a block, of BLOCK or SINGLE_BLOCK columns."""
    return _BLOCKS[block]


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
    takes_single : bool
        Whether `add_gram` also works in single precision, which then saves time.
    rounding : float
        Norm of what products with B may be off by where they are differences of larger ones; 0 where they are not.
    """

    m: int
    n: int
    dtype: np.dtype[Any]
    scale: float
    takes_single = False
    rounding = 0.0

    @abstractmethod
    def multiply(self, V: Array) -> Array:
        """Return B V; V has a multiple of BLOCK columns."""

    @abstractmethod
    def adjoint(self, U: Array) -> Array:
        """Return B^H U; U has a multiple of BLOCK columns."""

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X, for a block X, to the accumulators G of shape (N_SLICES, rows, columns of X)."""
        G[0, : self.n] += self.adjoint(self.multiply(X[: self.n]))

    def triplets(self, V: Array, s: Array) -> tuple[Array, Array]:
        """Return U = B V / s and B^H U; columns where s is zero come out as zeros.

        All three matrices have rows of zeros up to a multiple of MOST_ROWS, and a multiple of BLOCK columns.
        """
        U, Z = np.zeros((pad(self.m, MOST_ROWS), V.shape[1]), V.dtype), np.zeros_like(V)
        U[: self.m] = self.multiply(V[: self.n]) * invert(s)
        Z[: self.n] = self.adjoint(U[: self.m])
        return U, Z

    def certify(self, V: Array, U: Array, s: Array) -> tuple[Array, Array]:
        """Return the norms of the columns of B V - U s and of B^H U - V s, computed anew from B."""
        return _norms(self.multiply(V) - U * s), _norms(self.adjoint(U) - V * s)


def invert(s: Array) -> Array:
    """Return 1 / s, and 0 for 0."""
    return np.divide(1.0, s, out=np.zeros_like(s), where=s > 0.0)


def _cut(n: int) -> NDArray[np.int64]:
    """Return the boundaries of slices of n rows that are copied."""
    return np.linspace(0, n, 2 * N_SLICES + 1).astype(np.int64)


def drain_into(G: Array, Z: Array, n: int, q: int) -> None:
    """Store the sum of G[s] over s as chunk q of the first n rows of Z, and make G zero."""
    launch(drain, G, Z, _cut(n), q, CHUNKS[G.shape[2]])


def _norms(M: Array) -> Array:
    return np.asarray(np.linalg.norm(M, axis=0), np.float64)


def _halve(stored: Stored, start: int, stop: int, scale: float) -> SparseRows:
    """Return some of the rows in slices of about as many entries."""
    indptr = stored.indptr[start : stop + 1]
    starts = start + np.searchsorted(indptr, np.linspace(indptr[0], indptr[-1], N_SLICES + 1)).astype(np.int64)
    starts[0], starts[-1] = start, stop
    return SparseRows(*stored, np.float64(scale), starts)


class SparseOperand(Operand):
    """Rows of a CSR matrix, walked by the fused kernels."""

    takes_single = True

    def __init__(self, stored: Stored, shape: tuple[int, int], scale: float) -> None:
        self.m, self.n = shape
        self.dtype = np.result_type(stored.values.dtype, np.float64)
        self.scale = scale
        self.rows = _halve(stored, 0, self.m, scale)
        self.sorted: SparseRows | None = None

    def sort(self) -> None:
        """Keep a sorted copy of rows, of the size of a block of vectors of length m, where that shortens passes."""
        stored = Stored(*self.rows[:4])
        if stored.indptr[-1] > SHORT_ROWS * self.m or stored.turns.any():
            return
        copy = copy_sorted(stored, self.n, self.m * BLOCK * self.dtype.itemsize)
        n_copied = len(copy.turns)
        if n_copied:
            self.sorted = _halve(copy, 0, n_copied, self.scale)
            self.rows = _halve(stored, n_copied, self.m, self.scale)

    def walk(self) -> Iterator[SparseRows]:
        """Yield the rows: those that were copied, and the others."""
        if self.sorted is not None:
            yield self.sorted
        if self.rows.starts[0] < self.m:
            yield self.rows

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X to G."""
        add_gram = add_gram_ahead if X.nbytes > CACHED else add_gram_sparse
        for rows in self.walk():
            launch(add_gram, rows, X, G, lanes_of(X.shape[1]))

    def multiply(self, V: Array) -> Array:
        """Return B V."""
        return self._multiply(V, np.ones(V.shape[1]))

    def left_vectors(self, V: Array, s: Array) -> Array:
        """Return B V / s; columns where s is zero come out as zeros."""
        return self._multiply(V, invert(s))

    def _multiply(self, V: Array, factors: Array) -> Array:
        """Return B V, column j times factors[j]."""
        U, factors = aligned_empty((self.m, V.shape[1]), V.dtype), factors[None, :].astype(V.dtype)
        for rows in self.walk():  # the fewer chunks, the less often are entries read
            launch(multiply_sparse, rows, V, U, factors, CHUNKS[4 * BLOCK], LANES)
        return U

    def gram_product(self, V: Array) -> Array:
        """Return B^H B V, with rows of zeros as V has: by passes of SINGLE_BLOCK columns, the last perhaps of BLOCK."""
        Z, width = np.empty_like(V), V.shape[1]
        n_wide = width // SINGLE_BLOCK if width >= 3 * SINGLE_BLOCK else 0  # else X and its sums outgrow the basis
        Z[self.n :] = 0
        for block, chunks in ((SINGLE_BLOCK, range(n_wide)), (BLOCK, range(2 * n_wide, width // BLOCK))):
            X = aligned_empty((len(V), block), V.dtype)
            G = aligned_zeros((N_SLICES, self.n, block), V.dtype)
            for q in chunks:
                launch(take_chunk, V, X, _cut(self.n), q, CHUNKS[block])
                self.add_gram(X, G)
                drain_into(G, Z, self.n, q)
        return Z

    def adjoint(self, U: Array) -> Array:
        """Return B^H U."""
        Z = np.empty((self.n, U.shape[1]), U.dtype)
        G = aligned_zeros((N_SLICES, self.n, BLOCK), U.dtype)
        for q in range(U.shape[1] // BLOCK):
            for rows in self.walk():
                launch(add_adjoint_sparse, rows, U, G, q, LANES)
            drain_into(G, Z, self.n, q)
        return Z

    def triplets(self, V: Array, s: Array) -> tuple[Array, Array]:
        """Return U = B V / s and B^H U, in one reading of B for each block."""
        U, Z = aligned_empty((pad(self.m, MOST_ROWS), V.shape[1]), V.dtype), np.empty_like(V)
        U[self.m :], Z[self.n :] = 0, 0
        inverse = invert(s)[None, :].astype(V.dtype)
        G = aligned_zeros((N_SLICES, self.n, BLOCK), V.dtype)
        for q in range(V.shape[1] // BLOCK):
            for rows in self.walk():
                launch(add_triplets_sparse, rows, V, U, inverse, G, q, LANES)
            drain_into(G, Z, self.n, q)
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
            drain_into(G, Z, self.n, q)
        return np.sqrt(found), _norms(Z - V * s)


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
        check_finite(size)
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
