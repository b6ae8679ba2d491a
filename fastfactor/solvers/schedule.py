"""Step sizes and penalties, in the units of standardised values (mean 0, mean square 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The step falls to zero, so the first one matters little: from 0.03 to 0.1 the error moves by less than the choice of
# penalty does (docs/performance.md).
AUTO_LEARNING_RATE = 0.05
AUTO_EPOCHS = 40
FALL = 3  # the power with which it falls; with a square the middle epochs come out behind (docs/performance.md)
SPREAD = 0.02  # of the first predictions about their mean: the most that it is
_LEAST_SPREAD = 0.001
_RESERVE = 14.0  # times the growth from the first predictions that there must be room for (docs/performance.md)
_WEAK = 0.25  # correlation of values with the direction that is learned first, where it is hard to learn


def count_epochs_of_all(shape: tuple[int, int]) -> int:
    """Return how many epochs a fit of every entry takes to come within 1 % of the optimal error.

    A factor row is averaged from as many entries an epoch as the matrix is long the other way, so short sides need more
    epochs (docs/performance.md).
    """
    return min(max(AUTO_EPOCHS, 100_000 // min(shape)), 2000)


class Load(NamedTuple):
    """How many entries an epoch has for a row and for a column, on average."""

    of_row: float
    of_col: float

    @classmethod
    def of(cls, shape: tuple[int, int], n_entries: int) -> Load:
        """Return the quotients; a side without length has one row or column."""
        return cls(n_entries / max(shape[0], 1), n_entries / max(shape[1], 1))

    @property
    def pull(self) -> float:
        """Geometric mean: the leading singular value of a matrix of that many entries, all alike and of size 1."""
        return math.sqrt(self.of_row * self.of_col)

    @property
    def mean(self) -> float:
        """Harmonic mean: with few entries on one side, factors follow no faster for there being many on the other."""
        return 2 / (1 / max(self.of_row, 1e-9) + 1 / max(self.of_col, 1e-9))


@dataclass(frozen=True)
class Schedule:
    """A step size that falls from `learning_rate` as a cube, so that after `n_epochs` it would be zero.

    Towards the end the noise of the single steps averages out (Robbins and Monro 1951), so the last epoch is also the
    best, unless the penalty is too small for the data.

    Attributes
    ----------
    learning_rate : float
        Of the first epoch, for standardised values.
    n_epochs : int
    """

    learning_rate: float
    n_epochs: int

    def rate(self, epoch: int) -> float:
        """Return the step size of an epoch, counted from 0."""
        return self.learning_rate * (1.0 - epoch / self.n_epochs) ** FALL

    def spread(self, load: Load) -> float:
        """Return the standard deviation of the first predictions about their mean, for standardised values.

        From smaller ones strong directions have more of a lead over weak ones, which predicts better, but they leave
        the saddle at zero later: it is as small as the steps of the fit make good early (docs/derivation.md, 7).
        """
        return min(max(math.exp(-self.learning_rate * self.n_epochs * load.mean / _RESERVE), _LEAST_SPREAD), SPREAD)

    def count_epochs_at_saddle(self, load: Load) -> int:
        """Return for how many epochs only biases may be learned, so that no progress means little.

        Predictions grow with twice the correlation times step and pull.
        """
        growth = 2 * _WEAK * self.learning_rate * load.pull
        return math.ceil(min(-math.log(self.spread(load)) / max(growth, 1e-9), self.n_epochs))

    def halved(self) -> Schedule:
        """Return the schedule with half the step size."""
        return Schedule(self.learning_rate / 2, self.n_epochs)


@dataclass(frozen=True)
class Penalty:
    """L2 penalties per observed entry, for standardised values.

    Attributes
    ----------
    rows, cols : float or array
        Of the factor rows (and biases) of matrix rows, of matrix columns: one number for all, or one for each in the
        order of the factors.
    """

    rows: float | NDArray[np.float64]
    cols: float | NDArray[np.float64]

    def spread(self, shape: tuple[int, int]) -> Penalty:
        """Return the same, with numbers on both sides when there are on one: fewer cases to compile for."""
        if np.ndim(self.rows) == np.ndim(self.cols) == 0:
            return self
        return Penalty(
            *(np.array(np.broadcast_to(side, n)) for side, n in zip((self.rows, self.cols), shape, strict=True))
        )


# Between a penalty per entry (power 0, as in LIBMF) and one per row (power 1, as in plain ridge regression) lies what
# predicts best on most rating matrices (docs/performance.md).
FREQUENCY_POWER = 0.4


def compute_frequency_factor(counts: NDArray[np.int64]) -> float:
    """Return the factor with which counts**-power has mean 1 over the entries of rows with so many each."""
    counts = np.maximum(counts, 1)
    return float(counts.sum() / (counts ** (1 - FREQUENCY_POWER)).sum())


def weigh_by_frequency(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a weight for the penalty of each row: falling with its number of entries, its mean over entries 1.

    The smoothed weighted trace norm of Foygel, Salakhutdinov, Shamir and Srebro (NIPS 2011) has the same aim.
    """
    weights = np.maximum(counts, 1) ** -FREQUENCY_POWER
    return np.asarray(weights * compute_frequency_factor(counts), np.float64)
