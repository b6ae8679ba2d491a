"""Products of rows and columns of 8-bit integers: the small room of the approximate scores (screen.py has the maths).

Two faces with the same functions and, the sums being exact, the same numbers:

- where the machine has AVX-512 VNNI, eight rows times a panel of 32 columns are one step, its 256 sums in registers.
  Four neighbouring numbers of a column lie together, as `vpdpbusd` takes them: 64 products an instruction, four times
  what float32 gives;
- elsewhere the BLAS multiplies the same integers, kept as float32. Up to 2**24 that is exact.

`shape_of_columns(n, width)` is the shape of the array that n columns of `width` integers are kept in,
`put(codes, i, q, code)` writes number q of column i to it, and `multiply(rows, codes, first, tile)` fills `tile` with
the products of all rows, ROWS at a time, and the columns from `first` on, PANEL at a time.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastfactor.kernels.compiling import INTRINSICS, has_feature, kernel

ROWS = 8  # of a step
PANEL = 32  # columns of a step
GROUP = 4  # numbers that are multiplied and added at once
LARGEST = 127  # of the integers
MAX_WIDTH = 2**24 // LARGEST**2 // GROUP * GROUP  # the sums of so many products are exact, also in float32

_OFFSET = 128  # added to a column's numbers: the machine multiplies unsigned ones by signed ones
_WORD = ir.IntType(32)
_SUMS = ir.VectorType(_WORD, 16)
_VECTORS = PANEL // 16


def _add_products(builder, sums, unsigned, signed):
    """Add to each of 16 sums four products of bytes."""
    name = "llvm.x86.avx512.vpdpbusd.512"
    add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_SUMS, [_SUMS] * 3), name)
    return builder.call(add, [sums, unsigned, signed])


def _splat(builder, scalar):
    zeros = ir.Constant(_SUMS, None)
    vector = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), scalar, _WORD(0))
    return builder.shuffle_vector(vector, ir.Constant(_SUMS, ir.Undefined), zeros)


@intrinsic
def _multiply_panel(typingctx, rows, starts, r, panels, p, out, j):
    """Write the products of rows r to r + ROWS and panel p, plus the rows' starts, to out[r:, j:]."""

    def codegen(context, builder, sig, args):
        r_, p_, j_ = args[2], args[4], args[6]

        def constant(n):
            return ir.Constant(r_.type, n)

        def pointer(i, offset, target):
            data = context.make_array(sig.args[i])(context, builder, args[i]).data
            return builder.bitcast(builder.gep(data, [offset]), target.as_pointer())

        def length(i):
            return builder.extract_value(context.make_array(sig.args[i])(context, builder, args[i]).shape, 1)

        width, line = length(0), length(5)
        panel = pointer(3, builder.mul(p_, builder.mul(width, constant(PANEL))), _SUMS)
        places = [builder.add(r_, constant(i)) for i in range(ROWS)]
        words = [pointer(0, builder.mul(row, width), _WORD) for row in places]
        begin = [_splat(builder, builder.load(pointer(1, row, _WORD))) for row in places]
        sums = [[cgutils.alloca_once_value(builder, start) for _ in range(_VECTORS)] for start in begin]
        with cgutils.for_range(builder, builder.udiv(width, constant(GROUP))) as loop:
            at = builder.mul(loop.index, constant(_VECTORS))
            cols = [builder.load(builder.gep(panel, [builder.add(at, constant(c))])) for c in range(_VECTORS)]
            for word, row_sums in zip(words, sums, strict=True):
                four = _splat(builder, builder.load(builder.gep(word, [loop.index]), align=GROUP))
                for place, col in zip(row_sums, cols, strict=True):
                    builder.store(_add_products(builder, builder.load(place), col, four), place)
        for row, row_sums in zip(places, sums, strict=True):
            target = pointer(5, builder.add(builder.mul(row, line), j_), _SUMS)
            for c, place in enumerate(row_sums):
                builder.store(builder.load(place), builder.gep(target, [constant(c)]), align=GROUP)
        return context.get_dummy_value()

    return types.void(rows, starts, types.intp, panels, types.intp, out, types.intp), codegen


def _shape_in_panels(n: int, width: int) -> tuple[int, ...]:
    return -(-n // PANEL), width // GROUP, PANEL, GROUP


@kernel
def _put_in_panels(codes, i, q, code):
    codes[i // PANEL, q // GROUP, i % PANEL, q % GROUP] = np.uint8(np.int64(code) + _OFFSET)


@kernel
def _multiply_panels(rows, columns, first, tile):
    starts = np.empty(len(rows), np.int32)  # take away what the columns' offset adds
    for r in range(len(rows)):
        starts[r] = -_OFFSET * rows[r].sum()
    for p in range(tile.shape[1] // PANEL):
        for r in range(0, len(rows), ROWS):
            _multiply_panel(rows, starts, r, columns, first // PANEL + p, tile, p * PANEL)


def _shape_plain(n: int, width: int) -> tuple[int, ...]:
    return n, width


@kernel
def _put_plain(codes, i, q, code):
    codes[i, q] = code


@kernel
def _multiply_plain(rows, columns, first, tile):
    np.dot(rows, columns[first : first + tile.shape[1]].T, tile)


if INTRINSICS and has_feature("avx512vnni"):
    ROW_CODE, COLUMN_CODE, SUM = np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int32)
    shape_of_columns, put, multiply = _shape_in_panels, _put_in_panels, _multiply_panels
else:
    ROW_CODE = COLUMN_CODE = SUM = np.dtype(np.float32)
    shape_of_columns, put, multiply = _shape_plain, _put_plain, _multiply_plain
