"""Singular triplets of an Operand, with certificates: which tool finds them, and what makes small values accurate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastfactor.blas import run_in_slices
from fastfactor.matrix.operators import BLOCK, DeflatedOperand, DenseOperand, Operand
from fastfactor.solvers.subspace import Basis, Request, pad, solve

Array = NDArray[Any]

GRAM_LIMIT = 1024  # a dense Gram matrix up to this order is decomposed as it is
MAX_LEVELS = 8  # deflations; each gains four decimal digits of s / s_1
ROUNDING = 1e-14  # residuals, over s_1, that no level is spent on
NULL = 1e-14  # what is left of the matrix, over its norm, when the rest counts as zero


@dataclass
class Triplets:
    """Singular triplets of an Operand, of the scaled matrix, wanted ones first.

    Attributes
    ----------
    U, s, V : (m, k), (k,), (n, k) arrays
    residuals : (k,) float64 array
        max(``|| B v - s u ||``, ``|| B^H u - s v ||``), computed anew from B, over `norm`.
    norm : float
        s_1, also when the smallest values are wanted.
    n_passes : int
    """

    U: Array
    s: NDArray[np.float64]
    V: Array
    residuals: NDArray[np.float64]
    norm: float
    n_passes: int


@dataclass
class Search:
    """What to look for.

    Attributes
    ----------
    k : int
    tol : float
        Bound on the residuals over s_1.
    max_passes : int
    largest : bool
    n_threads : int
    """

    k: int
    tol: float
    max_passes: int
    largest: bool
    n_threads: int


def basis_size(k: int) -> int:
    """Return how many vectors the Krylov basis holds: 3 k, but enough for a few blocks."""
    return max(pad(3 * k - BLOCK + 1, BLOCK), 6 * BLOCK)


def find_triplets(operand: Operand, search: Search, rng: np.random.Generator, first: Array | None = None) -> Triplets:
    """Return `search.k` singular triplets of the operand, found in levels where the spectrum is steep."""
    V, norm, n_passes = _find_subspace(operand, search, rng, first)
    found = _certify(operand, _rayleigh_ritz(operand, V, search), norm, n_passes)
    for _ in range(MAX_LEVELS):
        bad = found.residuals > max(search.tol, ROUNDING)
        n_good = int(np.argmax(bad)) if bad.any() else search.k
        if n_good in (0, search.k) or not search.largest or found.n_passes >= search.max_passes:
            break
        found = _refine(operand, found, n_good, search, rng)
    return found


def _refine(operand: Operand, found: Triplets, n_good: int, search: Search, rng: np.random.Generator) -> Triplets:
    """Look for the triplets from `n_good` on in what the good ones leave of the matrix."""
    k = search.k
    rest = DeflatedOperand(operand, found.U[:, :n_good], found.V[:, :n_good])
    part = Search(k - n_good, search.tol, search.max_passes - found.n_passes, True, search.n_threads)
    V, _, n_passes = _find_subspace(rest, part, rng, found.V[:, n_good])
    V = np.concatenate([found.V[:, :n_good], V[:, : k - n_good]], axis=1)
    U, s, V = _rayleigh_ritz(rest.base, np.linalg.qr(V)[0], search)
    return _certify(operand, (U, s, V), found.norm, found.n_passes + n_passes)


def _find_subspace(
    operand: Operand, search: Search, rng: np.random.Generator, first: Array | None
) -> tuple[Array, float, int]:
    """Return orthonormal V (n, k) that spans the wanted right singular vectors, s_1, and the number of passes."""
    size = basis_size(search.k)
    if size + 2 * BLOCK >= operand.n or (isinstance(operand, DenseOperand) and operand.n <= GRAM_LIMIT):
        return _decompose_gram(operand, search)
    basis = Basis(operand.n, size, operand.dtype, rng, max(1e-2 * search.tol, 1e-15))
    ritz = solve(operand, Request(search.k, search.tol, search.max_passes, search.largest, size), basis, first)
    return _orthonormalise(ritz.V[: operand.n, : search.k], search.n_threads), float(np.sqrt(ritz.norm)), ritz.n_passes


def _orthonormalise(V: Array, n_threads: int) -> Array:
    """Return V, whose columns are orthonormal but for small errors, orthonormal to machine precision."""
    M = np.sum(run_in_slices(lambda part: V[part].conj().T @ V[part], len(V), n_threads), axis=0)
    T = np.linalg.inv(np.linalg.cholesky(M)).conj().T
    return np.concatenate(run_in_slices(lambda part: V[part] @ T, len(V), n_threads))


def _decompose_gram(operand: Operand, search: Search) -> tuple[Array, float, int]:
    """Form B^H B, by BLAS or by passes over the unit vectors, and decompose it by LAPACK."""
    n, k = operand.n, search.k
    if isinstance(operand, DenseOperand):
        gram = operand.gram()
        n_passes = 1
    else:
        width = pad(n, BLOCK)
        eye = np.eye(n, width, dtype=operand.dtype)
        gram = operand.adjoint(operand.multiply(eye))[:, :n]
        n_passes = width // BLOCK
    if search.largest:
        theta, V = scipy.linalg.eigh(gram, subset_by_index=[n - k, n - 1], driver="evr", check_finite=False)
        V = V[:, ::-1]
    else:
        theta, V = np.linalg.eigh(gram)
    return np.ascontiguousarray(V[:, :k]), float(np.sqrt(max(theta[-1], 0.0))), n_passes


def _widen(V: Array) -> Array:
    """Return V with columns of zeros up to a multiple of BLOCK."""
    width = pad(V.shape[1], BLOCK)
    if width == V.shape[1]:
        return np.ascontiguousarray(V)
    return np.concatenate([V, np.zeros((len(V), width - V.shape[1]), V.dtype)], axis=1)


def _rayleigh_ritz(operand: Operand, V: Array, search: Search) -> tuple[Array, Array, Array]:
    """Return the SVD of B V as (U, s, V'), all orthonormal to machine precision, also where s is zero."""
    n_threads, k = search.n_threads, search.k
    U = operand.multiply(_widen(V))[:, :k]
    norms = np.sqrt(np.sum(run_in_slices(lambda part: (np.abs(U[part]) ** 2).sum(axis=0), len(U), n_threads), axis=0))
    floor = NULL * norms.max() if norms.max() > 0.0 else 1.0
    if norms.min() <= 1e-6 * norms.max():
        return _dense_rayleigh_ritz(U, V, floor, search)
    M = np.sum(run_in_slices(lambda part: U[part].conj().T @ U[part], len(U), n_threads), axis=0)
    M /= np.outer(norms, norms)
    theta, E = np.linalg.eigh(M)  # the unit vectors U / norms are nearly orthonormal already
    if theta[0] < 1e-4:
        return _dense_rayleigh_ritz(U, V, floor, search)
    P, s, Qh = np.linalg.svd((np.sqrt(theta)[:, None] * E.conj().T) * norms)
    T = ((E / np.sqrt(theta)) @ P) / norms[:, None]

    def work(part: slice) -> None:
        U[part] = U[part] @ T

    run_in_slices(work, len(U), n_threads)
    return _ordered(U, s, V @ Qh.conj().T, search)


def _dense_rayleigh_ritz(U: Array, V: Array, floor: float, search: Search) -> tuple[Array, Array, Array]:
    """Do the same by LAPACK's Householder QR, which gives orthonormal vectors for zero values too."""
    Q, R = np.linalg.qr(U)
    P, s, Qh = np.linalg.svd(R)
    s[s <= floor] = 0.0
    return _ordered(Q @ P, s, V @ Qh.conj().T, search)


def _ordered(U: Array, s: Array, V: Array, search: Search) -> tuple[Array, Array, Array]:
    return (U, s, V) if search.largest else (U[:, ::-1], s[::-1], V[:, ::-1])


def _certify(operand: Operand, usv: tuple[Array, Array, Array], norm: float, n_passes: int) -> Triplets:
    U, s, V = usv
    wide_s = np.zeros(pad(len(s), BLOCK))
    wide_s[: len(s)] = s
    left, right = operand.certify(_widen(V), _widen(U), wide_s)
    norm = max(norm, float(s.max()))
    return Triplets(U, s, V, np.maximum(left, right)[: len(s)] / (norm or 1.0), norm, n_passes)
