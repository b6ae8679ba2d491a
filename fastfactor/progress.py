"""How far a fit is: a bar on a terminal (where rich is installed), plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Callable
from typing import Any

_PAUSE = 1.0  # seconds between two lines


def say_on_stderr(text: str) -> None:
    """Print a line where progress belongs."""
    print(text, file=sys.stderr, flush=True)


class Display:
    """A callback for `fit` that shows one epoch after the other, those of trials too.

    Parameters
    ----------
    callback : callable, optional
        Asked before each epoch is shown: its answer is passed on.
    max_seconds : float, optional
        When the fit ends at the latest.
    say : callable
        Takes a line where there is no bar.
    is_quiet : bool
        Show nothing, ask only.
    """

    hears_trials = True

    def __init__(
        self,
        callback: Callable[[Any], Any] | None = None,
        max_seconds: float | None = None,
        say: Callable[[str], None] = say_on_stderr,
        is_quiet: bool = False,
    ) -> None:
        self.callback, self.max_seconds, self.say, self.is_quiet = callback, max_seconds, say, is_quiet
        self._before: Any = None
        self._said = -math.inf
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Display:
        if not self.is_quiet and sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("fit"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("before the first epoch", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, epoch: Any) -> Any:
        """Ask the callback, and show where the fit is."""
        hears = epoch.trial == 0 or getattr(self.callback, "hears_trials", False)
        answer = self.callback(epoch) if self.callback is not None and hears else None
        if not self.is_quiet:
            self._show(epoch)
        return answer

    def _show(self, epoch: Any) -> None:
        text = self._describe(epoch)
        self._before = epoch
        if self._bar is not None:
            self._bar.update(self._task, total=epoch.n_epochs, completed=epoch.epoch, description=text)
        elif time.monotonic() - self._said >= _PAUSE or (epoch.trial == 0 and epoch.epoch == epoch.n_epochs):
            self._said = time.monotonic()
            self.say(text)

    def _describe(self, epoch: Any) -> str:
        words = [f"trial {epoch.trial}"] if epoch.trial else []
        words += [f"epoch {epoch.epoch}/{epoch.n_epochs}", f"loss {epoch.train_loss:.4g}"]
        if math.isfinite(epoch.validation_loss):
            words.append(f"validation {epoch.validation_loss:.4g}")
        # The first epoch's time holds that of the layout.
        if self._before is not None and (epoch.trial, epoch.epoch) == (self._before.trial, self._before.epoch + 1):
            seconds = max(epoch.seconds - self._before.seconds, 1e-9)
            left = (epoch.n_epochs - epoch.epoch) * seconds
            if self.max_seconds is not None:
                left = min(left, max(self.max_seconds - epoch.seconds, 0.0))
            words.append(f"{epoch.n_entries / seconds / 1e6:.3g} M entries/s")
            words += [] if epoch.trial else [f"{left:.0f} s left"]
        return ", ".join(words)
