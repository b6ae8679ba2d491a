"""How high held-out positives rank among all that a row has not: what implicit feedback is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.metrics import score_lists
from fastfactor.kernels.ridge import Stored
from fastfactor.kernels.topn import Seen
from fastfactor.kernels.update import Factors
from fastfactor.solvers.selection import MIN_HELD
from fastfactor.solvers.top import select_top
from fastfactor.threads import launch

LENGTH = 20  # of the lists that are judged
_SHARE = 4  # one of so many positives of a judged row is held out, and at least one
_WORK = 1.5e10  # floating-point operations that a judgement may take
_MIN_ROWS, _MAX_ROWS = 1000, 5000  # that are judged


@dataclass(frozen=True)
class HeldRanks:
    """Positives held out from some rows.

    Attributes
    ----------
    flags : (n_entries,) bool array
        Which entries are held out, in the order of the rows.
    rows : (n,) int64 array
        The rows they are in, ascending.
    indptr : (n + 1,) int64 array
    indices : (n_held,) int64 array
        Their columns, ascending within each of `rows`.
    """

    flags: NDArray[np.bool_]
    rows: NDArray[np.int64]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]

    @staticmethod
    def is_possible(stored: Stored) -> bool:
        """Whether there are enough rows that have one to hold out and one to keep."""
        return int((np.diff(stored.indptr) >= 2).sum()) >= MIN_HELD

    @classmethod
    def draw(cls, stored: Stored, n_cols: int, rank: int, seed: int) -> HeldRanks:
        """Choose the rows, and the entries.

        Parameters
        ----------
        stored : Stored
            By row, columns ascending.
        rank : int
            Of the factors that are to be judged; with `n_cols` it says what the judgement of a row costs.
        """
        rng = np.random.default_rng([seed, 3])
        able = np.flatnonzero(np.diff(stored.indptr) >= 2)
        wanted = min(max(int(_WORK / (2 * n_cols * rank)), _MIN_ROWS), _MAX_ROWS, len(able))
        rows = np.sort(rng.permutation(able)[:wanted])
        flags = np.zeros(len(stored.indices), bool)
        counts = []
        for r in rows:
            start, stop = stored.indptr[r], stored.indptr[r + 1]
            counts.append(max(1, (stop - start) // _SHARE))
            flags[start + rng.permutation(stop - start)[: counts[-1]]] = True
        indptr = np.concatenate(([0], np.cumsum(counts)))
        return cls(flags, rows, indptr, stored.indices[flags].astype(np.int64))

    def judge(self, factors: Factors, rest: Stored) -> float:
        """Return the mean over rows of the normalised discounted gain of the first columns, those in `rest` left out.

        Parameters
        ----------
        factors : Factors
        rest : Stored
            What the factors were fitted to: all that is not held out, columns ascending.
        """
        seen = Seen(rest.indices, rest.indptr[self.rows], rest.indptr[self.rows + 1])
        lists, _ = select_top(factors.U, factors.V, self.rows, seen, LENGTH, None)
        scores, faults = np.empty((len(lists), 2)), np.empty(len(lists), np.bool_)
        gains = 1 / np.log2(np.arange(2.0, LENGTH + 2))
        relevant = Seen(self.indices, self.indptr[:-1], self.indptr[1:])
        launch(score_lists, lists, LENGTH, relevant, gains, scores, faults)
        return float(scores[:, 1].mean())
