"""What a fit has done so far: told to callbacks and the log, and enough to go on from after the process was killed.

A fit is a fixed sequence of descents: the trials that choose penalties, then the one whose factors are the model. The
journal keeps what each finished trial found, and where the running descent stood after its last epoch. A fit that is
resumed runs the same code again: trials that are known answer from the journal, and the descent that was running goes
on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from fastfactor.kernels.update import Factors
from fastfactor.solvers.memory import copy_factors

log = logging.getLogger("fastfactor")

_MOST = 1 << 20  # epochs and halvings that a journal may speak of
_PAUSE = 5.0  # seconds between two writes: what a kill costs at most
_SHARE = 20.0  # a write may take one part in so many of the time
_PATIENCE = 5  # epochs without a better validation loss before a fit stops


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
    n_epochs : int
        Planned in all; it may end before, where validation entries say so.
    n_entries : int
        That it visited.
    trial : int
        Which trial it belongs to, counted from 1; 0 for the fit whose factors are the model.
    """

    epoch: int
    seconds: float
    learning_rate: float
    train_loss: float
    validation_loss: float
    n_epochs: int
    n_entries: int
    trial: int = 0


@dataclass
class Progress:
    """Where a descent stands between two epochs.

    Attributes
    ----------
    factors : Factors
    attempt : int
        How often the step was halved.
    epoch : int
        How many epochs of this attempt are done.
    best : Factors or None
        Those of the best epoch by validation.
    best_loss, best_epoch : number
        Its validation loss, and how many epochs it took.
    history : list of Epoch
        Of all attempts.
    """

    factors: Factors
    attempt: int = 0
    epoch: int = 0
    best: Factors | None = None
    best_loss: float = float("inf")
    best_epoch: int = 0
    history: list[Epoch] = field(default_factory=list)

    def add(self, epoch: Epoch) -> None:
        """Enter an epoch; keep its factors when no one before was better on the validation entries."""
        self.history.append(epoch)
        self.epoch = epoch.epoch
        if epoch.validation_loss < self.best_loss:
            self.best = copy_factors(self.factors, self.best)
            self.best_loss, self.best_epoch = epoch.validation_loss, epoch.epoch

    def has_stalled(self, unjudged: int = 0) -> bool:
        """Whether the last epochs, the first `unjudged` left out, brought no better validation loss."""
        return self.best is not None and self.epoch - max(self.best_epoch, unjudged) >= _PATIENCE

    def describe(self) -> dict[str, Any]:
        """Return all of it as plain values and arrays."""
        columns = {each.name: np.array([getattr(e, each.name) for e in self.history]) for each in fields(Epoch)}
        parts = {"factors": tuple(self.factors), "best": None if self.best is None else tuple(self.best)}
        numbers = {name: getattr(self, name) for name in ("attempt", "epoch", "best_loss", "best_epoch")}
        return {**numbers, **parts, "history": columns}

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Progress:
        """Return what `describe` was called on."""
        names = [each.name for each in fields(Epoch)]
        history = [Epoch(*line) for line in zip(*(found["history"][name].tolist() for name in names), strict=True)]
        factors, best = (
            None if found[name] is None else copy_factors(Factors(*found[name])) for name in ("factors", "best")
        )
        numbers = [found[name] for name in ("attempt", "epoch", "best_epoch")]
        best_loss = found["best_loss"]
        if (
            factors is None
            or not all(type(n) is int and 0 <= n < _MOST for n in numbers)
            or not isinstance(best_loss, float)
        ):
            raise ValueError(f"numbers of epochs are {numbers}, the best loss is {best_loss!r}")
        if numbers[1] > 0 and not history:
            raise ValueError(f"there is no history of {numbers[1]} epochs")
        return cls(factors, numbers[0], numbers[1], best, best_loss, numbers[2], history)


class Journal:
    """The record of one fit.

    Parameters
    ----------
    write : callable, optional
        Takes what `read` was given, brought up to date, and keeps it; without one nothing is kept.
    found : mapping, optional
        What was kept by a fit that did not end: "trials", "seconds" and "descent".

    Attributes
    ----------
    was_stopped : bool
        Whether a callback or the deadline ended the fit before its time.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None] | None = None, found: Mapping[str, Any] | None = None):
        found = found or {"trials": [], "seconds": 0.0, "descent": None}
        self.was_stopped = False
        self._write = write
        self._trials: list[dict[str, Any]] = list(found["trials"])
        self._n_seen = 0
        self._descent: Mapping[str, Any] | None = found["descent"]
        self.seconds_before: float = found["seconds"]
        self._started = time.perf_counter() if write else 0.0
        self._next = 0.0  # the first epoch is kept at once: a folder that cannot be written shows

    def try_out(self, run: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        """Return what the next trial found: from the journal if it is known, else what `run(number)` returns.

        A trial that was stopped counts for nothing: it goes on when the fit is resumed.
        """
        self._n_seen += 1
        if self._n_seen > len(self._trials):
            found = run(self._n_seen)
            if self.was_stopped:
                return found
            self._trials.append(found)
            self._keep(None)
        return self._trials[self._n_seen - 1]

    def resume(self, draw: Callable[[], Factors]) -> Progress:
        """Return where the descent that now begins stood, if it is the one that was running; else that it begins.

        Raises
        ------
        ValueError
            If what was kept cannot be factors like those that `draw` returns: kernels would follow it blindly.
        """
        found, self._descent = self._descent, None
        if found is None:
            return Progress(draw())
        try:
            progress = Progress.read(found)
            like = [(M.shape, M.dtype) for M in draw()]
            for kept in (progress.factors, progress.best or progress.factors):
                if [(M.shape, M.dtype) for M in kept] != like:
                    raise ValueError(f"factors of {[M.shape for M in kept]} where {like} are expected")
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(f"checkpoint cannot be used, what it keeps is no state of this fit: {error}") from error
        return progress

    def note(self, progress: Progress) -> None:
        """Keep where the running descent is, unless that was done a moment ago."""
        self._keep(progress)

    def is_over(
        self, progress: Progress, n_epochs: int, callback: Callable[[Epoch], Any] | None, unjudged: int = 0
    ) -> bool:
        """Whether a descent ends where it is; `callback` is asked about the last epoch (again, after a resumption)."""
        if progress.epoch == 0:
            return False
        ends = progress.epoch >= n_epochs or progress.has_stalled(unjudged)
        if callback is not None and callback(progress.history[-1]):
            if not ends:
                self._keep(progress, at_once=True)
                self.stop()
            return True
        return ends

    def stop(self) -> None:
        """Take note that the fit ends before its time; what is kept stays as it is, to go on from."""
        self.was_stopped = True

    def _keep(self, progress: Progress | None, at_once: bool = False) -> None:
        if self._write is None or self.was_stopped:
            return
        now = time.perf_counter()
        if not at_once and now < self._next:
            return
        seconds = self.seconds_before + now - self._started
        descent = None if progress is None else progress.describe()
        self._write({"trials": self._trials, "seconds": seconds, "descent": descent})
        written = time.perf_counter()
        self._next = written + max(_PAUSE, _SHARE * (written - now))


def trial_callback(callback: Callable[[Epoch], Any] | None) -> Callable[[Epoch], Any] | None:
    """Return the callback if it wants to hear of trials too."""
    return callback if getattr(callback, "hears_trials", False) else None
