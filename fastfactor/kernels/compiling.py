"""How kernels are compiled and cached: the one decorator that every kernel wears.

Numba's disk cache watches only the file of the cached function, so an edit of `update.py` would leave a stale
`sweep_stored` behind. Here every kernel's cache entry carries a digest of all files in this folder (and of the switches
that change what they compile to) instead, and a package folder that cannot be written costs recompilation, not the
import.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import uuid
import warnings
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import caching
from numba.core.errors import NumbaWarning
from numba.core.registry import cpu_target

# Never nnan or ninf: they delete the checks that notice a diverging fit.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

# The switches that decide which code the same source compiles to (see simd.py).
SIMD = os.environ.get("FASTFACTOR_SIMD", "1") != "0"
DEBUG = os.environ.get("FASTFACTOR_DEBUG", "0") == "1"
INTRINSICS = SIMD and not DEBUG and not numba.config.DISABLE_JIT  # whether code is written in terms of LLVM


def has_feature(name: str) -> bool:
    """Return whether Numba compiles for a processor that has it, by LLVM's name for it."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return f"+{name}" in features.split(",")


def compute_digest() -> str:
    """Return a digest of the kernels' sources and switches: equal digests mean equal machine code."""
    digest = hashlib.sha256(f"simd={SIMD} debug={DEBUG}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


DIGEST = compute_digest()

USER_LOSS = "user loss "  # begins the names of losses that are not in these files: what they compile to is not kept


class _CacheFile(caching.IndexDataCacheFile):
    """Numba's index and data files, with names that no other process can choose at the same moment.

    Numba numbers data files by what the index holds, without a lock: of two processes that add different signatures at
    once, one's index may stay with the other's code.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep the code of one signature: first its file, then the index that names it.

        An index of other sources is replaced, and what it named would stay for ever: those files go too. A process of
        the other sources that has read the index and finds a file gone compiles, as it does without an index.
        """
        stale = self._find_stale()
        name = self._load_index().get(key) or self._data_name(uuid.uuid4().int)
        self._save_data(name, data)
        overloads = self._load_index()
        overloads[key] = name
        self._save_index(overloads)
        for each in stale:
            with contextlib.suppress(OSError):  # another process was first, or has it open where that forbids it
                os.unlink(self._data_path(each))

    def _find_stale(self) -> set[str]:
        """Return the names of the data files of an index of other sources; none where the index is of these."""
        try:
            with open(self._index_path, "rb") as file:
                if pickle.load(file) != self._version:  # what follows is another Numba's own
                    return set()
                stamp, overloads = pickle.load(file)
        except FileNotFoundError:
            return set()
        return set() if stamp == self._source_stamp else set(overloads.values())


class _KernelCache(caching.FunctionCache):
    """Numba's disk cache, with the digest of all kernel files in place of one file's time stamp."""

    def __init__(self, py_func: Any) -> None:
        super().__init__(py_func)
        self._cache_file = _CacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=DIGEST,
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled for `sig`, or None."""
        return None if USER_LOSS in str(sig) else super().load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for `sig`."""
        if USER_LOSS not in str(sig):
            super().save_overload(sig, data)


def _with_cache(dispatcher: Any) -> Any:
    if numba.config.DISABLE_JIT:
        return np.errstate(all="ignore")(dispatcher)  # numbers wrap around and overflow without a word, as compiled
    try:
        dispatcher._cache = _KernelCache(dispatcher.py_func)
    except (RuntimeError, OSError) as error:  # no folder that can be written: compile in each process instead
        warnings.warn(f"kernels are not cached: {error}", NumbaWarning, stacklevel=3)
    return dispatcher


def kernel(function: Any) -> Any:
    """Compile a function that runs inside one thread; it is inlined or linked into the sweeps that call it."""
    return _with_cache(numba.njit(function, fastmath=FASTMATH, error_model="numpy", nogil=True))


def inlined_kernel(function: Any) -> Any:
    """Compile a function into its callers: for one so short that counting its arguments' references would cost more."""
    return numba.njit(function, inline="always", fastmath=FASTMATH, error_model="numpy", nogil=True)


def entry_kernel(function: Any) -> Any:
    """Compile what is done for each entry, for LLVM to put it into the loop whatever its size.

    LLVM calls what is large, such as updates of more than 128 numbers. For each call the references of all arrays are
    counted, which takes longer than the update (docs/performance.md).
    """
    return _with_cache(numba.njit(function, fastmath=FASTMATH, error_model="numpy", nogil=True, forceinline=True))


def strict_kernel(function: Any) -> Any:
    """Compile a function whose sums are taken in the order they are written in, wherever it is inlined.

    Under FASTMATH the order also depends on how often code went through the optimiser, and that differs between a
    process that compiles a kernel and one that loads it from the disk cache.
    """
    return _with_cache(numba.njit(function, error_model="numpy", nogil=True))


def parallel_kernel(function: Any) -> Any:
    """Compile a function whose `prange` loops share out over the threads; call it through `threads.launch`."""
    return _with_cache(numba.njit(function, fastmath=FASTMATH, error_model="numpy", nogil=True, parallel=True))
