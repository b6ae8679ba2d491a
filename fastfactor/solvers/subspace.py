"""Leading (or trailing) right singular vectors by a thick-restarted block Krylov space of A^H A (docs/svd.md).

Each pass multiplies one block of vectors by A^H A. The new block is made orthogonal to the two before it, which
in exact arithmetic suffices; what rounding has left of the others is estimated from a few random combinations of the
basis, and removed when it is more than `Basis.loss`. Rayleigh-Ritz on the space gives approximations and, from
the coupling to the next block, their residuals; a full basis is restarted from its best Ritz vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import aligned_empty, aligned_zeros, pad
from fastfactor.kernels.basis import add_inner, collect, multiply, prepare_pass, restart, subtract, transform
from fastfactor.kernels.rows import MOST_ROWS, ROWS
from fastfactor.kernels.small import factor, find_lost
from fastfactor.matrix.operand import BLOCK, N_SLICES, lanes_of
from fastfactor.solvers.tall import chunks_of, fixed_parts, widen
from fastfactor.threads import launch

# Leading blocks that every new block is made orthogonal to: what rounding brings back lies in the vectors that have
# converged, which a restart puts first (docs/performance.md).
HEAD = 3
ILL_CONDITIONED = 1e-6  # least eigenvalue of a block's scaled Gram matrix for which X R is W to 1e-13


@dataclass
class Request:
    """What to compute, and when to stop.

    Attributes
    ----------
    k : int
        Number of vectors.
    tol : float
        Largest residual ``|| A^H A v - s^2 v || / (s s_1)``.
    max_passes : int
    largest : bool
        Which end of the spectrum.
    """

    k: int
    tol: float
    max_passes: int
    largest: bool


@dataclass
class Ritz:
    """Ritz pairs of A^H A, best first.

    Attributes
    ----------
    theta : (k,) float64 array
    V : (rows, width) array
        The first k columns belong to `theta`; rows of zeros up to a multiple of MOST_ROWS. There may be more columns.
    norm : float
        The largest Ritz value of all, wanted or not: an estimate of the norm of B.
    n_passes : int
    is_orthonormal : bool
        Whether V is so to machine precision, or only as far as the iteration lets it be.
    """

    theta: NDArray[np.float64]
    V: NDArray[Any]
    norm: float
    n_passes: int
    is_orthonormal: bool = False


class Symmetric(Protocol):
    """What a Krylov space is built of: anything that adds A^H A X to the accumulators of a pass."""

    def add_gram(self, X: NDArray[Any], G: NDArray[Any]) -> None:
        """Add A^H A X to G."""


@dataclass
class Basis:
    """The Krylov basis and its scratch space.

    Attributes
    ----------
    n, size, block : int
        Length of the vectors, how many there is room for (a multiple of `block`), and how many a pass works on.
    Q : (size // block + N_SLICES, rows, block) array
        Orthonormal columns in blocks, of which the first p columns are in use; the next block waits after them. It is
        made where it stays: a pass adds to it, and to the blocks after it.
    S : (1, rows, block) array
        Q times random signs: a vector with parts of size x in the space of Q has inner products of about x with S.
    H : (size, size) array
        Q^H B Q; only its upper triangle is read.
    R : (block, block) array
        The next block times R is what B X has outside the basis.
    """

    n: int
    size: int
    block: int
    dtype: np.dtype[Any]
    rng: np.random.Generator
    loss: float = 0.0  # how much of the basis a new block may contain before it is made orthogonal again
    p: int = 0
    is_local: bool = False  # the newest block is coupled to the one before it only, not to all of the basis
    scale: float = 0.0  # the largest diagonal entry of H so far: the norm of B is at least this
    Q: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        rows, block = pad(self.n, MOST_ROWS), self.block
        self.lanes, self.chunks = lanes_of(block), chunks_of(block, self.dtype)
        self.parts = fixed_parts(rows)
        self.Q = aligned_empty((self.size // block + N_SLICES, rows, block), self.dtype)
        n_parts = len(self.parts) - 1
        self.C = np.zeros((n_parts, self.size, block), self.dtype)
        self.K, self.M = np.zeros((2, n_parts, block, block), self.dtype)
        self.norms = np.zeros(block)
        self.signs = np.asarray(1.0 - 2.0 * self.rng.integers(0, 2, (self.size + block, block)), self.dtype)
        self.S = aligned_zeros((1, rows, block), self.dtype)
        self.H = np.zeros((self.size, self.size), np.result_type(self.dtype, np.float64))
        self.R, self.gram = np.zeros((2, block, block), self.H.dtype)
        self.eps = float(np.finfo(self.dtype).eps)
        # Below this times the norm of B residuals are not looked at: a multiple of eps to be safe in double precision,
        # as little as sums of random errors permit in single precision, where a certificate in double decides anyway.
        self.floor = self.eps * (2 if self.dtype.char in "fF" else 16)

    @property
    def n_blocks(self) -> int:
        """Number of the blocks in use, and of the one that becomes the next."""
        return self.p // self.block

    def begin(self, first: NDArray[Any] | None) -> None:
        """Start from random vectors; `first`, if given, is the first of them."""
        X = self.Q[0]
        X[: self.n], X[self.n :] = self.draw(self.block), 0
        if first is not None:
            X[: self.n, 0] = first
        for _ in range(2):
            self._transform(self._factor(X.conj().T @ X)[1])
        self.append()

    def draw(self, count: int) -> NDArray[Any]:
        """Return `count` random vectors as columns."""
        Z = self.rng.random((self.n, count)) - 0.5
        return Z + 1j * (self.rng.random((self.n, count)) - 0.5) if self.dtype.kind == "c" else Z

    def append(self) -> None:
        """Take the next block into the basis."""
        self.p += self.block

    def expand(self, operator: Symmetric) -> None:
        """Multiply the newest block by B, extend H, and orthonormalise what is outside the basis as the next block."""
        p, end, new = self.p, self.n_blocks, slice(self.p - self.block, self.p)
        lo, head = (max(0, end - 2), min(HEAD, max(0, end - 2))) if self.is_local else (end, 0)
        launch(prepare_pass, self.Q, end - 1, N_SLICES, self.lanes)
        operator.add_gram(self.Q[end - 1], self.Q[end : end + N_SLICES])
        launch(collect, self.Q, head, lo, end, N_SLICES, self.parts, self.C, self.S, self.signs, self.lanes)
        if not self.is_local:
            self._add_inner()
            lo = 0
        D = self.C.sum(axis=0)
        for _ in range(4):
            self.H[:p, new] += D[:p]
            launch(subtract, self.Q, head, lo, end, D, self.parts, self.S, self.K, self.M, self.lanes)
            self.scale = max(self.scale, float(np.abs(self.H[new, new].diagonal()).max()))
            allowed = max(self.loss, 2 * self.eps * p**0.5)  # what rounding leaves in p products
            is_lost = find_lost(self.K, self.M, self.gram, self.norms, allowed, self.eps * self.scale)
            if not np.isfinite(self.norms).all():
                raise ValueError("A must not contain infinities or NaNs, and its products must be finite")
            if not is_lost:
                break
            self.C[:] = 0
            self._add_inner()
            D, head, lo = self.C.sum(axis=0), 0, 0
        self._normalise()
        self.is_local = True

    def _add_inner(self) -> None:
        """Add to C the inner products of all of the basis with what becomes the next block."""
        launch(add_inner, self.Q, self.n_blocks, self.Q[self.n_blocks], self.parts, self.C, self.lanes)

    def _normalise(self) -> None:
        """Factor W = X R with orthonormal X by Cholesky, twice where once is not enough (CholeskyQR2)."""
        if self.norms.min() <= 8 * self.eps * self.scale:
            self._replace_lost()
            return
        R, T, lowest = self._factor(self.gram)
        if lowest < ILL_CONDITIONED:
            self._replace_lost()
            return
        self._transform(T)
        if lowest < 0.05:
            again, T, _ = self._factor(self.M.sum(axis=0))
            self._transform(T)
            R = again @ R
        self.R = R

    def _factor(self, gram: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], float]:
        """Return the Cholesky factor of a Gram matrix, its inverse, and what `factor` returns."""
        R, T = np.empty((2, self.block, self.block), self.H.dtype)
        return R, T, factor(gram.astype(self.H.dtype, copy=False), R, T)

    def _transform(self, T: NDArray[Any]) -> None:
        """Replace the next block X by X T."""
        T = T.astype(self.dtype, copy=False)
        launch(transform, self.Q, self.n_blocks, T, self.parts, self.M, self.lanes)

    def _replace_lost(self) -> None:
        """Keep what the next block has outside the basis; where it has less than a block, go on with random directions.

        The space is then invariant, as far as rounding lets us see, or the columns are dependent.
        """
        W = self.Q[self.n_blocks, : self.n]
        left, sizes, _ = np.linalg.svd(W, full_matrices=False)
        n_kept = int(np.sum(sizes > 32 * self.eps * self.scale))
        X = self._leave_basis(np.concatenate([left[:, :n_kept], self.draw(self.block - n_kept)], axis=1))
        self.R = (X.conj().T @ W).astype(self.H.dtype)
        self.R[n_kept:] = 0
        W[:] = X

    def _leave_basis(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return orthonormal columns, of X as far as it lies outside the basis."""
        for _ in range(3):
            for Q in self.Q[: self.n_blocks, : self.n]:
                X = X - Q @ (Q.conj().T @ X)
            X = np.linalg.qr(X)[0]
        return X

    def restart(self, Y: NDArray[Any], theta: NDArray[np.float64]) -> None:
        """Go on with the Ritz vectors Q Y, a multiple of `block`, and their values; the next block stays what it is."""
        Y, tiles = np.ascontiguousarray(Y, self.dtype), np.zeros((len(self.parts) - 1, 1, ROWS, Y.shape[1]), self.dtype)
        launch(restart, self.Q, self.n_blocks, Y, self.parts, tiles, self.S, self.signs, *self.chunks)
        self.p, self.is_local, self.scale = Y.shape[1], False, max(self.scale, float(np.abs(theta).max()))
        self.H[:] = 0
        self.H[np.arange(self.p), np.arange(self.p)] = theta

    def vectors(self, Y: NDArray[Any]) -> NDArray[Any]:
        """Return Q Y in C order, with columns of zeros up to a multiple of BLOCK."""
        V = aligned_empty((self.Q.shape[1], pad(Y.shape[1], BLOCK)), self.dtype)
        launch(multiply, self.Q, self.n_blocks, widen(Y, self.dtype), V, self.parts, *chunks_of(BLOCK, self.dtype))
        return V

    def randomise(self) -> None:
        """Let random directions outside the basis be the next block."""
        self.Q[self.n_blocks, : self.n] = self._leave_basis(self.draw(self.block))
        self.R = np.zeros_like(self.R)

    def ritz(self, largest: bool) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.float64]]:
        """Return Ritz values, wanted ones first, vectors in the basis, and the norms of their residuals."""
        theta, Y = np.linalg.eigh(self.H[: self.p, : self.p], UPLO="U")
        if largest:
            theta, Y = theta[::-1], Y[:, ::-1]
        return theta, Y, np.linalg.norm(self.R @ Y[self.p - self.block :], axis=0)


