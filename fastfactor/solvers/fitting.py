"""From checked arguments to factors: what to hold out, what to try, what to run on all entries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.simd import Spec, Static
from fastfactor.kernels.update import Factors
from fastfactor.matrix.disk_grid import lay_out
from fastfactor.matrix.grid import DenseGrid, Grid, Held, Making, count_entries
from fastfactor.matrix.inputs import Observations
from fastfactor.options import Options
from fastfactor.solvers.journal import Epoch, Journal, log, trial_callback
from fastfactor.solvers.memory import choose_spec, draw_factors, make_nonnegative
from fastfactor.solvers.schedule import (
    AUTO_EPOCHS,
    AUTO_LEARNING_RATE,
    Load,
    Penalty,
    Schedule,
    count_epochs_of_all,
    weigh_by_frequency,
)
from fastfactor.solvers.selection import FIRST_PENALTY, MIN_HELD, choose_epochs, choose_penalty
from fastfactor.solvers.sgd import Run, Sweepable, compute_loss, fit_factors
from fastfactor.solvers.standard import Standard
from fastfactor.solvers.warm import Start

HELD_SHARE = 0.1
_WORTH_KEEPING = 0.5  # of the epochs of the last fit: stopped before, it is worse than the best trial, which is whole


@dataclass(frozen=True)
class Fitted:
    """What a solver hands back: factors in the order of the grid and in its units, and how it got there."""

    factors: Factors
    history: list[Epoch]
    selection: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """The choices of one fit that do not change between its trials."""

    spec: Spec
    width: int
    dtype: np.dtype[Any]
    options: Options
    standard: Standard
    started: float
    start: Start | None = None
    journal: Journal = field(default_factory=Journal)

    @classmethod
    def of(
        cls,
        options: Options,
        dtype: np.dtype[Any],
        standard: Standard,
        start: Start | None = None,
        journal: Journal | None = None,
    ) -> Task:
        """Choose what to compile for."""
        spec, width = choose_spec(options.rank, biases=options.biases, loss=options.loss)
        return cls(spec, width, dtype, options, standard, time.perf_counter(), start, journal or Journal())

    def schedule(self, n_epochs: int) -> Schedule:
        """Return the schedule: a step in the user's units grows with the values' scale in standardised ones."""
        given = self.options.learning_rate
        rate = AUTO_LEARNING_RATE if given is None else given * self.standard.penalty_unit
        return Schedule(rate, n_epochs)

    def pace(self, grid: Sweepable) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return the steps of rows and columns over the schedule's, in the order of the grid; None where all are 1."""
        pace = self.options.pace
        if pace is None:
            return None
        real = np.empty(0, self.dtype).real.dtype
        rows, cols = (np.broadcast_to(side, n).astype(real) for side, n in zip(pace, grid.shape, strict=True))
        return rows[grid.row_order], cols[grid.col_order]

    def penalty(self) -> Penalty | None:
        """Return the given penalty in standardised units; None when it is to be chosen."""
        given = self.options.penalty
        unit = self.standard.penalty_unit
        return None if given is None else Penalty(given[0] / unit, given[1] / unit)

    def prox(self) -> NDArray[np.float64] | None:
        """Return L1 penalties and lower bounds of rows and of columns, standardised; None where there are none."""
        if not any(self.options.l1_penalty) and not any(self.options.nonnegative):
            return None
        l1 = [penalty / self.standard.l1_unit for penalty in self.options.l1_penalty]
        return np.array([*l1, *(0.0 if bounded else -np.inf for bounded in self.options.nonnegative)])

    def run(self, grid: Sweepable, schedule: Schedule, penalty: Penalty, held: Held | None) -> Run:
        """Return a run on `grid` with these choices, judged by the entries that are `held`."""
        options, place = self.options, self.standard.place_in(self.dtype)
        load = Load.of(grid.shape, grid.n_entries)
        judge = None if held is None else partial(compute_loss, held=held, place=place, static=Static(self.spec))

        def draw(schedule: Schedule) -> Factors:
            level, spread = self.standard.level if self.start is None else 0.0, schedule.spread(load)
            factors = draw_factors(grid.shape, options.rank, self.width, self.dtype, spread, options.seed, level)
            if self.start is not None:
                self.start.write(factors, (grid.row_order, grid.col_order), self.standard)
            return make_nonnegative(factors, options.nonnegative)

        return Run(
            spec=self.spec,
            schedule=schedule,
            penalty=penalty,
            draw=draw,
            load=load,
            validation=judge,
            seed=options.seed,
            deadline=self.started + options.max_seconds,
            callback=options.callback,
            started=self.started,
            place=place,
            prox=self.prox(),
            baseline=self.standard.baseline,
            pace=self.pace(grid),
            gentle=self.standard.gentle,
            journal=self.journal,
        )


