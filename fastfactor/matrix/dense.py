"""Dense matrices as an `Operand`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import aligned_zeros, pad, run_in_slices
from fastfactor.kernels.dense import (
    DenseRows,
    add_gram_dense,
    add_gram_wide,
    add_triplets_dense,
    add_triplets_wide,
    transpose,
)
from fastfactor.kernels.rows import MOST_ROWS
from fastfactor.matrix.operand import BLOCK, LANES, N_SLICES, Operand, drain_into, invert
from fastfactor.threads import launch

LOW = 1024  # rows of a wide matrix that is not transposed: fewer columns at a time would not be worth it
CACHED = 1 << 18  # numbers of a wide matrix that stay in a core's cache

Array = NDArray[Any]


class DenseOperand(Operand):
    """A dense matrix: fused passes over blocks, BLAS on fixed slices of rows for single products."""

    def __init__(self, B: Array, scale: float, n_threads: int) -> None:
        self.m, self.n = B.shape
        self.dtype = np.result_type(B.dtype, np.float64)
        self.scale, self.n_threads = scale, n_threads
        self.B = B
        is_wide = B.flags.f_contiguous and not B.flags.c_contiguous
        self.is_wide = is_wide and B.dtype.char in "fd" and self.n <= LOW
        self.rows: DenseRows | None = None

    def _prepare(self) -> DenseRows:
        if self.rows is None:
            starts = np.arange(N_SLICES + 1) * self.m // N_SLICES
            B = self.B if self.scale == 1.0 else self.B.astype(self.dtype) * self.scale  # not entry by entry in passes
            self.rows = DenseRows(B.T if self.is_wide else _as_rows(B), starts)
        return self.rows

    def _make_columns(self) -> Array:
        """Return what a pass over a wide matrix keeps of its first product."""
        return aligned_zeros((N_SLICES, CACHED // self.n, BLOCK), self.dtype)

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X to G."""
        if self.is_wide:
            launch(add_gram_wide, self._prepare(), X, self._make_columns(), G, LANES)
        else:
            launch(add_gram_dense, self._prepare(), X, G, LANES)

    def _slices(self, work: Any, width: int) -> list[Any]:
        is_short = self.m * self.n * width < 1e8  # then threads cost more than they save
        return run_in_slices(work, self.m, 1 if is_short else self.n_threads)

    def gram(self) -> Array:
        """Return B^H B."""

        def work(part: slice) -> Array:
            rows = self._take(part)  # taken once: NumPy then sees a symmetric product, which costs half
            return np.asarray(rows.conj().T @ rows)

        n_slices = min(16, self.m // (3 * self.n) + 1) // 2 * 2  # each sums up a matrix of its own; even, for two cores
        return np.asarray(functools.reduce(np.add, run_in_slices(work, self.m, self.n_threads, max(1, n_slices))))

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

    def triplets(self, V: Array, s: Array) -> tuple[Array, Array]:
        """Return U = B V / s and B^H U, in one reading of B for each block."""
        U, Z = np.zeros((pad(self.m, MOST_ROWS), V.shape[1]), V.dtype), np.zeros_like(V)
        inverse = invert(s)[None, :].astype(V.dtype)
        G = aligned_zeros((N_SLICES, self.n, BLOCK), V.dtype)
        rows = self._prepare()
        for q in range(V.shape[1] // BLOCK):
            if self.is_wide:
                launch(add_triplets_wide, rows, V, U, inverse, self._make_columns(), G, q, LANES)
            else:
                launch(add_triplets_dense, rows, V, U, inverse, G, q, LANES)
            drain_into(G, Z, self.n, q)
        return U, Z


def _as_rows(B: Array) -> Array:
    """Return B in C order; where it is a transpose, all threads copy."""
    if not B.flags.f_contiguous or B.flags.c_contiguous or B.dtype.char not in "fdFD":
        return np.ascontiguousarray(B)
    rows = np.empty(B.shape, B.dtype)
    launch(transpose, B.T, np.linspace(0, len(B), 17).astype(np.int64), rows)
    return rows
