"""How large the numbers of a matrix are: what its passes are scaled by, and whether they are numbers at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.dense import find_largest_bits
from fastfactor.threads import launch

Array = NDArray[Any]

_SLICES = 16
_SHORT = 1 << 14  # fewer numbers are not worth a launch
_BITS = {"f": np.uint32, "d": np.uint64}


def power_of_two(size: float, harmless: int = 100) -> float:
    """Return the power of two that brings `size` to [1/2, 1); 1 where its exponent is harmless.

    Up to 100, squares of squares are numbers in double precision. Passes in single precision have no such room.
    """
    exponent = int(np.frexp(size)[1])
    return 1.0 if size == 0.0 or abs(exponent) <= harmless else float(2.0 ** -max(min(exponent, 1000), -1000))


def check_finite(size: float) -> None:
    """Raise a ValueError if the largest magnitude is not finite."""
    if not np.isfinite(size):
        raise ValueError("A must not contain infinities or NaNs")


def find_largest(values: Array) -> float:
    """Return the largest magnitude; not finite when any value is not."""
    if values.size == 0:
        return 0.0
    if values.dtype.kind == "c":
        return float(np.maximum(find_largest(values.real), find_largest(values.imag)))  # NaN of either
    is_whole = (values.flags.c_contiguous or values.flags.f_contiguous) and values.dtype.isnative
    if values.size < _SHORT or values.dtype.char not in _BITS or not is_whole:
        return max(float(values.max()), -float(values.min()))
    bits = values.ravel(order="K").view(_BITS[values.dtype.char])
    starts, found = np.arange(_SLICES + 1) * len(bits) // _SLICES, np.empty(_SLICES, bits.dtype)
    launch(find_largest_bits, bits, bits.dtype.type(np.iinfo(bits.dtype).max >> 1), starts, found)
    return float(found.view(values.dtype).max())
