"""Who takes part in a launch."""

from __future__ import annotations

from numba import prange, types

from fastfactor.kernels.compiling import parallel_kernel

_this_thread = types.ExternalFunction("gettid", types.int32())  # of the C library of Linux


@parallel_kernel
def find_threads(threads):
    """threads[i] = what the system calls the thread that iteration i runs on."""
    for i in prange(len(threads)):
        threads[i] = _this_thread()
