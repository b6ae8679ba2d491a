"""Losses: for one entry of value x and prediction p, the value L(x, p) and the derivative dL/dp.

A loss is two scalar functions. Which one a sweep uses is part of its `Spec`, so the choice is made when the sweep is
compiled and costs nothing per entry. When to use which: docs/derivation.md, section 12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import is_jitted, overload

from fastfactor.kernels.compiling import FASTMATH, USER_LOSS, kernel
from fastfactor.kernels.simd import StaticType


def _identity(p: Any) -> Any:
    return p


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss of one entry; make one for a loss of your own and pass it as ``fit(loss=...)``.

    It is compiled into the same kernels as the built-in ones, once for each object and process (a few seconds); make it
    once, at the top of a module, and not for each fit.

    Attributes
    ----------
    value : callable
        (x, p) -> L(x, p), real, of two scalars: the value of an entry and its prediction. What `history` reports the
        mean of. (The squared loss has no 1/2 here, so that its mean is the mean squared error.)
    derivative : callable
        (x, p) -> dL/dp, what the fit descends along. Plain Python functions are compiled with Numba, compiled ones used
        as they are. Both see float32 numbers unless ``dtype="float64"``, so bare constants such as 0.5 cost some speed.
    link : callable, optional
        From an array of predictions p to what `predict` returns; a NumPy function, not compiled. By default p itself.
    name : str
        For messages and `Factorization.loss`.

    Raises
    ------
    TypeError
        If one of the functions is not callable.

    Examples
    --------
    Under-estimates cost three times as much as over-estimates, so that three quarters of the values lie below:

    >>> import numpy as np, fastfactor as ff
    >>> def value(x, p):
    ...     return 3 * (x - p) if x > p else p - x
    >>> def derivative(x, p):
    ...     return -3.0 if x > p else 1.0
    >>> X = np.random.default_rng(0).standard_normal((40, 30))
    >>> model = ff.fit(X, 1, loss=ff.Loss(value, derivative, name="upper quartile"), validation=False)
    >>> bool(0.6 < (X < model.reconstruct()).mean() < 0.9)
    True
    """

    value: Callable[..., Any]
    derivative: Callable[..., Any]
    link: Callable[[Any], Any] = field(default_factory=lambda: _identity)
    name: str = "custom"

    def __post_init__(self) -> None:
        for name in ("value", "derivative", "link"):
            function = getattr(self, name)
            if not callable(function):
                raise TypeError(f"{name} of a Loss must be callable, got {function!r}")
        for name in ("value", "derivative"):
            function = getattr(self, name)
            if not is_jitted(function) and not numba.config.DISABLE_JIT:
                object.__setattr__(self, name, numba.njit(function, fastmath=FASTMATH, error_model="numpy"))


class Traits(NamedTuple):
    """What a fit has to know about a loss besides its functions.

    Attributes
    ----------
    domain : {"numbers", "binary", "counts"}
        Values it is defined for (checked by matrix/domains.py).
    centre : {"mean", "median", "origin"}
        What standardises the values: mean and standard deviation; median and deviation from it; or nothing, in which
        case predictions are measured from the constant that fits best (solvers/standard.py).
    degree : float
        Where values are standardised: L(s x, s p) is s**degree L(x, p).
    longest : float
        Unit of predictions that is not exceeded where values are not standardised: with the logarithm as link, 1.
    pairs : bool
        Whether p is the difference of the predictions for two columns of a row, x being 1.
    """

    domain: str = "numbers"
    centre: str = "origin"
    degree: float = 2.0
    longest: float = float("inf")
    pairs: bool = False


class Place(NamedTuple):
    """Where predictions lie, for losses whose values are not standardised: p = origin + scale p'.

    Kernels get it as an array of these four, or None: a parallel loop takes no tuple within a tuple.

    Attributes
    ----------
    origin, scale : float
    slope, height : float
        Factors of the derivative and of the value, which give both the size that those of the squared loss have.
    """

    origin: Any
    scale: Any
    slope: Any
    height: Any


def like(p, number):
    """Return `number` in the type of `p`: a bare constant would turn float32 arithmetic into float64."""
    return type(p)(number)


@overload(like, inline="always")
def _like(p, number):
    dtype = p
    return lambda p, number: dtype(number)


@kernel
def squared_value(x, p):
    """Return |x - p|^2 (the objective J has half of it)."""
    e = p - x  # as the derivative has it, so that it is computed once
    return e.real * e.real + e.imag * e.imag


@kernel
def squared_derivative(x, p):
    """Return -(x - p), the derivative of 1/2 |x - p|^2."""
    return p - x


@kernel
def absolute_value(x, p):
    """Return |x - p|."""
    return abs(p - x)


@kernel
def absolute_derivative(x, p):
    """Return the sign of p - x, 0 at 0."""
    return np.sign(p - x)


@kernel
def huber_value(x, p):
    """Return e^2 where |e| <= 1, else 2 |e| - 1, with e = x - p in standardised units (twice Huber's own, as above)."""
    e = abs(p - x)
    one = like(e, 1)
    return e * e if e <= one else e + e - one


@kernel
def huber_derivative(x, p):
    """Return p - x, cut off at -1 and 1: the derivative of half the value."""
    e = p - x
    return e if abs(e) <= like(e, 1) else np.sign(e)


