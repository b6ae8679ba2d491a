"""Sums that the optimiser may not take apart: a b + c as one operation, and the sum of the numbers of a Vec.

Under the flags of `FASTMATH` a sum of two products may fuse either of them, and longer sums may take any order. What
comes out depends on how often the code went through the optimiser, and that differs between a process that compiles a
kernel and one that loads it from the disk cache. Where results must be equal in both, kernels use these functions.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastfactor.kernels.compiling import INTRINSICS, kernel
from fastfactor.kernels.simd import VecType, _join, _split, _widen


@intrinsic
def _muladd(typingctx, a, b, c):
    if not isinstance(b, VecType) or b.is_complex or not isinstance(a, VecType | types.Float):
        return None

    def codegen(context, builder, sig, args):
        operands = _widen(context, builder, args[0], a, b), _split(builder, b, args[1]), _split(builder, c, args[2])
        parts = []
        for x, y, z in zip(*operands, strict=True):
            name = f"llvm.fmuladd.v{x.type.count}f{b.real.bitwidth}"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type] * 3), name)
            parts.append(builder.call(function, [x, y, z]))  # without flags: as it stands
        return _join(context, builder, b, parts)

    return b(a, b, c), codegen


@intrinsic
def _sum_up(typingctx, v):
    if not isinstance(v, VecType) or v.is_complex:
        return None

    def codegen(context, builder, sig, args):
        sums, result = {}, ir.Constant(context.get_value_type(v.dtype), -0.0)
        for part in _split(builder, v, args[0]):
            size = part.type.count
            sums[size] = builder.fadd(sums[size], part) if size in sums else part
        for size, vector in sums.items():
            name, element = f"llvm.vector.reduce.fadd.v{size}f{v.real.bitwidth}", vector.type.element
            fold = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(element, [element, vector.type]), name
            )
            folded = builder.call(fold, [ir.Constant(element, -0.0), vector], fastmath=("reassoc",))  # as a tree
            result = builder.fadd(result, folded)
        return result

    return v.dtype(v), codegen


if INTRINSICS:
    muladd, sum_up = _muladd, _sum_up
else:

    @kernel
    def muladd(a, b, c):
        """Return a b + c for real Vecs b and c; a may be a number of their dtype."""
        return a * b + c

    @kernel
    def sum_up(v):
        """Return the sum over the lanes of a real Vec."""
        return v.sum()
