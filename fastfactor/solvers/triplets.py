"""Singular triplets of an Operand, with certificates: which tool finds them, and what makes small values accurate."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fastfactor.blas import pad
from fastfactor.matrix.dense import DenseOperand
from fastfactor.matrix.operand import BLOCK, SINGLE_BLOCK, DeflatedOperand, Operand, SparseOperand
from fastfactor.solvers.subspace import Basis, Request, Ritz, solve
from fastfactor.solvers.tall import (
    compute_phases,
    find_phases,
    fix_signs,
    inner_products,
    pad_matrix,
    rotate_rows,
    square_deviations,
    widen,
)

Array = NDArray[Any]

GRAM_LIMIT = 1024  # a dense Gram matrix up to this order is formed,
GRAM_SHARE = 64  # and up to this times k: for fewer vectors passes over the matrix cost less than the product;
SHORT = 128  # up to this order the Gram matrix of any matrix is formed: it takes no more passes than the iteration
LAPACK_LIMIT = 512  # up to this order LAPACK decomposes it faster than the iteration
SINGLE_TOL = 5e-6  # the least tolerance for which an iteration in single precision is tried
ORTHONORMAL = 1e-13  # what U^H U may differ from I by
FLAT = 0.05  # the least s / s_1 for which U = B V / s is orthonormal to ORTHONORMAL once V^H B^H B V is diagonal
STEEP = 1e-5  # the least s / s_1 for which U = B V / s is orthonormal to within a small correction
MANY = 16  # vectors from which there are passes enough to make up for a sorted copy of a sparse matrix
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


def basis_size(k: int, block: int = BLOCK) -> int:
    """Return how many vectors the Krylov basis holds: 3 k, but enough for a few blocks."""
    return max(pad(3 * k - block + 1, block), 6 * block)


def find_triplets(operand: Operand, search: Search, rng: np.random.Generator, first: Array | None = None) -> Triplets:
    """Return `search.k` singular triplets of the operand, found in levels where the spectrum is steep."""
    if isinstance(operand, SparseOperand) and search.k >= MANY:
        operand.sort()
    found = _search_once(operand, search, rng, first)
    for _ in range(MAX_LEVELS):
        bad = found.residuals > max(search.tol, ROUNDING)
        n_good = int(np.argmax(bad)) if bad.any() else search.k
        if n_good in (0, search.k) or not search.largest or found.n_passes >= search.max_passes:
            break
        found = _refine(operand, found, n_good, search, rng)
    return found


def _search_once(operand: Operand, search: Search, rng: np.random.Generator, first: Array | None) -> Triplets:
    """Return triplets found in single precision where the tolerance allows it and they meet it, else in double."""
    n_passes = 0
    if operand.takes_single and search.largest and search.tol >= SINGLE_TOL:
        single = np.dtype(np.float32 if operand.dtype.kind == "f" else np.complex64)
        found = _finish(operand, _find_subspace(operand, search, rng, first, single), search)
        if found.residuals.max() <= search.tol or found.n_passes >= search.max_passes:
            return found
        n_passes, search = found.n_passes, replace(search, max_passes=search.max_passes - found.n_passes)
    found = _finish(operand, _find_subspace(operand, search, rng, first, operand.dtype), search)
    return replace(found, n_passes=n_passes + found.n_passes)


def _refine(operand: Operand, found: Triplets, n_good: int, search: Search, rng: np.random.Generator) -> Triplets:
    """Look for the triplets from `n_good` on in what the good ones leave of the matrix."""
    k = search.k
    rest = DeflatedOperand(operand, found.U[:, :n_good], found.V[:, :n_good])
    part = Search(k - n_good, search.tol, search.max_passes - found.n_passes, True, search.n_threads)
    more = _find_subspace(rest, part, rng, found.V[:, n_good], rest.dtype)
    more_v = more.V[: rest.n, : part.k]
    V = np.linalg.qr(np.concatenate([found.V[:, :n_good], more_v], axis=1))[0]
    n_passes = found.n_passes + more.n_passes
    return _certify(operand, _rayleigh_ritz(operand, V, search), found.norm, n_passes)


def _find_subspace(
    operand: Operand, search: Search, rng: np.random.Generator, first: Array | None, dtype: np.dtype[Any]
) -> Ritz:
    """Return the wanted eigenpairs of B^H B, from an iteration in that dtype."""
    block = SINGLE_BLOCK if dtype.char in "fF" and search.k > BLOCK else BLOCK
    size, limit = basis_size(search.k, block), min(GRAM_LIMIT, GRAM_SHARE * search.k) if search.largest else GRAM_LIMIT
    dense = operand if isinstance(operand, DenseOperand) and operand.n <= limit else None
    by_lapack = dense is not None and (operand.n <= LAPACK_LIMIT or not search.largest)
    if max(size + 2 * block, SHORT) >= operand.n or by_lapack:
        return _decompose_gram(operand, search)
    request = Request(search.k, search.tol, search.max_passes, search.largest)
    operator = operand if dense is None else _Gram(dense)
    ritz = solve(operator, request, Basis(operand.n, size, block, dtype, rng), first)  # the basis is given back here
    ritz.V = ritz.V.astype(operand.dtype, copy=False)
    return ritz


class _Gram:
    """A small Gram matrix B^H B, formed once: passes over it are shorter than over B."""

    def __init__(self, operand: DenseOperand) -> None:
        self.n, self.gram = operand.n, operand.gram()

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X to G."""
        G[0, : self.n] += self.gram @ X[: self.n]


