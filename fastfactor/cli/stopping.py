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

    Attributes
    ----------
    signum : int or None
        The signal that asked.
    has_model : bool
        Whether an epoch of the fit whose model is kept has ended. Before that a signal raises `Interrupted`.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.has_model = False
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

    def check(self) -> bool:
        """Whether to end now; called after each epoch."""
        self.has_model = True
        return self.signum is not None
