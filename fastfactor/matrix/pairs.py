"""The block grid for ranking by pairs: each positive is held against a column that its row has not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.rivals import Rivals
from fastfactor.kernels.sweep import sweep_stored
from fastfactor.kernels.update import Factors, Step
from fastfactor.matrix.grid import Grid, Making, build_grid
from fastfactor.matrix.inputs import Observations
from fastfactor.matrix.positives import Positives
from fastfactor.threads import launch


@dataclass(frozen=True)
class PairGrid(Grid):
    """A `Grid` whose entries are visited in pairs.

    Attributes
    ----------
    columns : (indices, starts, stops)
        The columns that each row has, as `Rivals` holds them.
    seed : int
        Of what is drawn.
    drawn : list of uint64
        The seed of the running epoch.
    """

    columns: tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]
    seed: int
    drawn: list[np.uint64] = field(default_factory=list, compare=False)

    @classmethod
    def of(cls, positives: Positives, seed: int) -> PairGrid:
        """Lay the positives out in blocks; weights, where they are not all 1, of mean 1."""
        stored = positives.sides[0]
        dtype, weights = stored.weights.dtype, stored.weights.astype(np.float64)
        observed = Observations(
            positives.shape, stored.indptr, stored.indices, np.ones(positives.n_entries, dtype), 1.0, 0.0
        )
        grid = build_grid(
            observed, Making(0.0, 1.0, dtype, seed), None if (weights == 1).all() else weights / weights.mean()
        )
        starts, stops = (stored.indptr[side][grid.row_order] for side in (slice(None, -1), slice(1, None)))
        return cls(**vars(grid), columns=(stored.indices, starts, stops), seed=seed)

    def begin_epoch(self, epoch: int, order: NDArray[np.int64]) -> None:
        """Choose what this epoch draws rivals by: it follows from seed and epoch alone."""
        self.drawn[:] = [np.uint64(np.random.default_rng([self.seed, 4, epoch]).integers(1 << 62))]

    def sweep(
        self, factors: Factors, diagonals: NDArray[np.int64], losses: NDArray[np.float64], step: Step, static: Any
    ) -> None:
        """Update on the pairs of some diagonals; see `Grid.sweep`."""
        rivals = Rivals(self.drawn[0], self.col_order, *self.columns)
        launch(sweep_stored, factors, self.blocks, rivals, diagonals, losses, step, static)
