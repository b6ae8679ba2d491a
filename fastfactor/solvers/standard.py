"""The units of a fit: what values are shifted and scaled by, and where predictions lie (docs/derivation.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fastfactor.kernels.losses import LOSSES, Place, find_traits, sum_at_constant
from fastfactor.kernels.simd import Spec, Static

_SAMPLE = 200_000  # values that decide about units
_NORMAL = 1.4826  # standard deviation of normal numbers over the median of their moduli
_DOUBLINGS = 200
_LOOKS = 65  # values at which the growth of a derivative is looked at
_DISTANCES = (-1000.0, -100.0, -10.0, -1.0, 1.0, 10.0, 100.0, 1000.0)  # of predictions from the origin, in units
_GENTLE = 4.0  # times the slope of the squared loss's derivative: steps of a tenth do not yet overshoot
_CHANGE = 0.1  # of the derivative, over its root mean square, that a difference must see to count as a curvature


@dataclass(frozen=True)
class Standard:
    """The units of the fit: predictions are shift + scale p', and the loss is measured in units of `loss_unit`.

    Attributes
    ----------
    shift, scale : number
        Of predictions.
    curvature : float
        Of the loss, on average near the best constant: 1 for the squared loss.
    labels : (number, number)
        What is stored for the value x is (x - labels[0]) / labels[1].
    place : Place or None
        What turns a p' into the prediction that the loss sees; None where values are shifted and scaled like p'.
    baseline : float
        Mean loss of predicting `shift`, in units of `loss_unit`.
    level : number
        What the first predictions are about: the mean of the standardised values.
    gentle : bool
        Whether steps need no cut-off, as the derivative grows no faster than that of a squared loss.
    """

    shift: Any
    scale: float
    curvature: float = 1.0
    labels: tuple[Any, float] = (0.0, 1.0)
    place: Place | None = None
    baseline: float = 1.0
    level: Any = 0.0
    gentle: bool = False

    @property
    def penalty_unit(self) -> float:
        """L2 penalties (and reciprocal step sizes) in the user's units, over those in the fit's."""
        return self.curvature * self.scale

    @property
    def l1_unit(self) -> float:
        """L1 penalties in the user's units, over those in the fit's."""
        return self.curvature * self.scale * self.scale**0.5  # inf where **1.5 would raise

    @property
    def loss_unit(self) -> float:
        """Losses in the user's units, over those in the fit's."""
        return self.curvature * self.scale * self.scale  # inf where ** would raise

    def weighted(self, mean: float) -> Standard:
        """Return the units for losses weighted by weights of that mean, which are divided by it."""
        return replace(self, curvature=self.curvature * mean)

    @classmethod
    def of_moments(cls, shift: Any, scale: float, mean: Any) -> Standard:
        """Return the units of the squared loss: values, of mean `mean`, are shifted and scaled like predictions."""
        return cls(shift, scale, labels=(shift, scale), level=(mean - shift) / scale)

    def apply(self, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return what is stored for `values`."""
        return ((values - self.labels[0]) / self.labels[1]).astype(dtype)

    def place_in(self, dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """Return the place as an array of the type that the kernels compute in."""
        if self.place is None:
            return None
        with np.errstate(over="ignore"):
            place = np.array(self.place, dtype)
        if not np.isfinite(place).all():
            raise ValueError(f"X has values out of the range in which its loss is computed in {dtype}: rescale them")
        return place


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    """Return every n-th value, so that few enough are left."""
    return values[:: max(1, len(values) // _SAMPLE)]


class _Constants:
    """The mean loss, as a function of the one number that is predicted for all values."""

    def __init__(self, loss: str, values: NDArray[Any]) -> None:
        self.values, self.static = values.astype(np.float64), Static(Spec(8, True, loss, False))
        self.sums = np.empty(3)

    def look(self, p: float) -> tuple[float, float, float]:
        """Return the mean of the loss, of its derivative, and the root mean square of that."""
        sum_at_constant(self.values, float(p), self.sums, self.static)
        value, slope, square = self.sums / len(self.values)
        return float(value), float(slope), float(np.sqrt(square))

    def slope(self, p: float) -> float:
        """Return the mean of the derivative."""
        return self.look(p)[1]

    def best(self) -> float:
        """Return the constant at which the mean derivative changes its sign."""
        at_zero, width = self.slope(0.0), 1.0
        if at_zero == 0:
            return 0.0
        for _ in range(_DOUBLINGS):
            end = -width if at_zero > 0 else width
            if self.slope(end) * at_zero <= 0:
                return float(brentq(self.slope, min(0.0, end), max(0.0, end), xtol=1e-9 * width))
            width *= 2
        raise ValueError(
            "loss has no minimum for X: the mean derivative has the same sign at every constant prediction"
        )

    def curvature(self, p: float, size: float) -> float:
        """Return the growth of the mean derivative per unit of p, over a distance where it shows; else 0."""
        step = 1e-4 * (1 + abs(p))
        for _ in range(_DOUBLINGS):
            change = self.slope(p + step) - self.slope(p - step)
            if change >= _CHANGE * size:
                return change / (2 * step)
            step *= 2
        return 0.0


def _is_gentle(loss: str, values: NDArray[Any], place: Place) -> bool:
    """Whether the derivative, in units of the fit, grows no faster than a few times that of the squared loss.

    Seen at the smallest, the largest and some other values, for predictions up to a thousand units from the origin.
    """
    few = np.sort(values)[np.linspace(0, len(values) - 1, _LOOKS).astype(np.int64)]
    at_origin = np.array([_Constants(loss, few[i : i + 1]).slope(place.origin) for i in range(len(few))])
    for distance in _DISTANCES:
        p = place.origin + place.scale * distance
        slopes = np.array([_Constants(loss, few[i : i + 1]).slope(p) for i in range(len(few))])
        if not (np.abs(slopes - at_origin) * place.slope <= _GENTLE * abs(distance)).all():  # also when it is NaN
            return False
    return True


def _standardise_at_origin(loss: str, values: NDArray[Any], centred: bool, labels: tuple[Any, float]) -> Standard:
    """Measure predictions from the best constant, in steps in which the loss has the size of a squared one.

    With slopes g of root mean square G at the origin and curvature k, that step is G / k: the standard deviation of the
    values for the squared loss, and 1 / sqrt(k) for a likelihood.
    """
    constants = _Constants(loss, values)
    origin = constants.best() if centred else 0.0
    value, _, size = constants.look(origin)
    curvature = constants.curvature(origin, size) if size > 0 else 0.0
    if not (np.isfinite(value) and np.isfinite(size)):
        raise ValueError(
            f"loss is {value} on average, and its derivative {size}, where {origin:.3g} is predicted for X"
        )
    scale = min(size / curvature if curvature > 0 else 1.0, find_traits(loss).longest)
    curvature = (size or 1.0) / scale
    place = Place(origin, scale, 1 / (curvature * scale), 1 / (curvature * scale**2))
    gentle = loss not in LOSSES and _is_gentle(loss, constants.values, place)
    return Standard(origin, scale, curvature, labels, place, value * place.height, gentle=gentle)


def _standardise_robustly(loss: str, values: NDArray[Any], centred: bool) -> Standard:
    """Shift and scale by medians, which a few huge values do not move."""
    shift = float(np.median(values)) if centred else 0.0
    sizes = np.abs(values - shift)
    scale = _NORMAL * float(np.median(sizes)) or float(np.mean(sizes)) or 1.0
    baseline = _Constants(loss, (values - shift) / scale).look(0.0)[0]
    curvature = float(np.float64(scale) ** (find_traits(loss).degree - 2))  # inf where a float would raise
    return Standard(shift, scale, curvature, (shift, scale), None, baseline)


def standardise(loss: str, values: NDArray[Any], centred: bool, labels: tuple[Any, float] = (0.0, 1.0)) -> Standard:
    """Return the units for a loss other than the squared one.

    Parameters
    ----------
    loss : str
        As a `Spec` names it.
    values : (n,) real array
        All values that count.
    centred : bool
        Whether values may be shifted, and predictions measured from a constant other than 0.
    labels : (number, number)
        What the check of the loss's domain found: shift and scale of the values, for binary ones.
    """
    values = _sample(values).astype(np.float64)
    if find_traits(loss).centre == "median":
        return _standardise_robustly(loss, values, centred)
    return _standardise_at_origin(loss, (values - labels[0]) / labels[1], centred, labels)
