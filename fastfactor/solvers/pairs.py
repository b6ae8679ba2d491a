"""Implicit feedback ranked by pairs: each positive above a column that its row has not, by the epochs of completion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastfactor.kernels.update import Factors
from fastfactor.matrix.pairs import PairGrid
from fastfactor.matrix.positives import Positives
from fastfactor.solvers.fitting import Fitted, Task, order_penalty
from fastfactor.solvers.held_ranks import HeldRanks
from fastfactor.solvers.journal import log, trial_callback
from fastfactor.solvers.memory import restore_order
from fastfactor.solvers.schedule import Penalty
from fastfactor.solvers.selection import choose_penalty
from fastfactor.solvers.sgd import Run, fit_factors

# What suits the check-ins of docs/performance.md.
AUTO_RATE = 0.4
AUTO_EPOCHS = 60
FIRST_PENALTY = 0.01


def _in_order(factors: Factors, grid: PairGrid) -> Factors:
    """Return the factors in the order of the matrix."""
    U, V = restore_order(factors.U, grid.row_order), restore_order(factors.V, grid.col_order)
    return Factors(U, V, factors.row_bias, factors.col_bias)


class _Trials:
    """Fits judged by held-out positives."""

    def __init__(self, task: Task, held: HeldRanks, n_epochs: int) -> None:
        self.task, self.held, self.n_epochs = task, held, n_epochs
        self.grid = PairGrid.of(held.rest, task.options.seed)

    def judge(self, penalty: float) -> float:
        """Return 1 less how well the held-out positives rank after a fit with this penalty."""
        journal = self.task.journal
        if journal.was_stopped:
            return np.inf
        found = journal.try_out(lambda number: self._run(penalty, number))
        log.info("regularization %.4g: validation loss %.6g", penalty, found["loss"])
        return float(found["loss"])

    def _run(self, penalty: float, number: int) -> dict[str, Any]:
        run = start_run(self.task, self.grid, Penalty(penalty, penalty), self.n_epochs, None)
        callback = trial_callback(self.task.options.callback)
        factors, _, _ = fit_factors(self.grid, replace(run, callback=callback, trial=number))
        stopped = self.task.journal.was_stopped  # then nobody asks for the score
        return {"loss": np.inf if stopped else 1 - self.held.judge(_in_order(factors, self.grid))}


def start_run(task: Task, grid: PairGrid, penalty: Penalty, n_epochs: int, held: HeldRanks | None) -> Run:
    """Return a run with these penalties of rows and columns, after each of whose epochs `held` ranks."""
    run = task.run(grid, task.schedule(n_epochs), order_penalty(penalty, grid), None)
    if held is None:
        return run
    return replace(run, validation=lambda factors: 1 - held.judge(_in_order(factors, grid)))


def fit_pairs(
    positives: Positives, task: Task, *, search: bool, held: HeldRanks | None = None
) -> tuple[Fitted, PairGrid]:
    """Fit implicit feedback by a loss of pairs.

    Parameters
    ----------
    positives, search, held
        As for `weak.fit_weak`.
    """
    options, trials = task.options, list[dict[str, Any]]()
    if options.learning_rate is None:
        task = replace(task, options=replace(options, learning_rate=AUTO_RATE / task.standard.penalty_unit))
    n_epochs, unit = options.max_epochs or AUTO_EPOCHS, task.standard.penalty_unit
    given = task.penalty()
    penalty = Penalty(FIRST_PENALTY, FIRST_PENALTY) if given is None else given
    if given is None and search and (held is not None or HeldRanks.is_possible(positives)):
        judge = _Trials(task, held or HeldRanks.draw(positives, options.rank, options.seed), n_epochs).judge
        best, found = choose_penalty(judge, FIRST_PENALTY)
        penalty = Penalty(best, best)
        trials = [
            {"regularization": trial["penalty"] * unit, "validation_gain": 1 - trial["validation_loss"]}
            for trial in found
        ]
    grid = PairGrid.of(positives if held is None else held.rest, options.seed)
    factors, history, schedule = fit_factors(grid, start_run(task, grid, penalty, n_epochs, held))
    chosen = {
        "regularization": (penalty.rows * unit, penalty.cols * unit),
        "learning_rate": schedule.learning_rate / unit,
        "n_epochs": n_epochs,
        "trials": trials,
    }
    return Fitted(factors, history, chosen), grid
