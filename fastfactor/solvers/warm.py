"""Where a fit starts when it is given a model: the model's factors, in the units and the order of the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.update import Factors
from fastfactor.solvers.standard import Standard


@dataclass(frozen=True)
class Start:
    """Factors to start from, in the user's order and units.

    Attributes
    ----------
    U, V : (n_rows, rank), (n_cols, rank) arrays
    row_bias, col_bias : (n_rows,), (n_cols,) arrays
    mean : number
    """

    U: NDArray[Any]
    V: NDArray[Any]
    row_bias: NDArray[Any]
    col_bias: NDArray[Any]
    mean: Any

    def write(self, factors: Factors, orders: tuple[NDArray[Any], NDArray[Any]], standard: Standard) -> None:
        """Overwrite the drawn `factors` of the rows and columns that this start knows.

        Parameters
        ----------
        factors : Factors
            In the order and the units of the fit; their biases are zero. Changed.
        orders : (row_order, col_order)
            Factor row p belongs to matrix row row_order[p].
        standard : Standard
            The difference of the means goes to the biases of the known rows.
        """
        rank, scale = self.U.shape[1], standard.scale
        for own, target, order in ((self.U, factors.U, orders[0]), (self.V, factors.V, orders[1])):
            known = np.flatnonzero(order < len(own))
            target[known, :rank] = own[order[known]] / scale**0.5
        row_bias = self.row_bias + (self.mean - standard.shift)
        for bias, target, order in (
            (row_bias, factors.row_bias, orders[0]),
            (self.col_bias, factors.col_bias, orders[1]),
        ):
            known = np.flatnonzero(order < len(bias))
            target[known] = bias[order[known]] / scale
