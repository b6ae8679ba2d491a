"""Stochastic gradient descent: epochs, stopping, recovery from divergence. No arithmetic on entries."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from fastfactor.solvers.memory import copy_factors
from fastfactor.solvers.schedule import Penalty, Schedule
from fastfactor.threads import launch

_MAX_HALVINGS = 8
_EXPLODED = 10.0  # times the loss of predicting zero: no descent on the way to a minimum gets there
_WORK_PER_LAUNCH = 4e8  # numbers updated in one kernel call: 0.1 s or so, then Ctrl-C and deadlines get their turn
_LOSS_SLICES = 64
_MAPPED_SLICES = 8  # of these at a time where the held-out entries lie in a file
_PATIENCE = 5  # epochs without a better validation loss before a fit stops


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

    def begin_epoch(self, order: NDArray[np.int64]) -> None: ...  # noqa: D102
    def sweep(  # noqa: D102
        self, factors: Factors, diagonals: NDArray[np.int64], losses: NDArray[np.float64], step: Step, static: Any
    ) -> None: ...


@dataclass(frozen=True)
class Epoch:
    """One line of a fit's history; losses are means per entry, for standardised values.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    seconds : float
        Since the fit began.
    learning_rate : float
    train_loss : float
        Of each entry just before its update, so it lags behind by half an epoch.
    validation_loss : float
        NaN without validation entries.
    """

    epoch: int
    seconds: float
    learning_rate: float
    train_loss: float
    validation_loss: float


@dataclass
class Run:
    """What a fit is made of, and how it may end.

    Attributes
    ----------
    spec : Spec
    schedule : Schedule
    penalty : Penalty
    draw : callable
        () -> Factors to start from, the same each time.
    validation : Held or None
        Entries to judge each epoch by.
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
    """

    spec: Spec
    schedule: Schedule
    penalty: Penalty
    draw: Callable[[], Factors]
    validation: Held | None = None
    seed: int = 0
    deadline: float = float("inf")
    callback: Callable[[Epoch], Any] | None = None
    stop_after: int | None = None
    started: float = field(default_factory=time.perf_counter)
    place: NDArray[Any] | None = None
    prox: NDArray[Any] | None = None
    baseline: float = 1.0


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


def compute_shrink(lr: float, reg: Any, real: Any) -> Any:
    """Return what the penalty `reg` (one, or one per row) leaves of a factor in one step."""
    shrink = 1 - lr * np.asarray(reg)
    return shrink.astype(real) if shrink.ndim else real(shrink)


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
    shrink_u, shrink_v = (compute_shrink(lr, reg, real) for reg in (run.penalty.rows, run.penalty.cols))
    prox = None if run.prox is None else np.array(run.prox * np.array([lr, lr, 1, 1]), real)
    step = Step(real(lr), shrink_u, shrink_v, run.place, prox)
    losses = np.zeros((B, B))
    order = np.random.default_rng([run.seed, 2, epoch]).permutation(B)
    grid.begin_epoch(order)
    n_launches = min(B, int(np.ceil(grid.n_entries * factors.U.shape[1] / _WORK_PER_LAUNCH)))
    for diagonals in np.array_split(order, n_launches):
        if time.perf_counter() > run.deadline:
            raise TimeoutError
        grid.sweep(factors, diagonals, losses, step, static)
    return float(losses.sum()) / grid.n_entries


class _Diverged(Exception):
    """The loss of an epoch is not finite, or has exploded."""


def _is_sane(factors: Factors, n_entries: int) -> bool:
    """Whether the factors are finite and in reach of the values: with mean square 1, none is above sqrt(n_entries)."""
    limit = 10 * (1 + float(n_entries) ** 0.5)
    parts = (M.view(M.real.dtype) for M in factors)  # of complex numbers, both
    return all(part.max() <= limit and part.min() >= -limit for part in parts)  # not when there is NaN


def _descend(grid: Sweepable, run: Run, factors: Factors, history: list[Epoch]) -> Factors:
    """Run the epochs of a schedule; return the factors of the best one by validation, else of the last."""
    static = Static(run.spec)
    best, best_loss, best_epoch = None, float("inf"), 0
    for epoch in range(run.stop_after or run.schedule.n_epochs):
        try:
            train_loss = update_epoch(grid, factors, run, epoch, static)
        except TimeoutError:
            break
        held = run.validation
        validation_loss = compute_loss(factors, held, run.place, static) if held is not None else float("nan")
        seconds = time.perf_counter() - run.started
        record = Epoch(epoch + 1, seconds, run.schedule.rate(epoch), train_loss, validation_loss)
        history.append(record)
        judged = train_loss if held is None else max(train_loss, validation_loss)
        if not judged - run.baseline < (_EXPLODED - 1) * (abs(run.baseline) or 1.0):  # also when it is NaN
            raise _Diverged
        if held is not None and validation_loss < best_loss:
            best, best_loss, best_epoch = copy_factors(factors, best), validation_loss, epoch
        if run.callback is not None and run.callback(record):
            break
        if held is not None and epoch - best_epoch >= _PATIENCE:
            break
    factors = factors if best is None else best
    if not _is_sane(factors, grid.n_entries):  # an epoch's loss does not see its own last steps
        raise _Diverged
    return factors


def fit_factors(grid: Sweepable, run: Run) -> tuple[Factors, list[Epoch], Schedule]:
    """Descend from `run.draw()`; after a divergence start again with half the step.

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
    history: list[Epoch] = []
    for _ in range(_MAX_HALVINGS + 1):
        try:
            return _descend(grid, run, run.draw(), history), history, run.schedule
        except _Diverged:
            run.schedule = run.schedule.halved()
    last = history[-1]
    raise DivergenceError(
        f"the fit diverged in epoch {last.epoch} at step {last.learning_rate:.3g} (standardised), the last of "
        f"{_MAX_HALVINGS + 1} attempts; its mean loss was {last.train_loss:.3g}. Likely causes: values of very "
        "different magnitude (consider their logarithm), or a huge regularization"
    )
