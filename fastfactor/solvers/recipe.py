"""How a model was fitted, as far as new rows have to know: kept with the model, in the units of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.solvers.schedule import FREQUENCY_POWER, compute_frequency_factor
from fastfactor.solvers.standard import Standard


@dataclass(frozen=True)
class Recipe:
    """What new rows are fitted with. The defaults fit a model that was put together by hand.

    Attributes
    ----------
    unobserved : str
    biases : bool
    shift, scale, labels, place
        Of `Standard`.
    penalty : float
        L2, of a row, per entry (for implicit feedback per unit of weight), for standardised values.
    power, factor : float
        A row with n entries has `penalty * factor * n**-power`.
    l1, least : float
        L1 penalty of a row per entry, and the least that its numbers may be.
    others : float
        Weight of what is not stored.
    """

    unobserved: str = "missing"
    biases: bool = True
    shift: Any = 0.0
    scale: float = 1.0
    labels: tuple[Any, float] = (0.0, 1.0)
    place: tuple[float, ...] | None = None
    penalty: float = 0.0
    power: float = 0.0
    factor: float = 1.0
    l1: float = 0.0
    least: float = -np.inf
    others: float = 0.0

    @classmethod
    def of(
        cls,
        unobserved: str,
        options: Any,
        standard: Standard,
        penalty: Any,
        *,
        weight: float = 1.0,
        others: float = 0.0,
    ) -> Recipe:
        """Return the recipe of a fit.

        Parameters
        ----------
        penalty : float or array
            L2 of rows, in the user's units; of an array the mean counts.
        weight : float
            Mean weight of the entries of the fit; those of new rows weigh 1.
        """
        return cls(
            unobserved,
            options.biases,
            standard.shift,
            standard.scale,
            tuple(standard.labels),
            None if standard.place is None else tuple(map(float, standard.place)),
            float(np.mean(penalty)) / standard.penalty_unit * weight,
            l1=options.l1_penalty[0] / standard.l1_unit * weight,
            least=0.0 if options.nonnegative[0] else -np.inf,
            others=others,
        )

    def scaled_by_frequency(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        """Return this recipe with a penalty that falls with the number of entries, as `weigh_by_frequency` has it."""
        return asdict(self) | {"power": FREQUENCY_POWER, "factor": compute_frequency_factor(counts)}

    def penalise(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the L2 penalty per entry of rows with so many entries."""
        return np.asarray(self.penalty * self.factor * np.maximum(counts, 1.0) ** -self.power, np.float64)

    @classmethod
    def read(cls, recipe: Mapping[str, Any], has_biases: bool) -> Recipe:
        """Return what a model keeps; for one that keeps nothing the defaults."""
        return cls(**recipe) if recipe else cls(biases=has_biases)
