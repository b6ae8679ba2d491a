"""Stochastic gradient descent: epochs, stopping, recovery from divergence. No arithmetic on entries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastfactor.exceptions import DivergenceError
from fastfactor.kernels.predict import sum_losses
from fastfactor.kernels.simd import Spec, Static
from fastfactor.kernels.update import Factors, Step
from fastfactor.matrix.grid import Held
from fastfactor.matrix.mapped import drop_pages, is_mapped
from fastfactor.solvers.journal import Epoch, Journal, Progress, log
from fastfactor.solvers.schedule import Load, Penalty, Schedule
from fastfactor.threads import launch, using_threads_for

_MAX_HALVINGS = 8
_EXPLODED = 10.0  # times the loss of predicting zero: no descent on the way to a minimum gets there
_SECONDS_PER_LAUNCH = 0.1  # then Ctrl-C and deadlines get their turn
_FIRST_WORK = 2e7  # numbers updated in the first kernel call of an epoch: 5 ms or so, and 0.1 s where entries cost most
_LOSS_SLICES = 64
_MAPPED_SLICES = 8  # of these at a time where the held-out entries lie in a file


class Sweepable(Protocol):
    """What the grids of matrix/grid.py have in common."""

    @property
    def n_stripes(self) -> int: ...  # noqa: D102
    @property
    def n_entries(self) -> int: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def row_order(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def col_order(self) -> NDArray[np.int64]: ...  # noqa: D102

    def begin_epoch(self, epoch: int, order: NDArray[np.int64]) -> None: ...  # noqa: D102
    def sweep(  # noqa: D102
        self, factors: Factors, diagonals: NDArray[np.int64], losses: NDArray[np.float64], step: Step, static: Any
    ) -> None: ...


@dataclass
class Run:
    """What a fit is made of, and how it may end.

    Attributes
    ----------
    spec : Spec
    schedule : Schedule
    penalty : Penalty
    draw : callable
        From a schedule to the factors to start from, the same each time.
    load : Load
        What an epoch has for a row and for a column.
    validation : callable or None
        From factors to a validation loss; it judges each epoch.
    seed : int
        Of the order of the diagonals.
    deadline : float
        On the clock of `time.perf_counter`.
    callback : callable or None
        Called with each `Epoch`; a true answer ends the fit.
    stop_after : int or None
        Epochs of the schedule to run; all of them by default.
    started : float
        When the fit began, on the same clock as the deadline.
    place : (4,) array or None
        Where predictions lie (`Place` of kernels/losses.py), in the dtype of the factors.
    prox : (4,) array or None
        L1 penalties of rows and of columns, standardised, and the least their numbers may be.
    baseline : float
        Mean loss of predicting zero.
    pace : (array, array) or None
        Steps of single rows and columns over the schedule's, in the order and the dtype of the factors.
    gentle : bool
        Whether no step has to be cut off where there is a place.
    journal : Journal
        Of the fit that this run is a part of.
    trial : int
        Which of its trials this is; 0 for the fit whose factors are the model.
    """

    spec: Spec
    schedule: Schedule
    penalty: Penalty
    draw: Callable[[Schedule], Factors]
    load: Load
    validation: Callable[[Factors], float] | None = None
    seed: int = 0
    deadline: float = float("inf")
    callback: Callable[[Epoch], Any] | None = None
    stop_after: int | None = None
    started: float = field(default_factory=time.perf_counter)
    place: NDArray[Any] | None = None
    prox: NDArray[Any] | None = None
    baseline: float = 1.0
    pace: tuple[NDArray[Any], NDArray[Any]] | None = None
    gentle: bool = False
    journal: Journal = field(default_factory=Journal)
    trial: int = 0


def compute_loss(factors: Factors, held: Held, place: NDArray[Any] | None, static: Any) -> float:
    """Return the mean loss over the held-out entries."""
    pairs = held.rows, held.cols, held.values
    edges, sums = np.arange(_LOSS_SLICES + 1) * len(held.values) // _LOSS_SLICES, np.zeros(_LOSS_SLICES)
    at_once = _MAPPED_SLICES if is_mapped(*pairs) else _LOSS_SLICES
    for s in range(0, _LOSS_SLICES, at_once):
        part = edges[s : s + at_once + 1]
        launch(sum_losses, factors, pairs, held.weights, place, part, sums[s : s + at_once], static)
        for array in pairs:
            drop_pages(array, int(part[0]), int(part[-1]))
    return float(sums.sum()) / len(held.values)


def compute_shrink(lr: Any, reg: Any, real: Any) -> Any:
    """Return what the penalty `reg` leaves of a factor in one step `lr`; of each there is one, or one per row."""
    shrink = 1 - lr * np.asarray(reg)
    with np.errstate(over="ignore"):  # beside weights of next to nothing a penalty is endless: the fit diverges
        return shrink.astype(real) if shrink.ndim else real(shrink)


def _cut_by_time(order: NDArray[np.int64], work: int) -> Iterator[NDArray[np.int64]]:
    """Yield the diagonals in groups whose time is about right, judging by the group before; `work` is that of all.

    Ranks, losses and machines differ too much for a fixed number. No result depends on where the cuts are.
    """
    start, count = 0, max(1, int(len(order) * _FIRST_WORK / max(work, 1)))
    while start < len(order):
        began = time.perf_counter()
        yield order[start : start + count]
        start += count
        count = max(1, int(count * _SECONDS_PER_LAUNCH / max(time.perf_counter() - began, 1e-6)))


def update_epoch(grid: Sweepable, factors: Factors, run: Run, epoch: int, static: Any) -> float:
    """Sweep once over all entries, diagonals in random order. Return the mean loss, each entry before its update.

    Raises
    ------
    TimeoutError
        If the deadline passes between two kernel calls.
    """
    B = grid.n_stripes
    real = factors.U.real.dtype.type
    lr = run.schedule.rate(epoch)
    pace_u, pace_v = run.pace or (None, None)
    shrink_u = compute_shrink(lr if pace_u is None else lr * pace_u, run.penalty.rows, real)
    shrink_v = compute_shrink(lr if pace_v is None else lr * pace_v, run.penalty.cols, real)
    prox = None if run.prox is None else np.array(run.prox * np.array([lr, lr, 1, 1]), real)
    step = Step(real(lr), shrink_u, shrink_v, run.place, prox, pace_u, pace_v)
    height = 1.0
    if run.gentle and run.place is not None:
        origin, stretch, slope, height = run.place
        step = step._replace(lr=real(lr * slope), place=None, origin=origin, stretch=stretch)
    losses = np.zeros((B, B))
    order = np.random.default_rng([run.seed, 2, epoch]).permutation(B)
    grid.begin_epoch(epoch, order)
    for diagonals in _cut_by_time(order, grid.n_entries * factors.U.shape[1]):
        if time.perf_counter() > run.deadline:
            raise TimeoutError
        grid.sweep(factors, diagonals, losses, step, static)
    return float(losses.sum()) * float(height) / grid.n_entries


class _Diverged(Exception):
    """The loss of an epoch is not finite, or has exploded."""


def _is_sane(factors: Factors, n_entries: int) -> bool:
    """Whether the factors are finite and in reach of the values: with mean square 1, none is above sqrt(n_entries)."""
    limit = 10 * (1 + float(n_entries) ** 0.5)
    parts = (M.view(M.real.dtype) for M in factors)  # of complex numbers, both
    return all(part.max() <= limit and part.min() >= -limit for part in parts)  # not when there is NaN


def _descend(grid: Sweepable, run: Run, progress: Progress) -> Factors:
    """Run the rest of the epochs of a schedule; return the factors of the best one by validation, else of the last."""
    static, judge = Static(run.spec), run.validation
    n_epochs = run.stop_after or run.schedule.n_epochs
    at_saddle = run.schedule.count_epochs_at_saddle(run.load)
    while not run.journal.is_over(progress, n_epochs, run.callback, at_saddle):
        rate = run.schedule.rate(progress.epoch)
        try:
            train_loss = update_epoch(grid, progress.factors, run, progress.epoch, static)
        except TimeoutError:
            run.journal.stop()
            break
        validation_loss = float("nan") if judge is None else judge(progress.factors)
        seconds = run.journal.seconds_before + time.perf_counter() - run.started
        where = (n_epochs, grid.n_entries, run.trial)
        progress.add(Epoch(progress.epoch + 1, seconds, rate, train_loss, validation_loss, *where))
        judged = train_loss if judge is None else max(train_loss, validation_loss)
        if not judged - run.baseline < (_EXPLODED - 1) * (abs(run.baseline) or 1.0):  # also when it is NaN
            raise _Diverged
        run.journal.note(progress)
    factors = progress.factors if progress.best is None else progress.best
    if not _is_sane(factors, grid.n_entries):  # an epoch's loss does not see its own last steps
        raise _Diverged
    return factors


def fit_factors(grid: Sweepable, run: Run) -> tuple[Factors, list[Epoch], Schedule]:
    """Descend from `run.draw`, or go on where the journal says; after a divergence start again with half the step.

    Returns
    -------
    factors : Factors
    history : list of Epoch
        Of every epoch that was run, diverged ones included.
    schedule : Schedule
        The one that went through.

    Raises
    ------
    DivergenceError
        If the fit still diverges after the step was halved eight times.
    """
    progress = run.journal.resume(lambda: run.draw(run.schedule))
    for _ in range(progress.attempt):
        run.schedule = run.schedule.halved()
    while True:
        try:
            with using_threads_for(grid.n_entries * progress.factors.U.shape[1]):
                return _descend(grid, run, progress), progress.history, run.schedule
        except _Diverged:
            last = progress.history[-1]
            if progress.attempt == _MAX_HALVINGS:
                break
            run.schedule = run.schedule.halved()
            log.info("diverged in epoch %d (loss %.3g): starting again with half the step", last.epoch, last.train_loss)
            attempt, history = progress.attempt + 1, progress.history
            del progress  # its memory is needed for the next one
            progress = Progress(run.draw(run.schedule), attempt, history=history)
    raise DivergenceError(
        f"the fit diverged in epoch {last.epoch} at step {last.learning_rate:.3g} (standardised), the last of "
        f"{_MAX_HALVINGS + 1} attempts; its mean loss was {last.train_loss:.3g}. Likely causes: values of very "
        "different magnitude (consider their logarithm), or a huge regularization"
    )
