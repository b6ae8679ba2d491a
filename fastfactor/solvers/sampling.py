"""Block Gibbs sampling of factors: each side drawn from its exact conditional, in turns, and the priors between them.

In standardised values, x_rc = s_r (a_r + b_c + U_r . V_c + noise). The numbers of a row (factor and offset) have the
prior N(B' f_r, S), with features f_r of the row and B, S drawn anew each sweep (Salakhutdinov and Mnih, ICML 2008).
What B has of the features of the pattern is N(0, S / alpha), with alpha drawn too (Simm and others, MLSP 2017): many of
them then do no harm where they say little. The noise of (r, c) has the precision tau t_r t_c, all drawn from gamma
distributions; log s_r is N(0, sigma^2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import one_blas_thread, pad
from fastfactor.kernels.posterior import CHUNKS, LANES, Conditional, draw_side, sum_moments
from fastfactor.kernels.ridge import Stored
from fastfactor.kernels.simd import Static
from fastfactor.threads import launch

Array = NDArray[Any]

_SPREAD = 0.1  # prior guess of the variance that the factors explain, in that of the values
_NOISE_WEIGHT = 20.0  # shape of the prior of t_r and t_c around 1: that of 40 entries
_SCALES = np.linspace(-1.2, 0.8, 21)  # values of log s_r, from 0.3 to 2.2
_SCALE_SPREAD, _SCALE_WEIGHT = 0.2, 10.0  # prior guess of sigma, and how many rows it counts for
N_PLAIN = 2  # first features of a row, of 1 and its count, whose coefficients are N(0, S)
_STREAM = 1_000_003  # seeds of two fits meet after that many half sweeps


@dataclass
class Side:
    """Rows or columns: their entries, and the state of the chain.

    Attributes
    ----------
    stored : Stored
        The entries, this side first; targets are standardised values.
    features : (n, n_features) float64 array
        Those after the first `N_PLAIN` are of the pattern.
    numbers : (n, rank + 1) float32 array
        Factor, then offset.
    precision : (n,) float32 array
        t_r, the precision of the noise against the average.
    scale : (n,) float32 array
        s_r; 1 for columns.
    alpha : float
        Precision of what B has of the pattern's features.
    gram : (n_features, n_features) float64 array
        Products of the features.
    """

    stored: Stored
    features: Array
    numbers: Array
    precision: Array
    scale: Array
    alpha: float = 1.0
    gram: Array = field(init=False)

    def __post_init__(self) -> None:
        with one_blas_thread():  # more would add up in another order
            self.gram = self.features.T @ self.features


@dataclass(frozen=True)
class Sample:
    """One sweep of the chain.

    Attributes
    ----------
    numbers : (n_rows, rank + 1), (n_cols, rank + 1) float32 arrays
        Drawn.
    expected : two pairs of such arrays
        Rows and columns of which one side is not drawn, but what it is on average given the other one.
    scale : (n_rows,) float32 array
    noise : (n_rows,), (n_cols,) float64 arrays
        The variance of the noise of an entry is the product of both.
    """

    numbers: tuple[Array, Array]
    expected: tuple[tuple[Array, Array], tuple[Array, Array]]
    scale: Array
    noise: tuple[Array, Array]


def draw_prior(side: Side, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw alpha; return a draw of the regression B (n_features, D) and a root of the covariance S (D, D).

    Given the numbers; alpha is drawn last, given both.
    """
    Y, F = side.numbers.astype(np.float64), side.features
    n, D = Y.shape
    ridge = np.ones(F.shape[1])
    ridge[N_PLAIN:] = side.alpha
    precision = side.gram + np.diag(ridge)
    B = np.linalg.solve(precision, F.T @ Y)
    E = Y - F @ B
    scatter = E.T @ E + (B.T * ridge) @ B + np.eye(D) * D * _SPREAD / np.sqrt(max(D - 1, 1))
    # S^-1 has the Wishart distribution of D + n degrees of freedom; Bartlett's decomposition.
    root = np.tril(rng.standard_normal((D, D)), -1)
    root[np.diag_indices(D)] = np.sqrt(rng.chisquare(D + n - np.arange(D)))
    X = np.linalg.cholesky(np.linalg.inv(scatter)) @ root
    L = np.linalg.cholesky(np.linalg.inv(X @ X.T))
    B += np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal(B.shape)) @ L.T
    white = np.linalg.solve(L, B[N_PLAIN:].T)
    side.alpha = rng.gamma(1 + white.size / 2) / (1 + float(np.sum(white**2)) / 2)
    return B, L


def _given(side: Side, other: Side, W: Array, own: Array) -> Conditional:
    stored, units = side.stored, [1 / side.scale, 1 / other.scale]
    offsets = np.ascontiguousarray(other.numbers[:, -1])
    known = stored.indptr, stored.indices, stored.targets, stored.starts
    return Conditional(*known, W, offsets, own, other.precision, *units)


