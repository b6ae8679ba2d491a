"""Threads of a launch on cores of their own.

Linux may wake a thread on the core of the one that wakes it although another core is idle: to a virtual machine a core
that the host has put to sleep looks taken. Both then have turns of milliseconds on one core, and each launch waits for
both, until the scheduler balances the load. So threads that have fallen asleep are woken by a launch of nothing, during
which they may not use the core of the launching thread; afterwards they may again use all that they could before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator

import numba
import numpy as np

from fastfactor.kernels.teams import find_threads

_ASLEEP = 2.5e-4  # seconds without a launch after which waiting threads may sleep (threads.py says how long they spin)
_IDLE = 2e-3  # seconds that this thread must have slept before it is worth compiling `find_threads`


def _find_library() -> ctypes.CDLL | None:
    """Return the C library if it tells threads and cores apart, and kernels are compiled."""
    if sys.platform != "linux" or numba.config.DISABLE_JIT:
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gettid") and hasattr(library, "sched_getcpu") else None


_LIBRARY = _find_library()


class _Pool(threading.local):
    """What is known of the threads that launches of this thread run on: each has its own.

    Attributes
    ----------
    others : list of int
        The system's numbers of those threads; empty until the first launch after a pause.
    end, own : float
        When the last launch ended, on the wall and in this thread's own time; NaN before the first.
    """

    def __init__(self) -> None:
        self.others: list[int] = []
        self.end = self.own = float("nan")


_pool = _Pool()


def note_launch() -> None:
    """Remember that a launch of this thread has just ended: of those on one thread the others know nothing."""
    if numba.get_num_threads() == 1:
        return
    _pool.end = time.monotonic()
    if not _pool.others:
        _pool.own = time.thread_time()


def needs_placing() -> bool:
    """Tell whether the threads of the next launch have to be woken."""
    pause = time.monotonic() - _pool.end
    if not pause > _ASLEEP or _LIBRARY is None or numba.get_num_threads() == 1:  # NaN is not more
        return False
    return bool(_pool.others) or pause - (time.thread_time() - _pool.own) > _IDLE


def place_threads() -> None:
    """Wake the threads of a launch on cores other than that of the calling thread; `needs_placing` says when."""
    if _LIBRARY is None:
        return
    threads = np.empty(numba.get_num_threads(), np.int32)
    with kept_off(_LIBRARY.sched_getcpu(), _choose_living(_pool.others)):
        find_threads(threads)
    _pool.others = sorted({*threads.tolist()} - {threading.get_native_id()})


def _choose_living(threads: list[int]) -> list[int]:
    """Return those that are threads of this process: the system gives the numbers of ended ones to others."""
    with contextlib.suppress(OSError):
        own = {*os.listdir("/proc/self/task")}
        return [thread for thread in threads if str(thread) in own]
    return []


@contextlib.contextmanager
def kept_off(core: int, threads: list[int]) -> Iterator[None]:
    """Forbid these threads that core for a while, those of them that may use another."""
    before: dict[int, set[int]] = {}
    try:
        for thread in threads:
            with contextlib.suppress(OSError):  # it has ended, or a container forbids it
                allowed = os.sched_getaffinity(thread)
                if allowed - {core}:
                    os.sched_setaffinity(thread, allowed - {core})
                    before[thread] = allowed
        yield
    finally:
        for thread, allowed in before.items():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, allowed)
