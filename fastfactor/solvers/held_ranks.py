"""How high held-out positives rank among all that a row has not: what implicit feedback is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.metrics import score_lists
from fastfactor.kernels.topn import Seen
from fastfactor.kernels.update import Factors
from fastfactor.matrix.positives import Positives
from fastfactor.solvers.selection import MIN_HELD
from fastfactor.solvers.top import select_top
from fastfactor.threads import launch

LENGTH = 20  # of the lists that are judged
_SHARE = 4  # one of so many positives of a judged row is held out, and at least one
_WORK = 1.5e10  # floating-point operations that a judgement may take
_MIN_ROWS, _MAX_ROWS = 1000, 5000  # that are judged


@dataclass(frozen=True)
class HeldRanks:
    """Positives held out from some rows, and the others, which are fitted.

    Attributes
    ----------
    rest : Positives
        All that may be fitted.
    rows : (n,) int64 array
        The rows that are judged, ascending.
    indptr : (n + 1,) int64 array
    indices : (n_held,) int64 array
        Their held-out columns, ascending within each of `rows`.
    """

    rest: Positives
    rows: NDArray[np.int64]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]

    @staticmethod
    def is_possible(positives: Positives) -> bool:
        """Whether there are enough rows that have one to hold out and one to keep."""
        return int((np.diff(positives.sides[0].indptr) >= 2).sum()) >= MIN_HELD

    @classmethod
    def draw(cls, positives: Positives, rank: int, seed: int) -> HeldRanks:
        """Choose the rows, and a quarter of the positives of each.

        Parameters
        ----------
        positives : Positives
        rank : int
            Of the factors that are to be judged; with the number of columns it says what the judgement of a row costs.
        """
        rng, stored = np.random.default_rng([seed, 3]), positives.sides[0]
        rows = _choose_rows(np.flatnonzero(np.diff(stored.indptr) >= 2), positives.shape[1], rank, rng)
        flags = np.zeros(len(stored.indices), bool)
        counts = []
        for r in rows:
            start, stop = stored.indptr[r], stored.indptr[r + 1]
            counts.append(max(1, (stop - start) // _SHARE))
            flags[start + rng.permutation(stop - start)[: counts[-1]]] = True
        indptr = np.concatenate(([0], np.cumsum(counts)))
        return cls(positives.without(flags), rows, indptr, stored.indices[flags].astype(np.int64))

    @classmethod
    def of_share(cls, positives: Positives, share: float, rank: int, seed: int) -> HeldRanks:
        """Hold out that share of all positives.

        Raises
        ------
        ValueError
            If none would be held out, or none left.
        """
        stored = positives.sides[0]
        flags = np.random.default_rng([seed, 5]).random(len(stored.indices)) < share
        if not 0 < flags.sum() < len(flags):
            raise ValueError(
                f"validation={share} holds out {flags.sum()} of the {len(flags)} entries of X: there must be some on "
                "both sides"
            )
        indptr = np.concatenate(([0], np.cumsum(flags)))[stored.indptr]
        return cls.of(positives.without(flags), indptr, stored.indices[flags], rank, seed)

    @classmethod
    def of(cls, rest: Positives, indptr: NDArray[np.int64], indices: NDArray[Any], rank: int, seed: int) -> HeldRanks:
        """Judge by the given columns of each row, ascending; of many rows that have some by a part."""
        counts = np.diff(indptr)
        rng = np.random.default_rng([seed, 3])
        rows = _choose_rows(np.flatnonzero(counts), rest.shape[1], rank, rng)
        kept = np.repeat(np.isin(np.arange(len(counts)), rows), counts)
        return cls(rest, rows, np.concatenate(([0], np.cumsum(counts[rows]))), indices[kept].astype(np.int64))

    def judge(self, factors: Factors) -> float:
        """Return the mean over rows of the normalised discounted gain of the first columns, those in `rest` left out.

        Parameters
        ----------
        factors : Factors
            In the order of the matrix.
        """
        stored = self.rest.sides[0]
        seen = Seen(stored.indices, stored.indptr[self.rows], stored.indptr[self.rows + 1])
        lists, _ = select_top(factors.U, factors.V, self.rows, seen, LENGTH, None)
        scores, faults = np.empty((len(lists), 2)), np.empty(len(lists), np.bool_)
        gains = 1 / np.log2(np.arange(2.0, LENGTH + 2))
        relevant = Seen(self.indices, self.indptr[:-1], self.indptr[1:])
        launch(score_lists, lists, LENGTH, relevant, gains, scores, faults)
        return float(scores[:, 1].mean())


def _choose_rows(able: NDArray[np.int64], n_cols: int, rank: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return as many of the rows as may be judged, at random, ascending."""
    wanted = min(max(int(_WORK / (2 * n_cols * rank)), _MIN_ROWS), _MAX_ROWS, len(able))
    return np.sort(rng.permutation(able)[:wanted])
