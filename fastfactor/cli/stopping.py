"""SIGINT and SIGTERM during a fit: end it after the running epoch, so that the model can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal came when there was nothing to save yet, or for the second time."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Stopping:
    """While it is entered, the first signal asks for the end, and is obeyed once there is a model to save.

    It is a callback for `fit`, which is asked after each epoch, those of trials too.

    Attributes
    ----------
    signum : int or None
        The signal that asked.
    has_model : bool
        Whether an epoch has ended. Before that a signal raises `Interrupted`.
    was_obeyed : bool
        Whether the fit was told to end.
    """

    hears_trials = True

    def __init__(self) -> None:
        self.signum: int | None = None
        self.has_model = self.was_obeyed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python sets no handlers
            self._before = {signum: signal.signal(signum, self._take) for signum in SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None or not self.has_model:
            raise Interrupted(signum)
        self.signum = signum

    def __call__(self, epoch: Any = None) -> bool:
        """Whether to end now."""
        self.has_model = True
        self.was_obeyed = self.was_obeyed or self.signum is not None
        return self.was_obeyed