@kernel
def logistic_value(x, p):
    """Return -log of the probability of x, 0 or 1, whose log odds are p: log(1 + exp(p)) - x p, without overflow."""
    return max(p, like(p, 0)) + np.log1p(np.exp(-abs(p))) - x * p


@kernel
def logistic_derivative(x, p):
    """Return 1 / (1 + exp(-p)) - x."""
    one = like(p, 1)
    return one / (one + np.exp(-p)) - x


@kernel
def poisson_value(x, p):
    """Return x log(x / m) - x + m with the mean m = exp(p): Poisson's -log likelihood, 0 at best (generalised KL)."""
    zero = like(p, 0)
    constant = x * np.log(x) - x if x > zero else zero
    return np.exp(p) - x * p + constant


@kernel
def poisson_derivative(x, p):
    """Return exp(p) - x."""
    return np.exp(p) - x


def compute_probability(p):
    """Return 1 / (1 + exp(-p)) for an array, without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * p)


LOSSES = {
    "squared": Loss(squared_value, squared_derivative, _identity, "squared"),
    "absolute": Loss(absolute_value, absolute_derivative, _identity, "absolute"),
    "huber": Loss(huber_value, huber_derivative, _identity, "huber"),
    "logistic": Loss(logistic_value, logistic_derivative, compute_probability, "logistic"),
    "poisson": Loss(poisson_value, poisson_derivative, np.exp, "poisson"),
    "bpr": Loss(logistic_value, logistic_derivative, _identity, "bpr"),
}

TRAITS = {
    "squared": Traits("numbers", "mean", 2.0),
    "absolute": Traits("numbers", "median", 1.0),
    "huber": Traits("numbers", "median", 2.0),
    "logistic": Traits("binary"),
    "poisson": Traits("counts", longest=1.0),
    "bpr": Traits("binary", pairs=True),
}

LONGEST_STEP = 0.5  # of a prediction, per unit of squared factor length, for losses that are not standardised

_OWN: dict[str, Loss] = {}  # losses of the user's own, by the name that travels in a Spec


def register_loss(loss: Loss) -> str:
    """Return the name by which a `Spec` knows a loss of the user's own; the same for the same object."""
    for name, known in _OWN.items():
        if known is loss:
            return name
    name = f"{USER_LOSS}{len(_OWN)}"  # never in the disk cache: the number means another loss in the next process
    _OWN[name] = loss
    return name


def find_loss(name: str) -> Loss:
    """Return the loss that a `Spec` names."""
    return LOSSES[name] if name in LOSSES else _OWN[name]


def find_traits(name: str) -> Traits:
    """Return what a fit has to know about the loss that a `Spec` names."""
    return TRAITS.get(name, Traits())


def value(static, place, x, p):
    """Return L(x, p) of the loss that `static` names, at its place."""
    function = find_loss(static.loss).value
    return function(x, p) if place is None else function(x, place[0] + place[1] * p) * place[3]


def derivative(static, place, x, p):
    """Return dL/dp of the loss that `static` names, at its place."""
    function = find_loss(static.loss).derivative
    return function(x, p) if place is None else function(x, place[0] + place[1] * p) * place[2]


@overload(value, inline="always")
def _value(static, place, x, p):
    if not isinstance(static, StaticType):
        return None
    function = find_loss(static.spec.loss).value
    if isinstance(place, types.NoneType) and not static.spec.loss.startswith(USER_LOSS):
        return lambda static, place, x, p: function(x, p)
    dtype = p  # a function of the user's own may return another type
    if isinstance(place, types.NoneType):
        return lambda static, place, x, p: dtype(function(x, p))
    return lambda static, place, x, p: dtype(function(x, place[0] + place[1] * p)) * place[3]


@overload(derivative, inline="always")
def _derivative(static, place, x, p):
    if not isinstance(static, StaticType):
        return None
    function = find_loss(static.spec.loss).derivative
    if isinstance(place, types.NoneType) and not static.spec.loss.startswith(USER_LOSS):
        return lambda static, place, x, p: function(x, p)
    dtype = p
    if isinstance(place, types.NoneType):
        return lambda static, place, x, p: dtype(function(x, p))
    return lambda static, place, x, p: dtype(function(x, place[0] + place[1] * p)) * place[2]


def bounded(g, place):
    """Return the step `g`, cut off at half a unit where the loss has a `place`: a count of 1000 may ask for far more.

    Steps fall to zero over a fit, so towards its end nothing is cut off, and the minimum is that of the loss.
    """
    limit = like(g, LONGEST_STEP)
    return g if place is None or abs(g) <= limit else limit * np.sign(g)


@overload(bounded, inline="always")
def _bounded(g, place):
    if isinstance(place, types.NoneType):
        return lambda g, place: g
    return lambda g, place: g if abs(g) <= like(g, LONGEST_STEP) else like(g, LONGEST_STEP) * np.sign(g)


@kernel
def sum_at_constant(values, p, sums, static):
    """Write to `sums` the sums over `values` of the loss of predicting `p`, of its derivative, and of that squared."""
    sums[:] = 0
    for i in range(len(values)):
        slope = np.float64(derivative(static, None, values[i], p))
        sums[0] += np.float64(value(static, None, values[i], p))
        sums[1] += slope
        sums[2] += slope * slope
