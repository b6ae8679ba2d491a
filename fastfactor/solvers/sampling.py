"""Block Gibbs sampling of factors: each side drawn from its exact conditional, in turns, and the priors between them.

In standardised values, x_rc = a_r + b_c + U_r . V_c + noise. The numbers of a row (factor and offset) have the prior
N(B' f_r, S), with features f_r of the row and B, S drawn anew each sweep (Salakhutdinov and Mnih, ICML 2008); the
noise of (r, c) has the precision tau t_r t_c, all drawn from gamma distributions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import one_blas_thread
from fastfactor.kernels.posterior import CHUNKS, LANES, Conditional, draw_side, sum_squares
from fastfactor.kernels.ridge import Stored
from fastfactor.kernels.simd import Static
from fastfactor.threads import launch

Array = NDArray[Any]

_SPREAD = 0.1  # prior guess of the variance that the factors explain, in that of the values
_NOISE_WEIGHT = 20.0  # shape of the prior of t_r and t_c around 1: that of 40 entries
_STREAM = 1_000_003  # seeds of two fits meet after that many half sweeps


@dataclass
class Side:
    """Rows or columns: their entries, and the state of the chain.

    Attributes
    ----------
    stored : Stored
        The entries, this side first; targets are standardised values.
    features : (n, n_features) float64 array
    numbers : (n, rank + 1) float32 array
        Factor, then offset.
    precision : (n,) float32 array
        t_r, the precision of the noise against the average.
    """

    stored: Stored
    features: Array
    numbers: Array
    precision: Array


@dataclass(frozen=True)
class Sample:
    """One state of the chain: what `Side` holds of both sides, and tau."""

    numbers: tuple[Array, Array]
    precision: tuple[Array, Array]
    tau: float


def draw_prior(side: Side, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return a draw of the regression B (n_features, D) and a root of the covariance S (D, D), given the numbers."""
    Y, F = side.numbers.astype(np.float64), side.features
    n, D = Y.shape
    precision = F.T @ F + np.eye(F.shape[1])
    B = np.linalg.solve(precision, F.T @ Y)
    E = Y - F @ B
    scatter = E.T @ E + B.T @ B + np.eye(D) * D * _SPREAD / np.sqrt(max(D - 1, 1))
    # S^-1 has the Wishart distribution of D + n degrees of freedom; Bartlett's decomposition.
    root = np.tril(rng.standard_normal((D, D)), -1)
    root[np.diag_indices(D)] = np.sqrt(rng.chisquare(D + n - np.arange(D)))
    X = np.linalg.cholesky(np.linalg.inv(scatter)) @ root
    L = np.linalg.cholesky(np.linalg.inv(X @ X.T))
    return B + np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal(B.shape)) @ L.T, L


def _given(side: Side, other: Side, W: Array, own: Array) -> Conditional:
    stored = side.stored
    offsets = np.ascontiguousarray(other.numbers[:, -1])
    return Conditional(stored.indptr, stored.indices, stored.targets, stored.starts, W, offsets, own, other.precision)


def _pad(A: Array, width: int) -> Array:
    padded = np.zeros((len(A), width), np.float32)
    padded[:, : A.shape[1]] = A
    return padded


def _design(other: Side) -> Array:
    """Return what the numbers of this side are multiplied by: the other's factor, and 1 for the offset."""
    design: Array = other.numbers.copy()
    design[:, -1] = 1
    return design


def draw_numbers(side: Side, other: Side, tau: float, seed: int, rng: np.random.Generator) -> None:
    """Draw the numbers of one side, given those of the other."""
    B, L = draw_prior(side, rng)
    D = len(L)
    width = -(-(D + 1) // LANES) * LANES
    W = _pad(_design(other) @ L.astype(np.float32), width)
    prior = _pad(side.features @ np.linalg.solve(L, B.T).T, width)
    own = (side.precision * tau).astype(np.float32)
    Z, means = np.zeros_like(prior), np.zeros_like(prior)
    launch(draw_side, _given(side, other, W, own), prior, D, np.uint64(seed), Z, means, Static(CHUNKS))
    side.numbers = np.ascontiguousarray(Z[:, :D] @ L.T.astype(np.float32))


def _sum_squares(side: Side, other: Side) -> Array:
    """Return each row's squared errors, weighted by the other side's precisions."""
    width = -(-(side.numbers.shape[1] + 1) // LANES) * LANES
    sums = np.zeros(len(side.numbers))
    given = _given(side, other, _pad(_design(other), width), side.precision)
    launch(sum_squares, given, _pad(side.numbers, width), sums, Static(CHUNKS))
    return sums


def draw_noise(rows: Side, cols: Side, tau: float, rng: np.random.Generator) -> float:
    """Draw the precisions of both sides given the numbers, and return a draw of tau."""

    def draw(side: Side, squares: Array) -> Array:
        counts = np.diff(side.stored.indptr)
        rates = _NOISE_WEIGHT + tau * squares / 2
        return (rng.gamma(_NOISE_WEIGHT + counts / 2) / rates).astype(np.float32)

    squares = _sum_squares(rows, cols)
    rows.precision = draw(rows, squares)
    tau = rng.gamma(1 + len(rows.stored.targets) / 2) / (1 + float(rows.precision @ squares) / 2)
    cols.precision = draw(cols, _sum_squares(cols, rows))
    return tau


def run_chain(rows: Side, cols: Side, seed: int) -> Iterator[Sample]:
    """Yield the state after each sweep, for ever; equal seeds give equal bits, with any number of threads.

    Parameters
    ----------
    rows, cols : Side
        Where the chain starts; changed.
    seed : int
    """
    rng = np.random.default_rng(seed)
    tau = len(rows.stored.targets) / max(float(_sum_squares(rows, cols).sum()), 1.0)
    half = seed * _STREAM
    while True:
        with one_blas_thread():
            for side, other in ((cols, rows), (rows, cols)):
                draw_numbers(side, other, tau, half % 2**64, rng)
                half += 1
            tau = draw_noise(rows, cols, tau, rng)
        yield Sample((rows.numbers, cols.numbers), (rows.precision, cols.precision), tau)
