"""Implicit feedback: both sides in turn, each row's problem improved by a few exact steps, zeros never visited."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import one_blas_thread, run_in_slices
from fastfactor.kernels.ridge import N_SCRATCH, Ridge, solve_rows
from fastfactor.kernels.simd import Static
from fastfactor.kernels.update import Factors
from fastfactor.matrix.positives import Positives
from fastfactor.solvers.fitting import Fitted, Task
from fastfactor.solvers.held_ranks import HeldRanks
from fastfactor.solvers.journal import Epoch, log, trial_callback
from fastfactor.solvers.memory import draw_factors
from fastfactor.solvers.schedule import SPREAD
from fastfactor.threads import count_threads, launch

# What suits most matrices (docs/performance.md): the zeros together weigh ten times what the positives do.
ZEROS_OVER_POSITIVES = 10.0
FIRST_PENALTY = 0.01
MAX_AUTO_WEIGHT = 0.5  # of a zero, in dense matrices
AUTO_EPOCHS = 10
_STEPS = 3  # of conjugate gradients on each row, each epoch
_WORK_PER_LAUNCH = 2e9
_TINY = 1e8  # times the smallest normal number: squares below are of no use
_TRIAL_EPOCHS = 5
_TRIAL_RANK = 32
_RATIO = 3.0  # between neighbouring candidates
_MAX_TRIALS = 7


@dataclass(frozen=True)
class Weighing:
    """The two numbers that decide what a fit of implicit feedback finds.

    Attributes
    ----------
    others : float
        Weight of an entry that is not stored.
    penalty : (float or array, float or array)
        Per unit of weight, of rows and of columns: a row's is that times the weights of all its entries, zeros too.
    """

    others: float
    penalty: tuple[Any, Any]


def diagonalise(V: NDArray[Any], others: tuple[NDArray[Any], ...], rank: int) -> NDArray[Any]:
    """Turn V, and `others` with it, into the basis in which V' V is diagonal; products of factors stay as they are.

    Returns
    -------
    (width,) array
        The diagonal.
    """
    # Not by solvers/tall.py: that is for double precision and padded matrices, this keeps the factors as they are.
    n_threads, width = count_threads(None), V.shape[1]
    grams = run_in_slices(lambda part: V[part, :rank].T @ V[part, :rank], len(V), n_threads)
    values, Q = np.linalg.eigh(np.sum(grams, axis=0, dtype=np.float64))
    for M in (V, *others):
        _turn(M[:, :rank], Q.astype(M.dtype), n_threads)
    curvature = np.zeros(width, V.dtype)
    curvature[:rank] = np.maximum(values, 0)
    return curvature


def _turn(M: NDArray[Any], Q: NDArray[Any], n_threads: int) -> None:
    """Replace M by M Q, a few rows at a time, so that the products stay in the caches."""

    def work(part: slice) -> None:
        for start in range(part.start, part.stop, 1024):
            rows = slice(start, min(start + 1024, part.stop))
            M[rows] = M[rows] @ Q

    run_in_slices(work, len(M), n_threads)


@dataclass(frozen=True)
class Alternation:
    """A fit of some positives with a choice of weights.

    Attributes
    ----------
    positives : Positives
    weighing : Weighing
    task : Task
    """

    positives: Positives
    weighing: Weighing
    task: Task

    def draw(self) -> Factors:
        """Return where the fit starts."""
        task, shape = self.task, self.positives.shape
        factors = draw_factors(shape, task.options.rank, task.width, task.dtype, SPREAD, task.options.seed)
        if task.start is not None:
            task.start.write(factors, (np.arange(shape[0]), np.arange(shape[1])), task.standard)
        return factors

    def update_side(self, factors: Factors, side: int) -> float:
        """Improve the rows (side 0) or columns (side 1). Return the summed loss before, over all entries.

        Raises
        ------
        TimeoutError
            If the deadline passes between two kernel calls.
        """
        U, V = factors[side], factors[1 - side]
        stored, others, real = self.positives.sides[side], self.weighing.others, U.dtype.type
        curvature = diagonalise(V, (U,), self.task.options.rank)
        reg = self.weighing.penalty[side] * self.positives.weigh_all(side, others)
        ridge = Ridge(curvature, reg.astype(U.dtype), real(others), real(0), real(np.finfo(real).tiny * _TINY))
        squares = run_in_slices(lambda part: (U[part] ** 2).sum(axis=0, dtype=np.float64), len(U), 1)
        loss = others * float(np.sum(squares, axis=0) @ curvature)
        n_slices = len(stored.starts) - 1
        scratch, probes = np.zeros((n_slices, N_SCRATCH, U.shape[1]), U.dtype), np.empty(len(stored.indices), U.dtype)
        losses = np.zeros(n_slices)
        work = (2.0 * len(probes) + len(U)) * U.shape[1] * (_STEPS + 1)
        for part in np.array_split(np.arange(n_slices), min(n_slices, int(np.ceil(work / _WORK_PER_LAUNCH)))):
            if time.perf_counter() > self.task.started + self.task.options.max_seconds:
                raise TimeoutError
            here = stored._replace(starts=stored.starts[part[0] : part[-1] + 2])
            a, b = part[0], part[-1] + 1
            launch(solve_rows, U, V, here, ridge, _STEPS, scratch[a:b], probes, losses[a:b], Static(self.task.spec))
        return loss + float(losses.sum()) + float(stored.targets.sum(dtype=np.float64))  # positives aim at 1

    def run(
        self, n_epochs: int, callback: Any = None, trial: int = 0, held: HeldRanks | None = None
    ) -> tuple[Factors, list[Epoch]]:
        """Return the factors after so many epochs, or as many as there was time for, and their history.

        With `held` each epoch is judged by these, and the factors are those of the best one.
        """
        journal = self.task.journal
        progress = journal.resume(self.draw)
        total = float(self.positives.weigh_all(0, self.weighing.others).sum())
        while not journal.is_over(progress, n_epochs, callback):
            try:
                self.update_side(progress.factors, 0)
                loss = self.update_side(progress.factors, 1) / total
            except TimeoutError:
                journal.stop()
                break
            seconds = journal.seconds_before + time.perf_counter() - self.task.started
            missed = np.nan if held is None else 1 - held.judge(progress.factors)
            where = (n_epochs, self.positives.n_entries, trial)
            progress.add(Epoch(progress.epoch + 1, seconds, np.nan, loss, missed, *where))
            journal.note(progress)
        return progress.best or progress.factors, progress.history


def _shift(place: tuple[int, int], step: tuple[int, int], sign: int) -> tuple[int, int]:
    return place[0] + sign * step[0], place[1] + sign * step[1]


class _Search:
    """Trials on held-out positives: from a usual choice to better neighbours, as long as there are some."""

    def __init__(self, held: HeldRanks, task: Task, first: Weighing, is_open: tuple[bool, bool]) -> None:
        self.held, self.first, self.is_open = held, first, is_open
        options = replace(task.options, rank=min(task.options.rank, _TRIAL_RANK))
        self.task = replace(Task.of(options, task.dtype, task.standard, None, task.journal), started=task.started)
        self.scores: dict[tuple[float, int], tuple[Weighing, float]] = {}

    def weigh(self, place: tuple[int, int]) -> Weighing:
        """Return the candidate so many ratios from the first in weight and in penalty."""
        factor = _RATIO ** place[1]
        rows, cols = self.first.penalty
        return Weighing(min(self.first.others * _RATIO ** place[0], 1.0), (rows * factor, cols * factor))

    def try_at(self, place: tuple[int, int]) -> float:
        """Return how well held-out positives rank; no more than what is known once the trials are used up."""
        weighing = self.weigh(place)
        key = weighing.others, place[1]
        if key not in self.scores:
            if len(self.scores) == _MAX_TRIALS or self.task.journal.was_stopped:
                return -np.inf
            found = self.task.journal.try_out(lambda number: self._judge(weighing, number))
            if self.task.journal.was_stopped:
                return -np.inf
            self.scores[key] = weighing, found["score"]
            log.info(
                "trial %d: unobserved_weight %.4g, penalties %.4g times the first: validation gain %.6g",
                len(self.scores),
                weighing.others,
                _RATIO ** place[1],
                found["score"],
            )
        return self.scores[key][1]

    def _judge(self, weighing: Weighing, number: int) -> dict[str, Any]:
        callback = trial_callback(self.task.options.callback)
        factors, _ = Alternation(self.held.rest, weighing, self.task).run(_TRIAL_EPOCHS, callback, number)
        stopped = self.task.journal.was_stopped  # then nobody asks for the score
        return {"score": -np.inf if stopped else self.held.judge(factors)}

    def run(self) -> Weighing:
        """Return the best candidate."""
        best = (0, 0)
        steps = [step for step, wanted in (((0, 1), self.is_open[1]), ((1, 0), self.is_open[0])) if wanted]
        for step in steps:
            for sign in (1, -1):
                start = best
                while self.try_at(place := _shift(best, step, sign)) > self.try_at(best):
                    best = place
                if best != start:
                    break
        return self.weigh(best)

    def report(self) -> list[dict[str, Any]]:
        """Return what was tried."""
        return [
            {"unobserved_weight": weighing.others, "regularization": weighing.penalty, "validation_gain": score}
            for weighing, score in self.scores.values()
        ]


def fit_weak(
    positives: Positives, others: float | None, task: Task, *, search: bool, held: HeldRanks | None = None
) -> Fitted:
    """Fit implicit feedback.

    Parameters
    ----------
    positives : Positives
    others : float or None
        Weight of what is not stored; None: choose.
    search : bool
        Whether held-out positives decide what is open. Otherwise what suits most matrices is taken.
    held : HeldRanks, optional
        What the caller wants the fit to be judged by, after each epoch too; what is left of X is fitted then.
    """
    options, trials = task.options, list[dict[str, Any]]()
    density = positives.n_entries / (positives.shape[0] * positives.shape[1])
    usual = min(ZEROS_OVER_POSITIVES * density, MAX_AUTO_WEIGHT)
    weighing = Weighing(usual if others is None else others, options.penalty or (FIRST_PENALTY, FIRST_PENALTY))
    is_open = others is None, options.penalty is None
    with one_blas_thread():
        if search and any(is_open) and (held is not None or HeldRanks.is_possible(positives)):
            apart = held or HeldRanks.draw(positives, min(options.rank, _TRIAL_RANK), options.seed)
            trial = _Search(apart, task, weighing, is_open)
            weighing, trials = trial.run(), trial.report()
            del apart, trial
        n_epochs = options.max_epochs or AUTO_EPOCHS
        descent = Alternation(positives if held is None else held.rest, weighing, task)
        factors, history = descent.run(n_epochs, options.callback, held=held)
    chosen = {"regularization": weighing.penalty, "unobserved_weight": weighing.others, "n_epochs": n_epochs}
    return Fitted(factors, history, {**chosen, "trials": trials})
