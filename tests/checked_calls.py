"""bad_calls.py, every kernel serial and its indices checked: a look outside an array is an IndexError, so a fault."""

import sys

import numba

from fastfactor import threads
from fastfactor.kernels import compiling


def compile_checked(function):
    checked = numba.njit(function, boundscheck=True, fastmath=compiling.FASTMATH, error_model="numpy", nogil=True)
    return compiling._with_cache(checked)


compiling.kernel = compiling.strict_kernel = compiling.parallel_kernel = compile_checked
threads.launch = lambda kernel, *args: kernel(*args)

from bad_calls import try_case  # noqa: E402 (what it imports must find the above)
from campaign import work_off  # noqa: E402

if __name__ == "__main__":
    first, count, progress = sys.argv[1:]
    work_off(lambda number, folder: try_case(number, True, folder), int(first), int(count), progress)
