"""How a command ends: exit codes, errors as one line, results as text or JSON."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

import numpy as np


class Code(IntEnum):
    """Exit codes; 128 + the number of a signal stands for a process that it stopped before there was a model."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    DIVERGED = 4
    STOPPED = 5


class Failure(Exception):
    """Ends the command with a message and an exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def failing_with(code: Code, but: tuple[type[BaseException], ...] | type[BaseException] = ()) -> Iterator[None]:
    """Turn the errors that the library raises, `but` these, into a `Failure` with this code.

    What is no error of the caller's (a bug) keeps its traceback.
    """
    try:
        yield
    except but:
        raise
    except OSError as error:  # its str begins with a number
        raise Failure(code, f"{error.strerror}: {error.filename}" if error.filename else str(error)) from error
    except KeyError as error:  # its str is a repr
        raise Failure(code, str(error.args[0])) from error
    except (ValueError, TypeError, IndexError, ImportError, MemoryError) as error:
        raise Failure(code, str(error) or type(error).__name__) from error


def as_json(value: Any) -> Any:
    """Return a value in terms of JSON; NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes | complex):
        return str(value)
    return value


class Talk:
    """Says what happens on stderr and what came out on stdout.

    Parameters
    ----------
    as_json : bool
        The result is one JSON object.
    quiet : bool
        Nothing but warnings and errors on stderr.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.wants_json, self.quiet = as_json, quiet

    def log(self, text: str) -> None:
        """Say one line on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, message: Any, *_: Any, **__: Any) -> None:
        """Say a warning on stderr: takes the place of `warnings.showwarning`."""
        print(f"warning: {message}", file=sys.stderr, flush=True)

    def result(self, values: Mapping[str, Any]) -> None:
        """Say what came out on stdout."""
        if self.wants_json:
            print(json.dumps(as_json(values)), flush=True)
            return
        for name, value in values.items():
            if value is None or (isinstance(value, float) and math.isnan(value)):
                continue
            print(f"{name.replace('_', ' '):<18}{_spell(value)}".rstrip(), flush=True)

    def fail(self, code: int, message: str) -> None:
        """Say an error on stderr, and on stdout too for those who read JSON."""
        print(f"error: {message}", file=sys.stderr, flush=True)
        if self.wants_json:
            print(json.dumps({"error": message, "exit_code": int(code)}), flush=True)

    @contextlib.contextmanager
    def hearing_warnings(self) -> Iterator[None]:
        """Say Python's warnings as lines of their own."""
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = self.warn
            yield


def _spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_spell(item)}" for name, item in value.items())
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_spell(item) for item in as_json(value))
    return str(value)