def is_suspect(theta: NDArray[np.float64], block: int) -> bool:
    """Tell whether `block` values coincide: only then can a Krylov space of such blocks have missed more of them."""
    if len(theta) < block:
        return False
    spread = np.abs(theta[: len(theta) - block + 1] - theta[block - 1 :])
    return bool(np.any(spread <= 1e-7 * np.abs(theta[0])))


class Watch:
    """Decides when Rayleigh-Ritz is due: at a restart, and when convergence is expected."""

    def __init__(self, k: int, block: int) -> None:
        self.passes, self.excess = 0, np.inf
        self.due = 2 * k // block + 3  # nothing converges in a space of less than about 2 k dimensions

    def note(self, n_passes: int, excess: float) -> None:
        """Record by which factor the worst residual exceeds its bound, and extrapolate its fall."""
        steps, excess = n_passes - self.passes, max(excess, 1e-30)
        rate = np.log(self.excess / excess) / steps if np.isfinite(self.excess) and excess < self.excess else 0.0
        wait = np.log(max(excess, 1.0)) / rate if rate > 0.0 else np.inf
        self.due = n_passes + (max(1, int(0.8 * wait)) if np.isfinite(wait) else 3)
        self.passes, self.excess = n_passes, excess


def solve(operator: Symmetric, request: Request, basis: Basis, first: NDArray[Any] | None = None) -> Ritz:
    """Return the wanted Ritz pairs of B = A^H A, once all residuals meet the tolerance or the passes are spent."""
    k, block, watch, probed, n_passes = request.k, basis.block, Watch(request.k, basis.block), None, 0
    keep = min(pad(k + (basis.size - k) // 3, block), basis.size - 2 * block)
    basis.begin(first)
    basis.loss = 1e-3 * request.tol
    while True:
        basis.expand(operator)
        n_passes += 1
        is_full = basis.p + block > basis.size
        last = n_passes >= request.max_passes
        if basis.p < k or not (is_full or last or n_passes >= watch.due):
            basis.append()
            continue
        theta, Y, residuals = basis.ritz(request.largest)
        bounds = compute_bounds(theta[:k], request.tol, basis)
        excess = float(np.max(residuals[:k] / bounds))
        # What the basis lacks to be orthonormal comes back in the residuals, times s_1 / s.
        if basis.scale > 0.0:
            basis.loss = 0.05 * float(bounds.min()) / basis.scale
        watch.note(n_passes, excess)
        settled = probed is not None and np.allclose(theta[:k], probed, rtol=0.0, atol=1e-9 * basis.scale)
        if excess <= 1.0 and is_suspect(theta[: k + 1], block) and not settled:
            probed = theta[:k].copy()
            basis.restart(Y[:, :keep], theta[:keep])
            basis.randomise()
            watch.due = n_passes + 4
            basis.append()
            continue
        if excess <= 1.0 or last:
            return Ritz(theta[:k], basis.vectors(Y[:, :k]), float(np.abs(theta).max()), n_passes)
        if is_full:
            basis.restart(Y[:, :keep], theta[:keep])
        basis.append()


def compute_bounds(theta: NDArray[np.float64], tol: float, basis: Basis) -> NDArray[np.float64]:
    """Return the bounds on ``|| B v - theta v ||``: the tolerance's, but never less than rounding permits."""
    s = np.sqrt(np.maximum(theta, 0.0))
    return np.asarray(np.maximum(tol * s * np.sqrt(basis.scale), max(basis.floor * basis.scale, 1e-300)))
