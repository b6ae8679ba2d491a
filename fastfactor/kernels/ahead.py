"""Ask for numbers of an array ahead of their use; `simd.prefetch` does so for rows of factors."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastfactor.kernels.compiling import INTRINSICS, kernel
from fastfactor.kernels.simd import CACHE_LINE, _fetch

_BYTE, _SIZE = ir.IntType(8).as_pointer(), ir.IntType(64)


@intrinsic
def _prefetch_number(typingctx, numbers, i):
    def codegen(context, builder, sig, args):
        _fetch(builder, builder.gep(context.make_array(sig.args[0])(context, builder, args[0]).data, [args[1]]))
        return context.get_dummy_value()

    return types.void(numbers, types.intp), codegen


def _walk_lines(module):
    """Return a function that asks for the lines of a range of bytes: one in a module, since LLVM unrolls its loop."""
    name = "fastfactor_prefetch_lines"
    walk = cgutils.get_or_insert_function(module, ir.FunctionType(ir.VoidType(), [_BYTE, _SIZE]), name)
    if not walk.blocks:
        walk.linkage = "linkonce_odr"
        walk.attributes.add("noinline")
        builder = ir.IRBuilder(walk.append_basic_block())
        start, n_bytes = walk.args
        with cgutils.for_range_slice(builder, _SIZE(0), n_bytes, _SIZE(CACHE_LINE)) as (offset, _):
            _fetch(builder, builder.gep(start, [offset]))
        builder.ret_void()
    return walk


def _ask_for_lines(context, builder, typ, value):
    if isinstance(typ, types.BaseTuple):
        for part, item in zip(typ, cgutils.unpack_tuple(builder, value), strict=True):
            _ask_for_lines(context, builder, part, item)
    elif isinstance(typ, types.Array):
        array = context.make_array(typ)(context, builder, value)
        n_bytes = builder.mul(array.nitems, array.itemsize)
        builder.call(_walk_lines(builder.module), [builder.bitcast(array.data, _BYTE), n_bytes])


@intrinsic
def _prefetch_all(typingctx, numbers):
    def codegen(context, builder, sig, args):
        _ask_for_lines(context, builder, numbers, args[0])
        return context.get_dummy_value()

    return types.void(numbers), codegen


if INTRINSICS:
    prefetch_number, prefetch_all = _prefetch_number, _prefetch_all
else:

    @kernel
    def prefetch_number(numbers, i):
        """Ask for the cache line of numbers[i], of a contiguous array; the address need not be valid."""

    @kernel
    def prefetch_all(numbers):
        """Ask for all of a contiguous array in order, or of each array in a tuple; single numbers are left alone."""
