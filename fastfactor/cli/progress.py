"""How far a fit is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from fastfactor.cli.outcomes import Talk

_PAUSE = 1.0  # seconds between two lines


class Progress:
    """Shows one epoch after the other.

    Parameters
    ----------
    talk : Talk
    n_entries : int
        That an epoch visits.
    n_epochs : int or None
        Planned; None where held-out entries decide.
    max_seconds : float or None
    """

    def __init__(self, talk: Talk, n_entries: int, n_epochs: int | None, max_seconds: float | None) -> None:
        self.talk, self.n_entries, self.n_epochs, self.max_seconds = talk, n_entries, n_epochs, max_seconds
        self._before: Any = None
        self._said = -math.inf
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self.talk.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("fit"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("before the first epoch", total=self.n_epochs)
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, epoch: Any) -> None:
        """Show where the fit is after an epoch."""
        text = self._describe(epoch)
        self._before = epoch
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch.epoch, description=text)
        elif time.monotonic() - self._said >= _PAUSE or epoch.epoch == self.n_epochs:
            self._said = time.monotonic()
            self.talk.log(text)

    def _describe(self, epoch: Any) -> str:
        of = "" if self.n_epochs is None else f"/{self.n_epochs}"
        words = [f"epoch {epoch.epoch}{of}", f"loss {epoch.train_loss:.4g}"]
        if math.isfinite(epoch.validation_loss):
            words.append(f"validation {epoch.validation_loss:.4g}")
        if self._before is not None and epoch.epoch > self._before.epoch:  # the first one's time holds the layout's
            seconds = max(epoch.seconds - self._before.seconds, 1e-9)
            words.append(f"{self.n_entries / seconds / 1e6:.3g} M entries/s")
            if (left := self._seconds_left(epoch, seconds)) is not None:
                words.append(f"{left:.0f} s left")
        return ", ".join(words)

    def _seconds_left(self, epoch: Any, seconds: float) -> float | None:
        limits = []
        if self.n_epochs is not None:
            limits.append((self.n_epochs - epoch.epoch) * seconds)
        if self.max_seconds is not None:
            limits.append(max(self.max_seconds - epoch.seconds, 0.0))
        return min(limits, default=None)