def _widen(A: Array) -> Array:
    widened = np.zeros((len(A), pad(A.shape[1] + 1, LANES)), np.float32)
    widened[:, : A.shape[1]] = A
    return widened


def _design(other: Side) -> Array:
    """Return what the numbers of this side are multiplied by: the other's factor, and 1 for the offset."""
    design: Array = other.numbers.copy()
    design[:, -1] = 1
    return design


def draw_numbers(side: Side, other: Side, tau: float, seed: int, rng: np.random.Generator) -> Array:
    """Draw the numbers of one side, given those of the other, and return what they are on average."""
    B, L = draw_prior(side, rng)
    root = L.astype(np.float32)
    prior = _widen(side.features @ np.linalg.solve(L, B.T).T)
    given = _given(side, other, _widen(_design(other) @ root), (side.precision * tau).astype(np.float32))
    Z, means = np.zeros_like(prior), np.zeros_like(prior)
    launch(draw_side, given, prior, len(L), np.uint64(seed), Z, means, Static(CHUNKS))
    side.numbers = Z[:, : len(L)] @ root.T
    expected: Array = means[:, : len(L)] @ root.T
    return expected


def _sum_moments(side: Side, other: Side) -> Array:
    """Return of each row the sums of y y, y m and m m (`sum_moments`), weighted by the other side's precisions."""
    sums = np.zeros((len(side.numbers), 3))
    given = _given(side, other, _widen(_design(other)), side.precision)
    launch(sum_moments, given, _widen(side.numbers), sums, Static(CHUNKS))
    return sums


def _square(moments: Array, scale: Array) -> Array:
    """Return each row's sum of squared errors."""
    yy, ym, mm = moments.T
    squares: Array = np.maximum(yy / scale**2 - 2 * ym / scale + mm, 0)
    return squares


def draw_scale(side: Side, moments: Array, spread: float, tau: float, rng: np.random.Generator) -> float:
    """Draw each row's scale from a grid, given the numbers, and return a draw of sigma."""
    counts = np.diff(side.stored.indptr)[:, None]
    squares = np.stack([_square(moments, scale) for scale in np.exp(_SCALES)], axis=1)
    logs = -counts * _SCALES - tau / 2 * side.precision[:, None] * squares - (_SCALES / spread) ** 2 / 2
    chosen = _SCALES[np.argmax(logs + rng.gumbel(size=logs.shape), axis=1)]
    chosen += (rng.random(len(chosen)) - 0.5) * (_SCALES[1] - _SCALES[0])
    side.scale = np.exp(chosen).astype(np.float32)
    total = _SCALE_WEIGHT * _SCALE_SPREAD**2 + float(chosen @ chosen)
    return float(np.sqrt(total / rng.chisquare(_SCALE_WEIGHT + len(chosen))))


def _draw_precision(side: Side, squares: Array, tau: float, rng: np.random.Generator) -> None:
    counts = np.diff(side.stored.indptr)
    rates = _NOISE_WEIGHT + tau * squares / 2
    side.precision = (rng.gamma(_NOISE_WEIGHT + counts / 2) / rates).astype(np.float32)


def run_chain(rows: Side, cols: Side, seed: int) -> Iterator[Sample]:
    """Yield each sweep, for ever; equal seeds give equal bits, with any number of threads.

    Parameters
    ----------
    rows, cols : Side
        Where the chain starts; changed.
    seed : int
    """
    rng = np.random.default_rng(seed)
    n = len(rows.stored.targets)
    tau = n / max(float(_square(_sum_moments(rows, cols), rows.scale).sum()), 1.0)
    half, spread = seed * _STREAM, _SCALE_SPREAD
    while True:
        with one_blas_thread():
            before, scale = rows.numbers, rows.scale
            expected_cols = draw_numbers(cols, rows, tau, half % 2**64, rng)
            expected_rows = draw_numbers(rows, cols, tau, (half + 1) % 2**64, rng)
            half += 2
            moments = _sum_moments(rows, cols)
            spread = draw_scale(rows, moments, spread, tau, rng)
            squares = _square(moments, rows.scale)
            _draw_precision(rows, squares, tau, rng)
            tau = rng.gamma(1 + n / 2) / (1 + float(rows.precision @ squares) / 2)
            _draw_precision(cols, _square(_sum_moments(cols, rows), cols.scale), tau, rng)
        expected = (before, expected_cols), (expected_rows, cols.numbers)
        noise = rows.scale.astype(np.float64) ** 2 / (tau * rows.precision), 1 / cols.precision.astype(np.float64)
        yield Sample((rows.numbers, cols.numbers), expected, scale, noise)
