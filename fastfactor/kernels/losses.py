"""Losses: for one entry of value x and prediction p, the value L(x, p) and the derivative dL/dp.

A loss is two scalar kernels. Which one a sweep uses is part of its `Spec`, so the choice is made when the sweep is
compiled and costs nothing per entry.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.extending import overload

from fastfactor.kernels.compiling import kernel
from fastfactor.kernels.simd import StaticType


class Loss(NamedTuple):
    """A loss of one entry.

    Attributes
    ----------
    value : callable
        (x, p) -> L(x, p), real. The squared loss has no 1/2 here, so that its mean is the mean squared error.
    derivative : callable
        (x, p) -> the direction to descend: dL/dp, up to the factor 2 of the squared loss; for complex p the derivative
        with respect to the conjugate of p.
    """

    value: Any
    derivative: Any


@kernel
def squared_value(x, p):
    """Return |x - p|^2 (the objective J has half of it)."""
    e = x - p
    return e.real * e.real + e.imag * e.imag


@kernel
def squared_derivative(x, p):
    """Return -(x - p), the derivative of 1/2 |x - p|^2."""
    return p - x


LOSSES = {"squared": Loss(squared_value, squared_derivative)}


def value(static, x, p):
    """Return L(x, p) of the loss that `static` names."""
    return LOSSES[static.loss].value(x, p)


def derivative(static, x, p):
    """Return dL/dp of the loss that `static` names."""
    return LOSSES[static.loss].derivative(x, p)


@overload(value, inline="always")
def _value(static, x, p):
    if isinstance(static, StaticType):
        function = LOSSES[static.spec.loss].value
        return lambda static, x, p: function(x, p)
    return None


@overload(derivative, inline="always")
def _derivative(static, x, p):
    if isinstance(static, StaticType):
        function = LOSSES[static.spec.loss].derivative
        return lambda static, x, p: function(x, p)
    return None