def _orthonormaliser(V: Array, k: int) -> Array:
    """Return the T for which the first k columns of V T are orthonormal, V being so but for small errors."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(inner_products(V, V, k))).conj().T)


def _decompose_gram(operand: Operand, search: Search) -> Ritz:
    """Form B^H B, by BLAS or by passes over the unit vectors, and decompose it by LAPACK."""
    n, k = operand.n, search.k
    if isinstance(operand, DenseOperand):
        gram, n_passes = operand.gram(), 1
    else:
        eye = np.eye(n, pad(n, BLOCK), dtype=operand.dtype)
        gram, n_passes = operand.adjoint(operand.multiply(eye))[:, :n], pad(n, BLOCK) // BLOCK
    if search.largest:
        theta, V = _find_largest_pairs(gram, k)
    else:
        theta, V = np.linalg.eigh(gram)
    V = pad_matrix(V[:, :k])
    return Ritz(theta[:k], V * find_phases(V), float(np.abs(theta).max()), n_passes, is_orthonormal=True)


def _find_largest_pairs(gram: Array, k: int) -> tuple[Array, Array]:
    """Return the k largest eigenvalues of a Hermitian matrix, the largest first, and vectors."""
    n, theta = len(gram), np.empty(0)
    with contextlib.suppress(np.linalg.LinAlgError):
        theta, V = scipy.linalg.eigh(gram, subset_by_index=[n - k, n - 1], driver="evr", check_finite=False)
    if len(theta) < k:  # relatively robust representations fail for some graded matrices, with an error or without one
        theta, V = np.linalg.eigh(gram)
    return theta[: -k - 1 : -1], V[:, : -k - 1 : -1]


def _finish(operand: Operand, ritz: Ritz, search: Search) -> Triplets:
    """Return U, s and residuals for the right singular vectors found, from one more product with B and B^H each.

    Where the spectrum is flat and B sparse, `_finish_flat` says how; otherwise:

    With ``U = B V / s`` and ``Z = B^H U``, what U lacks to be orthonormal is known from the short side,
    ``E = U^H U - I = V^H Z / s - I``. The first-order Gram-Schmidt step ``U (I - triu(E))`` mends it; the
    leading vectors, which are the accurate ones, stay as they are.
    """
    k, norm = search.k, float(np.sqrt(ritz.norm))
    s = np.sqrt(np.maximum(ritz.theta, 0.0))
    if isinstance(operand, SparseOperand) and search.largest and s.min() > FLAT * norm:
        return _finish_flat(operand, ritz, k)
    if not ritz.is_orthonormal:
        fix_signs(ritz.V, _orthonormaliser(ritz.V, k))
    if s.min() > STEEP * norm:
        U, Z = operand.triplets(ritz.V, np.pad(s, (0, ritz.V.shape[1] - k)))
        E = inner_products(ritz.V, Z, k) / s[:, None]
        E = np.where(s[:, None] >= s, E, E.conj().T)  # of the two values of an entry that over the larger s is accurate
        E = (E + E.conj().T) / 2 - np.eye(k)
        if np.abs(E).max() <= 1e-7:
            return _mend(operand, U, Z, ritz, s, E, search)
        if np.abs(E).max() <= 0.1 / k and search.largest:
            return _decompose_projected(operand, U, Z, ritz, s, E)
    return _certify(operand, _rayleigh_ritz(operand, ritz.V[: operand.n, :k], search), norm, ritz.n_passes)


def _finish_flat(operand: SparseOperand, ritz: Ritz, k: int) -> Triplets:
    """Return the triplets by Rayleigh-Ritz on V, from one more pass and a product: ``V^H (B^H B V)`` is diagonal then.

    So U = B V / s is orthonormal to within eps (s_1 / s)^2, which FLAT keeps below ORTHONORMAL, and has not to be
    mended, which is work on the longer side. Nor does ``|| B V - U s ||`` differ from zero.
    """
    V = ritz.V
    C, Z = _orthonormaliser(V, k), operand.gram_product(V)
    T = C.conj().T @ inner_products(V, Z, k) @ C
    theta, W = np.linalg.eigh((T + T.conj().T) / 2)
    theta, W = theta[::-1], W[:, ::-1]
    T = fix_signs(V, C @ (W * compute_phases(W.diagonal())))
    rotate_rows(Z, T)
    s = np.sqrt(theta)
    right = np.sqrt(square_deviations(Z, V, theta)) / s
    del Z
    norm = max(float(np.sqrt(ritz.norm)), float(s[0]))
    U = operand.left_vectors(V, np.pad(s, (0, V.shape[1] - k)))
    return Triplets(U[:, :k], s, V[: operand.n, :k], right / norm, norm, ritz.n_passes)


def _decompose_projected(operand: Operand, U: Array, Z: Array, ritz: Ritz, s: Array, E: Array) -> Triplets:
    """Return the SVD of B V from ``B V = U s`` and ``U^H U = I + E``, where E is too large for one step; Z is B^H U.

    With I + E = L L^H, U L^-H is orthonormal, and the SVD of the small L^H s turns it and V into singular vectors.
    """
    k = len(s)
    L = np.linalg.cholesky(np.eye(k) + E)
    P, values, Qh = np.linalg.svd(L.conj().T * s)
    T = np.linalg.inv(L).conj().T @ P
    V = ritz.V
    rotate_rows(V, Qh.conj().T)
    phases = find_phases(V)
    V *= phases
    T *= phases[:k]
    rotate_rows(U, T)
    rotate_rows(Z, T)
    right = np.sqrt(square_deviations(Z, V, values))
    norm = max(float(np.sqrt(ritz.norm)), float(values.max()))
    return Triplets(U[: operand.m, :k], values, V[: operand.n, :k], right / norm, norm, ritz.n_passes)


def _mend(operand: Operand, U: Array, Z: Array, ritz: Ritz, s: Array, E: Array, search: Search) -> Triplets:
    """Return the triplets with U T, T = I - triu(E), for U; Z is B^H U.

    What B^H U T differs from V times the values by is R - V C, where R = Z - V s is small as a residual is, and so is
    ``C = s triu(E) + diag(values - s)``: this leaves out the product of R with E. V^H R is s E.
    """
    k = search.k
    upper = np.triu(E, 1) + np.diag(E.diagonal() / 2)
    if np.abs(E).max() <= ORTHONORMAL:
        upper = np.zeros_like(E)
    else:
        rotate_rows(U, np.eye(k) - upper)
    values = np.sort(s * (1.0 + E.diagonal().real / 2))  # in order but for rounding anyway
    values = values[::-1] if search.largest else values
    left = np.linalg.norm(np.diag(s) - (np.eye(k) - upper) * values, axis=0)  # B V = U s, before U was mended
    C = s[:, None] * upper + np.diag(values - s)
    squares = square_deviations(Z, ritz.V, s)
    squares += np.sum(np.abs(C) ** 2 - 2 * (C.conj() * (s[:, None] * E)).real, axis=0)
    right = np.sqrt(np.maximum(squares, 0.0))
    norm = max(float(np.sqrt(ritz.norm)), float(values.max()))
    U, V = U[: operand.m, :k], ritz.V[: operand.n, :k]
    return Triplets(U, values, V, np.maximum(left, right) / norm, norm, ritz.n_passes)


def _rayleigh_ritz(operand: Operand, V: Array, search: Search) -> tuple[Array, Array, Array]:
    """Return the SVD of B V as (U, s, V'), by Householder QR: orthonormal vectors for small and zero values too."""
    U = operand.multiply(widen(V, V.dtype))[:, : search.k]
    Q, R = np.linalg.qr(U)
    P, s, Qh = np.linalg.svd(R)
    s[s <= NULL * s.max()] = 0.0
    U, V = Q @ P, V @ Qh.conj().T
    return (U, s, V) if search.largest else (U[:, ::-1], s[::-1], V[:, ::-1])


def _certify(operand: Operand, usv: tuple[Array, Array, Array], norm: float, n_passes: int) -> Triplets:
    U, s, V = usv
    phases = find_phases(pad_matrix(V))[: len(s)]
    U, V = U * phases, V * phases
    wide_s = np.zeros(pad(len(s), BLOCK))
    wide_s[: len(s)] = s
    left, right = operand.certify(widen(V, V.dtype), widen(U, U.dtype), wide_s)
    norm = max(norm, float(s.max()))
    return Triplets(U, s, V, np.maximum(left, right)[: len(s)] / (norm or 1.0), norm, n_passes)
