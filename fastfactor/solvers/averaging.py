"""What is kept of the sweeps of a chain: their mean as one product of bounded rank, a few draws, and the noise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import one_blas_thread
from fastfactor.solvers.sampling import Sample

Array = NDArray[Any]

_WIDTH = 2  # rank that the running mean is cut to, in ranks of a sample
_ROOM = 6  # rank at which it is cut, in the same
_SLICE = 1 << 16  # rows at a time in float64
_LEAST = 1e-12  # eigenvalues of a Gram matrix below this share of the largest are noise


def compress(U: Array, V: Array, rank: int) -> tuple[Array, Array]:
    """Return factors with `rank` columns whose product is nearest to U V'.

    By way of the small Gram matrices, in float64: QR took half the time of a fit with 300,000 columns, and what squares
    lose is less than single precision has.
    """
    with one_blas_thread():  # more would add up in another order
        (S, left_scale), (R, right_scale) = _factor_gram(U), _factor_gram(V)
        left, s, right = np.linalg.svd(S @ R.T, full_matrices=False)
        roots = np.sqrt(s[:rank])
        left, right = left_scale @ (left[:, :rank] * roots), right_scale @ (right[:rank].T * roots)
        factors = U @ left.astype(np.float32), V @ right.astype(np.float32)
    missing = ((0, 0), (0, max(rank - len(roots), 0)))
    return np.pad(factors[0], missing), np.pad(factors[1], missing)


def _factor_gram(U: Array) -> tuple[Array, Array]:
    """Return S and T for which U T has orthonormal columns, and U = U T S but for what is lost in rounding."""
    parts = (U[i : i + _SLICE].astype(np.float64) for i in range(0, len(U), _SLICE))
    values, W = np.linalg.eigh(sum(part.T @ part for part in parts))
    kept = values >= _LEAST * values[-1]
    roots, W = np.sqrt(np.maximum(values[kept], 1e-300)), W[:, kept]
    return (W * roots).T, W / roots


class Average:
    """The mean of s_r (a_r + b_c + U_r . V_c) over sweeps.

    Each sweep counts twice: with the rows that are expected given its columns, and with the columns that were expected
    given the rows before. Means over what is expected have less noise than those over draws (Rao and Blackwell).

    Attributes
    ----------
    row_bias, col_bias, row_noise, col_noise : (n_rows,), (n_cols,) float64 arrays
        Means; the variance of an entry's noise is the product of both.
    row_draws : (n_rows, n_draws, rank + 2) float16 array
    col_draws : (n_cols, n_draws, rank + 1) float16 array
        s (U, a, 1) and (V, b) of some sweeps.
    """

    def __init__(self, sweeps: Iterable[Sample], n_sweeps: int, n_draws: int) -> None:
        self._left: list[Array] = []
        self._right: list[Array] = []
        self._n_sweeps = n_sweeps
        kept = set(np.linspace(0, n_sweeps - 1, n_draws).round().astype(int).tolist())
        draws: list[tuple[Array, Array]] = []
        sums: tuple[Any, Any, Any, Any] = (0.0, 0.0, 0.0, 0.0)
        for i, sample in enumerate(sweeps):
            biases = self._add(sample)
            sums = tuple(total + part for total, part in zip(sums, (*biases, *sample.noise), strict=True))
            if i in kept:
                s, (R, C) = sample.scale[:, None], sample.numbers
                draws.append((np.hstack([s * R, s]).astype(np.float16), C.astype(np.float16)))
        self.row_bias, self.col_bias, self.row_noise, self.col_noise = (total / n_sweeps for total in sums)
        self.row_draws, self.col_draws = (np.stack(side, axis=1) for side in zip(*draws, strict=True))

    def _add(self, sample: Sample) -> tuple[Array, Array]:
        """Add a sweep to the mean product; return its mean offsets."""
        s = sample.scale[:, None]
        for R, C in sample.expected:
            self._left.append(np.hstack([s * R[:, :-1], s - 1]))
            self._right.append(C)
        if sum(A.shape[1] for A in self._left) >= _ROOM * C.shape[1]:
            self._cut(_WIDTH * C.shape[1])
        rows, cols = (np.mean([pair[i][:, -1] for pair in sample.expected], axis=0) for i in (0, 1))
        return sample.scale * np.asarray(rows, np.float64), np.asarray(cols, np.float64)

    def _cut(self, rank: int) -> None:
        U, V = compress(np.hstack(self._left), np.hstack(self._right), rank)
        self._left, self._right = [U], [V]

    def blend(self, U: Array, V: Array, share: float, rank: int) -> tuple[Array, Array]:
        """Return factors of `rank` columns for `share` of the mean and the rest of U V'."""
        root = np.float32((share / (2 * self._n_sweeps)) ** 0.5)
        rest = np.float32((1 - share) ** 0.5)
        left = np.hstack([*(root * A for A in self._left), rest * U])
        return compress(left, np.hstack([*(root * A for A in self._right), rest * V]), rank)
