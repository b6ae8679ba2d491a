"""The plain face of `simd`: the same functions as array code, for where there are no vectors, or to check each index.

What these docstrings say holds for the intrinsics too.
"""

from __future__ import annotations

import numpy as np

from fastfactor.kernels.compiling import DEBUG, kernel


@kernel
def check(M, row, chunk, static):
    """Raise IndexError, with FASTFACTOR_DEBUG=1, where chunk `chunk` of that row is not in M."""
    if DEBUG and not (0 <= row < M.shape[0] and chunk >= 0 and (chunk + 1) * static.lanes <= M.shape[1]):
        raise IndexError("a kernel left its factor matrix")


@kernel
def load(M, row, chunk, static):
    """Return chunk `chunk` of row `row` of the C-contiguous matrix `M` (chunk 0 is the row when it is whole)."""
    check(M, row, chunk, static)
    return M[row, chunk * static.lanes : (chunk + 1) * static.lanes].copy()


@kernel
def store(M, row, chunk, v, static):
    """Write `v` back to where `load` found it."""
    check(M, row, chunk, static)
    M[row, chunk * static.lanes : (chunk + 1) * static.lanes] = v


@kernel
def prefetch(M, row, chunk, static):
    """Ask for the row's cache lines ahead of their use; the address need not be valid."""


@kernel
def conj(v):
    """Return the complex conjugate of a Vec or a scalar, `v` itself when it is real."""
    return np.conj(v)


@kernel
def maximum(v, s):
    """Return the larger of each lane of a real Vec (or of a scalar) and the scalar `s`; NaN where the lane is."""
    return np.maximum(v, s)


@kernel
def total(v):
    """Return the sum over the lanes, in the Vec's own dtype."""
    return v.sum()


@kernel
def zeros(M, static):
    """Return a Vec of zeros in the dtype of `M`."""
    return np.zeros(static.lanes, M.dtype)
