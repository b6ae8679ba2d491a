"""From a matrix as it was handed over to its singular triplets, by the tool that suits its size."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastfactor.blas import one_blas_thread
from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.operand import BLOCK, Operand
from fastfactor.matrix.operators import as_operand, to_dense
from fastfactor.matrix.streaming import as_stream, is_stream
from fastfactor.matrix.values import find_largest, power_of_two
from fastfactor.solvers.tall import compute_phases
from fastfactor.solvers.triplets import Search, basis_size, find_triplets
from fastfactor.threads import using_threads, using_threads_for

Array = NDArray[Any]

LAPACK_WORK = 2_000_000  # m n min(m, n) up to which LAPACK's dense SVD is the quickest tool
LAPACK_SIZE = 4_000_000  # entries up to which a dense SVD finds the smallest values
# Multiplications of a pass and of a reading of the basis from which a second thread saves more than it costs: below, it
# saves a tenth at rest, and beside a BLAS whose threads still spin it doubles the time (docs/performance.md).
SHARED_WORK = 1_300_000


@dataclass
class Decomposition:
    """Singular triplets of the matrix, descending.

    Attributes
    ----------
    U, s, Vh : (n_rows, k), (k,), (k, n_cols) arrays
    residuals : (k,) float64 array
        max(``|| A v - s u ||``, ``|| A^H u - s v ||``) over s_1.
    n_passes : int
    """

    U: Array
    s: NDArray[np.float64]
    Vh: Array
    residuals: NDArray[np.float64]
    n_passes: int


def choose_signs(U: Array, Vh: Array) -> tuple[Array, Array]:
    """Return the factors with the phases of `compute_phases` for the shorter side (the right one of equals)."""
    V = U if len(U) < Vh.shape[1] else Vh.conj().T
    phases = compute_phases(V[np.abs(V).argmax(axis=0), np.arange(V.shape[1])])
    return U * phases, Vh * phases.conj()[:, None]


def decompose(A: Any, search: Search, rng: np.random.Generator, first: Array | None = None) -> Decomposition:
    """Return triplets of a matrix that `check_matrix` has passed.

    Raises
    ------
    ValueError
        If it contains infinities or NaNs.
    """
    m, n = A.shape
    work = m * n * min(m, n)
    with using_threads(search.n_threads), one_blas_thread(), _sharing(A, search.k):
        if search.k == min(m, n) or work <= LAPACK_WORK or (not search.largest and m * n <= LAPACK_SIZE):
            return _decompose_dense(to_dense(A), search)
        operand = as_stream(A, m < n) if is_stream(A) else as_operand(A, search.n_threads, rng)
        return _decompose_operand(operand, m < n, search, rng, first)


def _sharing(A: Any, k: int) -> contextlib.AbstractContextManager[int]:
    """Run passes over A on as many threads as they are worth."""
    work = BLOCK * (A.nnz + min(A.shape) * basis_size(k)) if is_sparse(A) else math.inf
    return using_threads_for(work, SHARED_WORK)


def decompose_operand(operand: Operand, is_adjoint: bool, search: Search, rng: np.random.Generator) -> Decomposition:
    """Return triplets of an operand, or of its adjoint."""
    with using_threads(search.n_threads), one_blas_thread():
        return _decompose_operand(operand, is_adjoint, search, rng, None)


def _decompose_operand(
    operand: Operand, is_adjoint: bool, search: Search, rng: np.random.Generator, first: Array | None
) -> Decomposition:
    found = find_triplets(operand, search, rng, first)
    U, V = (found.V, found.U) if is_adjoint else (found.U, found.V)
    Vh = V.conj().T
    order = slice(None) if search.largest else slice(None, None, -1)
    with np.errstate(over="ignore", under="ignore"):
        s = found.s[order] / operand.scale
    residuals = found.residuals[order] + operand.rounding / (found.norm or 1.0)
    return Decomposition(U[:, order], s, Vh[order], residuals, found.n_passes)


def _decompose_dense(dense: Array, search: Search) -> Decomposition:
    """By LAPACK, all triplets, of which those asked for are kept."""
    scale = power_of_two(find_largest(dense))
    if scale != 1.0:
        dense = dense * scale
    U, s, Vh = scipy.linalg.svd(dense, full_matrices=False, check_finite=False)
    wanted = slice(0, search.k) if search.largest else slice(len(s) - search.k, len(s))
    norm = float(s[0]) or 1.0
    U, Vh = choose_signs(U[:, wanted], Vh[wanted])
    s = s[wanted]
    left = np.linalg.norm(dense @ Vh.conj().T - U * s, axis=0)
    right = np.linalg.norm(dense.conj().T @ U - Vh.conj().T * s, axis=0)
    with np.errstate(over="ignore", under="ignore"):
        values = s / scale
    return Decomposition(U, values, Vh, np.maximum(left, right) / norm, 1)
