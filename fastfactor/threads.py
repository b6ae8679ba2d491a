"""Who owns the cores: thread counts, one launch at a time where the threading layer needs it, forked children.

Nothing here touches Numba's threading layer before the first launch, so importing fastfactor starts no threads.
"""

from __future__ import annotations

import contextlib
import numbers
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numba

from fastfactor.placing import needs_placing, note_launch, place_threads

# On other layers ("workqueue") two threads that launch at once abort the process.
_REENTRANT_LAYERS = frozenset({"tbb", "omp"})

# Numbers updated in one round of kernel calls. With fewer, a second thread gains next to nothing at rest, and where
# other programs have the cores each call waits until its last thread gets a turn (docs/performance.md).
_WORTH_SHARING = 1e5

# How often GNU OpenMP's threads look for work before they sleep. It has them spin ten times as long, through the
# turns of the very threads that they wait for, where other programs have the cores; with a tenth of this they fall
# asleep between the calls of one solver, at rest too (docs/performance.md).
_SPINS = {"GOMP_SPINCOUNT": "30000"}
_SPIN_VARIABLES = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}

_lock = threading.RLock()
_is_started = False  # whether the threading layer is loaded
_layer: str | None = None  # known after the first launch
_launched_in: int | None = None  # the process that started the layer's threads


def _forget_lock() -> None:
    global _lock
    _lock = threading.RLock()  # the parent's other threads, which may have held it, do not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def _start_layer() -> None:
    """Load the threading layer, which reads from the environment how long to spin; the usual count is lent to it."""
    global _is_started
    if _is_started:
        return
    with _lock:
        lent = {} if _SPIN_VARIABLES & os.environ.keys() else _SPINS
        os.environ.update(lent)
        try:
            numba.get_num_threads()
        finally:
            for name in lent:
                del os.environ[name]
        _is_started = True


def count_threads(n_threads: int | None) -> int:
    """Return how many threads to use: `n_threads`, but no more than the process may run on; None means all of those.

    Raises
    ------
    TypeError, ValueError
        If `n_threads` is not None and not an integer >= 1.
    """
    available = int(numba.config.NUMBA_NUM_THREADS)  # Numba takes it from the CPU affinity
    if n_threads is None:
        _start_layer()
        return min(available, numba.get_num_threads())
    if isinstance(n_threads, bool) or not isinstance(n_threads, numbers.Integral):
        raise TypeError(f"n_threads must be an integer or None, got {n_threads!r}")
    if n_threads < 1:
        raise ValueError(f"n_threads must be at least 1, got {n_threads}")
    return min(available, int(n_threads))


@contextlib.contextmanager
def using_threads(n_threads: int | None) -> Iterator[int]:
    """Run kernels on `n_threads` threads, and put the caller's count back afterwards, whatever happens."""
    _start_layer()
    count, before = count_threads(n_threads), numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield count
    finally:
        numba.set_num_threads(before)


def using_threads_for(work: float, least: float = _WORTH_SHARING) -> contextlib.AbstractContextManager[int]:
    """Run rounds of kernel calls that update `work` numbers each: on one thread where that is less than `least`."""
    return using_threads(None if work >= least else 1)


def _check_fork() -> None:
    if _layer == "omp" and _launched_in != os.getpid():
        raise RuntimeError(
            "this process was forked after a fit had started GNU OpenMP threads, which do not survive a fork: start "
            "workers with the 'spawn' or 'forkserver' method, or set NUMBA_THREADING_LAYER=tbb (package tbb; where it "
            "does not load, LD_LIBRARY_PATH must name the folder of its library)"
        )


def launch(kernel: Callable[..., Any], *args: Any) -> Any:
    """Call a parallel kernel: one at a time in this process, unless the threading layer can take more.

    Raises
    ------
    RuntimeError
        In a process forked after GNU OpenMP threads were started: they are gone, and the call would crash.
    """
    global _layer, _launched_in
    _check_fork()
    _start_layer()
    if _layer in _REENTRANT_LAYERS:
        return _call(kernel, args)
    with _lock:
        result = _call(kernel, args)
        if not numba.config.DISABLE_JIT:
            _layer, _launched_in = numba.threading_layer(), os.getpid()
    return result


def _call(kernel: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if needs_placing():
        place_threads()
    result = kernel(*args)
    note_launch()
    return result
