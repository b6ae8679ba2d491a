"""How a model was fitted, as far as new rows have to know: kept with the model, in the units of the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.losses import Place
from fastfactor.options import Options
from fastfactor.solvers.schedule import FREQUENCY_POWER, compute_frequency_factor
from fastfactor.solvers.standard import Standard


@dataclass(frozen=True)
class Recipe:
    """What new data are fitted with. The defaults fit a model that was put together by hand.

    Attributes
    ----------
    unobserved : str
    biases : bool
    shift, scale, curvature, labels, place, baseline
        Of `Standard`.
    regularization, l1_regularization, nonnegative : pairs
        As `fit` takes them: of rows and of columns, in the user's units; where each row had its own penalty the mean.
    power, factor : float
        A row with n entries has its penalty times `factor * n**-power`.
    others : float
        Weight of what is not stored.
    """

    unobserved: str = "missing"
    biases: bool = True
    shift: Any = 0.0
    scale: float = 1.0
    curvature: float = 1.0
    labels: tuple[Any, float] = (0.0, 1.0)
    place: tuple[float, ...] | None = None
    baseline: float = 1.0
    regularization: tuple[float, float] = (0.0, 0.0)
    l1_regularization: tuple[float, float] = (0.0, 0.0)
    nonnegative: tuple[bool, bool] = (False, False)
    power: float = 0.0
    factor: float = 1.0
    others: float = 0.0

    @classmethod
    def of(
        cls, unobserved: str, options: Options, standard: Standard, penalty: Any, weight: float = 1.0, others: float = 0
    ) -> Recipe:
        """Return the recipe of a fit with these penalties of rows and columns, each a number or an array.

        `weight` is the mean weight of the entries; those of new data weigh 1.
        """
        return cls(
            unobserved,
            options.biases,
            standard.shift,
            standard.scale,
            standard.curvature / weight,
            tuple(standard.labels),
            None if standard.place is None else tuple(map(float, standard.place)),
            standard.baseline,
            (float(np.mean(penalty[0])), float(np.mean(penalty[1]))),
            options.l1_penalty,
            options.nonnegative,
            others=others,
        )

    @property
    def standard(self) -> Standard:
        """The units of the fit."""
        place = None if self.place is None else Place(*self.place)
        return Standard(self.shift, self.scale, self.curvature, self.labels, place, self.baseline)

    @property
    def l1(self) -> float:
        """L1 penalty of a row per entry, in the units of the fit."""
        return self.l1_regularization[0] / self.standard.l1_unit

    def scaled_by_frequency(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        """Return this recipe with a penalty that falls with the number of entries, as `weigh_by_frequency` has it."""
        return asdict(self) | {"power": FREQUENCY_POWER, "factor": compute_frequency_factor(counts)}

    def penalise(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the L2 penalty per entry of rows with so many entries, in the units of the fit."""
        penalty = self.regularization[0] / self.standard.penalty_unit
        return np.asarray(penalty * self.factor * np.maximum(counts, 1.0) ** -self.power, np.float64)

    @classmethod
    def read(cls, recipe: Mapping[str, Any], has_biases: bool) -> Recipe:
        """Return what a model keeps; for one that keeps nothing the defaults."""
        return cls(**recipe) if recipe else cls(biases=has_biases)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)


def _are_pair(value: Any, is_part: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(is_part, value))


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "unobserved": lambda value: value in ("missing", "zero", "weak"),
    "biases": lambda value: isinstance(value, bool),
    "shift": lambda value: _is_real(value) or isinstance(value, complex | np.complexfloating),
    "scale": lambda value: _is_real(value) and 0 < value < np.inf,
    "labels": lambda value: _are_pair(value, _is_real),
    "place": lambda value: value is None or (len(value) == len(Place._fields) and all(map(_is_real, value))),
    "regularization": lambda value: _are_pair(value, _is_real),
    "l1_regularization": lambda value: _are_pair(value, _is_real),
    "nonnegative": lambda value: _are_pair(value, lambda part: isinstance(part, bool)),
    **dict.fromkeys(("curvature", "baseline", "power", "factor", "others"), _is_real),
}


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Raise a ValueError or TypeError if what a model keeps is no recipe."""
    for name, value in recipe.items():
        if name not in _CHECKS or not _CHECKS[name](value):
            raise ValueError(f"{name} is {str(value)[:100]!r}")