def fit_dense(A: NDArray[Any], options: Options, task: Task) -> Fitted:
    """Fit every entry of `A`, which is standardised already."""
    grid = DenseGrid.of(A)
    penalty = task.penalty()
    assert penalty is not None
    schedule = task.schedule(options.max_epochs or count_epochs_of_all(A.shape))
    run = task.run(grid, schedule, penalty.spread(A.shape), None)
    factors, history, schedule = fit_factors(grid, run)
    rate = schedule.learning_rate / task.standard.penalty_unit
    return Fitted(factors, history, {"learning_rate": rate, "trials": []})


def order_penalty(penalty: Penalty, grid: Grid) -> Penalty:
    """Return the penalties in the order of the grid's rows and columns, where there is one for each."""
    penalty = penalty.spread(grid.shape)
    if isinstance(penalty.rows, np.ndarray) and isinstance(penalty.cols, np.ndarray):
        return Penalty(penalty.rows[grid.row_order], penalty.cols[grid.col_order])
    return penalty


Penalise = Callable[[float, Any], Penalty]  # from the mean penalty and a grid to that of each of its rows and columns
Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def make_penalise(given: Penalty | None, count: Callable[[], Counts]) -> Penalise:
    """Return what penalties come of a mean: those given, or ones that fall with the frequency of a row or column.

    Parameters
    ----------
    given : Penalty or None
        In the order of the matrix.
    count : callable
        Tells how many entries each row and each column has; asked only where it matters.
    """
    if given is not None:
        return lambda mean, grid: order_penalty(given, grid)
    rows, cols = map(weigh_by_frequency, count())
    return lambda mean, grid: Penalty(mean * rows[grid.row_order], mean * cols[grid.col_order])


@dataclass
class Choice:
    """What held-out entries decide: the mean penalty, the epochs of the schedule, and after how many to stop."""

    penalty: float = FIRST_PENALTY
    n_epochs: int = AUTO_EPOCHS
    stop: int | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)


def may_stop(options: Options) -> bool:
    """Whether a fit may have to end while it is still choosing."""
    return trial_callback(options.callback) is not None or options.max_seconds < math.inf


class _Stopped(Exception):
    """The fit is to end while it is still choosing."""


class _Trials:
    """Fits on the entries that are not held out, each judged on those that are."""

    def __init__(self, task: Task, grid: Grid, penalise: Penalise, held: Held) -> None:
        self.task, self.penalise, self.held = task, penalise, held
        self.grid: Grid | None = grid
        self.best_epochs: dict[tuple[float, int], int] = {}
        self.done: list[dict[str, Any]] = []
        self.best: tuple[float, Factors, list[Epoch], Schedule] | None = None  # kept where it may become the model
        self.best_loss = math.inf

    def judge(self, penalty: float, n_epochs: int) -> float:
        """Return the least validation loss of a fit of so many epochs.

        Raises
        ------
        _Stopped
            If the fit is to end here.
        """
        found = self.task.journal.try_out(lambda number: self._run(penalty, n_epochs, number))
        if self.task.journal.was_stopped:
            raise _Stopped
        self.best_epochs[penalty, n_epochs] = found["epoch"]
        self.done.append({"penalty": penalty, "n_epochs": n_epochs, "validation_loss": found["loss"]})
        standard = self.task.standard
        log.info(
            "trial %d: regularization %.4g, %d epochs: validation loss %.6g in epoch %d",
            len(self.done),
            penalty * standard.penalty_unit,
            n_epochs,
            found["loss"] * standard.loss_unit,
            found["epoch"],
        )
        return float(found["loss"])

    def _run(self, penalty: float, n_epochs: int, number: int) -> dict[str, Any]:
        assert self.grid is not None
        callback = trial_callback(self.task.options.callback)
        run = self.task.run(self.grid, self.task.schedule(n_epochs), self.penalise(penalty, self.grid), self.held)
        factors, history, schedule = fit_factors(self.grid, replace(run, callback=callback, trial=number))
        best = min(history, key=lambda epoch: epoch.validation_loss, default=None)
        if best is None:
            return {"loss": math.inf, "epoch": n_epochs}
        if may_stop(self.task.options) and best.validation_loss < self.best_loss:
            self.best_loss, self.best = best.validation_loss, (penalty, factors, history, schedule)
        return {"loss": best.validation_loss, "epoch": best.epoch}

    def end(self, given: Penalty | None) -> Fitted:
        """Return the best trial so far as the model, fitted to the entries that are not held out."""
        assert self.best is not None
        log.info("stopped before the last fit or early in it: the model is that of the best trial")
        penalty, factors, history, schedule = self.best
        report = _report(self.task, schedule, given or Penalty(penalty, penalty), self.done)
        return Fitted(factors, history, {**report, "from_trial": True})


