"""A function in a process of its own, for code that may never return or may crash: it is killed and tried again."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

_METHOD = multiprocessing.get_context("spawn")  # a forked child would not have the threads that its libraries rely on


def _serve(function: Callable[..., Any], pipe: Connection) -> None:
    """Answer calls until the other end is closed."""
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, error
        pipe.send(answer)


@dataclass
class Apart:
    """Calls `function`, which another process can import, there; the process lives on for the next call.

    Attributes
    ----------
    seconds : float
        After which a call counts as one that never returns.
    attempts : int
        How often a call is tried.
    """

    function: Callable[..., Any]
    seconds: float
    attempts: int = 5
    _running: list[tuple[Any, Connection]] = field(default_factory=list)

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns for these arguments, or raise what it raises."""
        for _ in range(self.attempts):
            pipe = self._connect()
            try:
                pipe.send(arguments)
                if pipe.poll(self.seconds):
                    worked, answer = pipe.recv()
                    if worked:
                        return answer
                    raise answer
            except (EOFError, ConnectionError):  # it crashed
                pass
            self.stop()
        raise TimeoutError(
            f"{self.function.__name__} crashed, or took more than {self.seconds} s, in each of {self.attempts} attempts"
        )

    def _connect(self) -> Connection:
        if not self._running:
            here, there = _METHOD.Pipe()
            process = _METHOD.Process(target=_serve, args=(self.function, there), daemon=True)
            process.start()
            there.close()  # so that its end of the pipe closes with it
            self._running.append((process, here))
        return self._running[0][1]

    def stop(self) -> None:
        """End the process, if there is one."""
        while self._running:
            process, pipe = self._running.pop()
            process.kill()
            process.join()
            pipe.close()
