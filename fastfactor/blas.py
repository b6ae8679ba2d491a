"""BLAS beside our kernels: one BLAS thread while they run, and shared-out products whose bits do not depend on threads.

OpenBLAS leaves its threads spinning after a call; with them, the same kernels took two to three times as long.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import mmap
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.linalg  # noqa: F401  (brings its own BLAS, which the controller must see)
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

_THREAD_ROOM = 16 << 20  # bytes of address space: a thread's stack, and something to begin with
_LINE = 64  # bytes of a cache line


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


class _Holders:
    """Who holds the BLAS to one thread: the first to come sets the limit, the last to go puts the counts back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.limiter: Any = None

    def enter(self) -> None:
        with self.lock:
            if self.count == 0:
                self.limiter = _controller().limit(limits=1, user_api="blas")
            self.count += 1

    def leave(self) -> None:
        with self.lock:
            self.count -= 1
            if self.count == 0:
                self.limiter.restore_original_limits()


_holders = _Holders()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit every BLAS of this process to one thread, and put the counts back when no caller needs that any more."""
    holders = _holders
    holders.enter()
    try:
        yield
    finally:
        holders.leave()


def run_in_slices(work: Callable[[slice], Any], n_rows: int, n_threads: int, n_slices: int | None = None) -> list[Any]:
    """Return ``work(slice)`` for fixed slices of the rows, in order, from `n_threads` Python threads.

    The slices depend on `n_rows` only, so that whatever is summed from the results is the same for any thread count.
    """
    n_slices = n_slices or min(16, max(1, n_rows // 1024))  # shorter ones are not worth a thread
    edges = np.linspace(0, n_rows, n_slices + 1).astype(int)
    parts = [slice(int(start), int(stop)) for start, stop in itertools.pairwise(edges)]
    return run_in_threads(work, parts, n_threads)


def run_in_threads(work: Callable[[Any], Any], items: Sequence[Any], n_threads: int) -> list[Any]:
    """Return ``work(item)`` for each item, in order, from at most `n_threads` Python threads.

    Raises
    ------
    MemoryError
        If there is no room for so many threads: Python waits for ever for one that finds no memory to begin with.
    """
    if n_threads == 1 or len(items) < 2:
        return [work(item) for item in items]
    try:
        mmap.mmap(-1, n_threads * _THREAD_ROOM).close()
    except OSError as error:
        raise MemoryError(f"there is no memory for {n_threads} threads") from error
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, items))


def pad(n: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is >= n."""
    return -(-n // multiple) * multiple


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return zeros that start on a cache line: a row of eight float64 numbers is then one line, not parts of two."""
    return _align(np.zeros, shape, np.dtype(dtype))


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return uninitialised memory that starts on a cache line: rows that do not are read from one line more."""
    return _align(np.empty, shape, np.dtype(dtype))


def _align(make: Callable[..., NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    n_bytes = math.prod(shape) * dtype.itemsize
    raw = make(n_bytes + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + n_bytes].view(dtype).reshape(shape)