def _choose(task: Task, trials: _Trials) -> Choice:
    """Choose what the caller left open, by fits judged on the held-out entries."""

    def search(first: float, n_epochs: int) -> float:
        penalty, losses = choose_penalty(lambda candidate: trials.judge(candidate, n_epochs), first)
        choice.penalty = penalty
        choice.trials += [{**trial, "n_epochs": n_epochs} for trial in losses]
        return float(min(trial["validation_loss"] for trial in losses))

    is_open, fixed_epochs = task.penalty() is None, task.options.max_epochs
    choice = Choice(n_epochs=fixed_epochs or AUTO_EPOCHS)
    loss = search(FIRST_PENALTY, choice.n_epochs) if is_open else trials.judge(choice.penalty, choice.n_epochs)
    if fixed_epochs is None:
        first = choice.n_epochs
        choice.n_epochs = choose_epochs(lambda n: trials.judge(choice.penalty, n), first, loss)
        if is_open and choice.n_epochs > first:
            search(choice.penalty, choice.n_epochs)
    if not is_open:
        choice.stop = trials.best_epochs[choice.penalty, choice.n_epochs]
    return choice


def fit_observed(
    X: Observations, validation: Any, options: Options, task: Task, weights: NDArray[Any] | None = None
) -> tuple[Fitted, Grid]:
    """Fit the stored entries of `X`.

    Parameters
    ----------
    validation : None, False, float or callable
        None: hold entries out where there is something to choose, then refit on all. A float: hold out that share. A
        callable: from the grid to the held-out entries that are to be used.
    weights : (n_entries,) array, optional
        Of the entries, mean 1.
    """

    def layout(held_share: float) -> Grid:
        return lay_out(X, Making(*task.standard.labels, task.dtype, options.seed, held_share), weights)

    penalise = make_penalise(task.penalty(), lambda: (np.diff(X.indptr), count_entries(X)))
    return choose_and_fit(layout, penalise, X.n_entries, validation, options, task)


def choose_and_fit(
    layout: Callable[[float], Any],
    penalise: Penalise,
    n_entries: int,
    validation: Any,
    options: Options,
    task: Task,
) -> tuple[Fitted, Any]:
    """Fit entries wherever they are; see `fit_observed`.

    Parameters
    ----------
    layout : callable
        From the share of the entries to hold out to a grid.
    penalise : callable
        From the mean penalty and a grid to the penalties of its rows and columns.
    n_entries : int
        Of the matrix.
    """
    given, choice = task.penalty(), Choice(n_epochs=options.max_epochs or AUTO_EPOCHS)
    undecided = given is None or options.max_epochs is None
    # Of entries that the caller holds out a given penalty is not tried in advance: the fit keeps its best epoch.
    is_apart = validation is None and undecided and n_entries * HELD_SHARE >= MIN_HELD
    share = HELD_SHARE if is_apart else validation if isinstance(validation, float) else 0.0
    grid = layout(share)
    if isinstance(validation, float) and not 0 < grid.n_entries < n_entries:
        raise ValueError(
            f"validation={validation} holds out {len(grid.held.rows)} of the {n_entries} entries of X: there must be "
            "some on both sides"
        )
    held = validation(grid) if callable(validation) else grid.held if share else None
    trials: _Trials | None = None
    if held is not None and (is_apart or (given is None and len(held.values) >= MIN_HELD)):
        trials = _Trials(task, grid, penalise, held)
        try:
            choice = _choose(task, trials)
        except _Stopped:
            if trials.best is not None:
                return trials.end(given), grid
        trials.grid = None
    if is_apart:
        held = None
        del grid  # its memory is needed for the next one
        grid = layout(0.0)
    run = task.run(grid, task.schedule(choice.n_epochs), penalise(choice.penalty, grid), held)
    factors, history, schedule = fit_factors(grid, replace(run, stop_after=choice.stop))
    if task.journal.was_stopped and trials and trials.best and len(history) < _WORTH_KEEPING * choice.n_epochs:
        return trials.end(given), grid  # whose rows and columns are in the same order
    penalty = given or Penalty(choice.penalty, choice.penalty)
    return Fitted(factors, history, _report(task, schedule, penalty, choice.trials)), grid


def _report(task: Task, schedule: Schedule, penalty: Penalty, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what was tried and chosen, in the user's units."""
    unit, loss_unit = task.standard.penalty_unit, task.standard.loss_unit
    return {
        "regularization": (penalty.rows * unit, penalty.cols * unit),
        "scaled_by_frequency": task.options.penalty is None,
        "learning_rate": schedule.learning_rate / unit,
        "n_epochs": schedule.n_epochs,
        "trials": [
            {
                "regularization": trial["penalty"] * unit,
                "n_epochs": trial["n_epochs"],
                "validation_loss": trial["validation_loss"] * loss_unit,
            }
            for trial in trials
        ],
    }
