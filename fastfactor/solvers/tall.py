"""Tall matrices of few columns: inner products, rotations, signs. Sums do not depend on the number of threads.

The matrices are in C order and have a multiple of MOST_ROWS rows and of BLOCK columns; rows and columns of zeros at the
end change nothing. What belongs to k of their columns, such as T and values, is filled up with zeros.
A pool of Python threads around BLAS would do the same, but GNU OpenMP's workers spin on after each kernel and get in
its way: a few microseconds of work then took milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import pad
from fastfactor.kernels.basis import add_deviations, add_inner, find_pivots, rotate
from fastfactor.kernels.rows import MOST_ROWS, ROWS
from fastfactor.kernels.simd import Static
from fastfactor.matrix.operand import BLOCK, CHUNKS, LANES
from fastfactor.threads import launch, using_threads_for

Array = NDArray[Any]

WORTH_SHARING = 2e6  # multiplications for which a second thread, which may have to wake up, is worth it
N_PARTS = 16  # row slices; fixed, so that sums do not depend on the thread count


def fixed_parts(n_rows: int) -> NDArray[np.int64]:
    """Return the boundaries of at most N_PARTS slices of `n_rows` rows, multiples of MOST_ROWS all."""
    steps = n_rows // MOST_ROWS
    n_parts = min(N_PARTS, max(1, steps // 8))
    return MOST_ROWS * (np.arange(n_parts + 1) * steps // n_parts)


def pad_matrix(V: Array) -> Array:
    """Return V with rows of zeros up to a multiple of MOST_ROWS, and columns of zeros up to one of BLOCK."""
    wide = np.zeros((pad(len(V), MOST_ROWS), pad(V.shape[1], BLOCK)), V.dtype)
    wide[: len(V), : V.shape[1]] = V
    return wide


def chunks_of(block: int, dtype: np.dtype[Any]) -> tuple[Static, Static]:
    """Return in which chunks of columns rotations work: as wide as the machine has registers for, then of `block`."""
    width = 2 * block if ROWS == MOST_ROWS and dtype.kind == "f" else block
    return CHUNKS[width], CHUNKS[block]


def _share(work: float, kernel: Callable[..., Any], *args: Any) -> None:
    """Launch a kernel of that many multiplications, on one thread where a second is not worth it."""
    with using_threads_for(work, WORTH_SHARING):
        launch(kernel, *args)


def _fill_up(T: Array, V: Array) -> Array:
    """Return the square T with zeros up to the number of columns of V."""
    wide = np.zeros((V.shape[1], V.shape[1]), V.dtype)
    wide[: len(T), : len(T)] = T
    return wide


def widen(T: Array, dtype: np.dtype[Any]) -> Array:
    """Return T with columns of zeros up to a multiple of BLOCK, in that dtype."""
    wide = np.zeros((len(T), pad(T.shape[1], BLOCK)), dtype)
    wide[:, : T.shape[1]] = T
    return wide


def inner_products(V: Array, Z: Array, k: int) -> Array:
    """Return V^H Z of the first k columns of both."""
    starts = fixed_parts(len(V))
    C = np.zeros((len(starts) - 1, V.shape[1], pad(k, BLOCK)), V.dtype)
    _share(V.size * k, add_inner, V[None], 1, Z, starts, C, LANES)
    return np.asarray(C.sum(axis=0)[:k, :k])


def rotate_rows(U: Array, T: Array) -> None:
    """Replace U by U T."""
    starts = fixed_parts(len(U))
    tiles = np.zeros((len(starts) - 1, 1, ROWS, U.shape[1]), U.dtype)
    _share(U.size * len(T), rotate, U[None], 1, _fill_up(T, U), starts, tiles, *chunks_of(BLOCK, U.dtype))


def square_deviations(Z: Array, V: Array, values: Array) -> NDArray[np.float64]:
    """Return the squared norms of the columns of Z - V values, one value a column."""
    starts = fixed_parts(len(V))
    squares = np.zeros((len(starts) - 1, 1, V.shape[1]), V.dtype)
    wide = np.zeros((1, V.shape[1]), V.dtype)
    wide[0, : len(values)] = values
    _share(8 * V.size, add_deviations, Z, V, wide, starts, squares, LANES)
    return np.asarray(squares.sum(axis=(0, 1))[: len(values)].real)


def compute_phases(pivots: Array) -> Array:
    """Return the numbers of modulus 1 that make the pivots positive; 1 for a pivot of zero.

    The pivot of a singular vector is its largest entry, the first of equals. This is the one rule by which this package
    fixes the signs of singular vectors; it looks at the shorter side's.
    """
    sizes = np.abs(pivots)
    return np.asarray(np.where(sizes > 0.0, pivots.conj(), 1.0) / np.where(sizes > 0.0, sizes, 1.0))


def find_phases(V: Array) -> Array:
    """Return `compute_phases` of the columns of V."""
    starts = fixed_parts(len(V))
    pivots = np.zeros((len(starts) - 1, V.shape[1]), V.dtype)
    sizes = np.zeros(pivots.shape, V.real.dtype)
    _share(8 * V.size, find_pivots, V, starts, sizes, pivots)
    return compute_phases(pivots[sizes.argmax(axis=0), np.arange(V.shape[1])])


def fix_signs(V: Array, T: Array) -> Array:
    """Replace V by V T, with the columns of T times phases by which their pivots are positive; return that T."""
    T = T * find_phases(V)[: len(T)]
    rotate_rows(V, T)
    phases = find_phases(V)
    if np.any(phases != 1.0):  # T moved another entry to the top, or rounding did
        V *= phases
    return np.asarray(T * phases[: len(T)])
