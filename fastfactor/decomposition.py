"""Truncated SVD and what is built on it: `svds` (scipy's signature), `svd` (with a certificate), `pca`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastfactor.blas import one_blas_thread
from fastfactor.exceptions import ConvergenceWarning
from fastfactor.matrix.operators import as_operand, check_matrix, to_dense
from fastfactor.solvers.triplets import Search, find_triplets
from fastfactor.threads import using_threads

Array = NDArray[Any]
LAPACK_WORK = 2_000_000  # m n min(m, n) up to which LAPACK's dense SVD is the quickest tool


def choose_signs(U: Array, Vh: Array) -> tuple[Array, Array]:
    """Return the factors with the largest entry of each row of Vh made real and positive (the first of equals).

    This is the one rule by which this package fixes the signs, or phases, of singular vectors.
    """
    largest = np.abs(Vh).argmax(axis=1)
    pivots = Vh[np.arange(len(Vh)), largest]
    sizes = np.abs(pivots)
    phases = np.where(sizes > 0.0, pivots / np.where(sizes > 0.0, sizes, 1.0), 1.0)
    Vh = Vh * phases.conj()[:, None]
    U *= phases.astype(U.dtype)
    return U, Vh


@dataclass
class Decomposition:
    """Triplets of A itself, descending."""

    U: Array
    s: Array
    Vh: Array
    residuals: Array
    n_passes: int


def decompose(A: Any, search: Search, rng: np.random.Generator, first: Array | None = None) -> Decomposition:
    """Return triplets of A (checked by `check_matrix`) by the tool that suits its size, descending."""
    m, n = A.shape
    small = min(m, n)
    with using_threads(search.n_threads), one_blas_thread():
        if search.k == small or m * n * small <= LAPACK_WORK or (not search.largest and m * n <= 4_000_000):
            return _decompose_dense(A, search)
        operand = as_operand(A, search.n_threads, rng)
        found = find_triplets(operand, search, rng, first)
    U, V = (found.U, found.V) if m >= n else (found.V, found.U)
    U, Vh = choose_signs(U, V.conj().T)
    order = slice(None) if search.largest else slice(None, None, -1)
    s, residuals = found.s[order] / operand.scale, found.residuals[order] / operand.scale
    return Decomposition(U[:, order], s, Vh[order], residuals, found.n_passes)


def _decompose_dense(A: Any, search: Search) -> Decomposition:
    dense = to_dense(A)
    scale = float(np.abs(dense).max()) or 1.0
    dense = dense / scale
    U, s, Vh = scipy.linalg.svd(dense, full_matrices=False, check_finite=False)
    wanted = slice(0, search.k) if search.largest else slice(len(s) - search.k, len(s))
    U, Vh = choose_signs(U[:, wanted].copy(), Vh[wanted])
    s = s[wanted]
    left = np.linalg.norm(dense @ Vh.conj().T - U * s, axis=0)
    right = np.linalg.norm(dense.conj().T @ U - Vh.conj().T * s, axis=0)
    return Decomposition(U, s * scale, Vh, np.maximum(left, right) * scale, 1)
