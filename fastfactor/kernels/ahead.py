"""Ask for single numbers of an array ahead of their use; `simd.prefetch` does so for rows of factors."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastfactor.kernels.compiling import INTRINSICS, kernel
from fastfactor.kernels.simd import _fetch


@intrinsic
def _prefetch_number(typingctx, numbers, i):
    def codegen(context, builder, sig, args):
        _fetch(builder, builder.gep(context.make_array(sig.args[0])(context, builder, args[0]).data, [args[1]]))
        return context.get_dummy_value()

    return types.void(numbers, types.intp), codegen


if INTRINSICS:
    prefetch_number = _prefetch_number
else:

    @kernel
    def prefetch_number(numbers, i):
        """Ask for the cache line of numbers[i], of a contiguous array; the address need not be valid."""
