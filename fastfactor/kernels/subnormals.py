"""A switch of the processor: subnormal numbers count as zero while a block is swept."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_process_triple
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastfactor.kernels.compiling import INTRINSICS, kernel

# Factors that only ever shrink (of a column of zeros, say) end among the subnormal numbers, where one update costs a
# hundred. x86 has a switch for that, one per thread: bits 15 and 6 of its control register make them zero.
_FLUSH = 0x8040
_IS_X86 = get_process_triple().startswith(("x86_64", "i686"))


def _access_control(builder, name, register):
    function = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
    access = cgutils.get_or_insert_function(builder.module, function, f"llvm.x86.sse.{name}mxcsr")
    builder.call(access, [builder.bitcast(register, ir.IntType(8).as_pointer())])


@intrinsic
def _flush_subnormals(typingctx):
    def codegen(context, builder, sig, args):
        if not _IS_X86:
            return ir.Constant(ir.IntType(32), 0)
        register = cgutils.alloca_once(builder, ir.IntType(32))
        _access_control(builder, "st", register)
        before = builder.load(register)
        builder.store(builder.or_(before, ir.Constant(ir.IntType(32), _FLUSH)), register)
        _access_control(builder, "ld", register)
        return before

    return types.uint32(), codegen


@intrinsic
def _restore_subnormals(typingctx, before):
    def codegen(context, builder, sig, args):
        if _IS_X86:
            register = cgutils.alloca_once_value(builder, args[0])
            _access_control(builder, "ld", register)
        return context.get_dummy_value()

    return types.void(types.uint32), codegen


if INTRINSICS:
    flush_subnormals, restore_subnormals = _flush_subnormals, _restore_subnormals
else:

    @kernel
    def flush_subnormals():
        """Have this thread treat subnormal numbers as zero, where the machine can; return the state before."""
        return np.uint32(0)

    @kernel
    def restore_subnormals(before):
        """Undo `flush_subnormals`."""
