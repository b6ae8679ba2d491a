"""Which values a loss is defined for, checked with the first offender named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.matrix.inputs import Observations

Locate = Callable[[int], tuple[int, int]]


def locate_in(X: Observations) -> Locate:
    """Return the function from the number of a stored entry to its row and column."""
    return lambda i: (int(np.searchsorted(X.indptr, i, side="right")) - 1, int(X.indices[i]))


def _check_binary(values: NDArray[Any], locate: Locate, name: str) -> tuple[float, float]:
    low, high = values.min(), values.max()
    other = np.flatnonzero((values != low) & (values != high))
    if other.size:
        row, col = locate(int(other[0]))
        raise ValueError(
            f"{name}[{row}, {col}] is {values[other[0]]}, beside {low} and {high}: loss='logistic' needs "
            "exactly two values"
        )
    if low == high:
        raise ValueError(f"{name} holds {low} only: loss='logistic' needs exactly two values")
    return float(low), float(high) - float(low)


def _check_counts(values: NDArray[Any], locate: Locate, name: str) -> tuple[float, float]:
    negative = np.flatnonzero(values < 0)
    if negative.size:
        row, col = locate(int(negative[0]))
        raise ValueError(f"{name}[{row}, {col}] is {values[negative[0]]}: loss='poisson' needs values of at least 0")
    if not values.any():
        raise ValueError(f"{name} holds {values[0]} only: loss='poisson' needs some value above 0")
    return 0.0, 1.0


_CHECKS = {"binary": _check_binary, "counts": _check_counts}


def check_domain(domain: str, values: NDArray[Any], locate: Locate, name: str = "X") -> tuple[float, float]:
    """Return (shift, scale), such that the loss is defined for (values - shift) / scale.

    Parameters
    ----------
    domain : {"numbers", "binary", "counts"}
        See `losses.Traits`.
    values : (n,) array
    locate : callable
        From a position in `values` to (row, column).
    name : str
        Of the argument, for messages.

    Raises
    ------
    TypeError
        For complex values.
    ValueError
        Naming the value and where it stands.
    """
    if values.dtype.kind == "c":
        raise TypeError(f"{name} is complex: only loss='squared' is defined for complex values")
    return _CHECKS[domain](values, locate, name) if domain in _CHECKS else (0.0, 1.0)


def check_labels(labels: tuple[float, float], values: NDArray[Any], locate: Locate, name: str) -> None:
    """Raise ValueError unless each value is one of the two that `labels`, a shift and a scale, turn into 0 and 1."""
    known = labels[0], labels[0] + labels[1]
    other = np.flatnonzero((values != known[0]) & (values != known[1]))
    if other.size:
        row, col = locate(int(other[0]))
        raise ValueError(f"{name}[{row}, {col}] is {values[other[0]]}, but X holds {known[0]} and {known[1]}")
