"""Factor matrices in memory: padded to a compiled width, each row on a cache line of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import aligned_empty
from fastfactor.kernels.simd import Spec
from fastfactor.kernels.update import Factors

# A row of up to 128 numbers is one Vec of the next of these lengths; longer ones are walked in several of the last few.
WIDTHS = (8, 16, 32, 48, 64, 80, 96, 112, 128)
_CHUNKS = WIDTHS[4:]


def choose_spec(rank: int, *, biases: bool, loss: str = "squared") -> tuple[Spec, int]:
    """Return what to compile for `rank`, and the padded length of a factor row."""
    if rank <= WIDTHS[-1]:
        lanes = next(width for width in WIDTHS if width >= rank)
        return Spec(lanes, True, loss, biases), lanes
    width, lanes = min((-(-rank // lanes) * lanes, -lanes) for lanes in _CHUNKS)
    return Spec(-lanes, False, loss, biases), width


def _draw(n: int, rank: int, width: int, dtype: Any, scale: float, rng: np.random.Generator) -> NDArray[Any]:
    """Return numbers with mean 0 and variance scale^2: uniform, which takes a quarter of the time of normal ones."""
    M = aligned_empty((n, width), dtype)
    if M.dtype.kind == "c":
        real, imag = rng.random((2, n, rank)) - 0.5
        M[:, :rank] = (real + 1j * imag) * (scale * np.sqrt(6))
    else:
        real = M.dtype.type
        M[:, :rank] = rng.random((n, rank), dtype=real)
        M[:, :rank] -= real(0.5)
        M[:, :rank] *= real(scale * np.sqrt(12))
    M[:, rank:] = 0
    return M


def draw_factors(
    shape: tuple[int, int], rank: int, width: int, dtype: Any, spread: float, seed: int, level: complex = 0.0
) -> Factors:
    """Return random factors whose products U_r V_c^H have mean `level`, standard deviation `spread`; biases of zero."""
    rng = np.random.default_rng([seed, 1])
    scale = np.sqrt(spread) / rank**0.25
    U = _draw(shape[0], rank, width, dtype, scale, rng)
    V = _draw(shape[1], rank, width, dtype, scale, rng)
    root = abs(level) ** 0.5
    if root:
        U[:, 0] += U.dtype.type(level / root)
        V[:, 0] += V.dtype.type(root)
    return Factors(U, V, np.zeros(shape[0], dtype), np.zeros(shape[1], dtype))


def make_nonnegative(factors: Factors, sides: tuple[bool, bool]) -> Factors:
    """Return the factors, those of rows and of columns replaced by their moduli where `sides` says so."""
    for M, wanted in zip((factors.U, factors.V), sides, strict=True):
        if wanted:
            np.abs(M, out=M)
    return factors


def copy_factors(source: Factors, target: Factors | None = None) -> Factors:
    """Copy into `target`, or into new memory."""
    if target is None:
        U, V = (aligned_empty(M.shape, M.dtype) for M in (source.U, source.V))
        target = Factors(U, V, np.empty_like(source.row_bias), np.empty_like(source.col_bias))
    for old, new in zip(source, target, strict=True):
        np.copyto(new, old)
    return target


def restore_order(M: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy of `M` in the order of the matrix: what stands at p goes to order[p]."""
    out = np.empty(M.shape, M.dtype)
    out[order] = M
    return out
