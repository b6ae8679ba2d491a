"""Several rows of a tall matrix as one value: as many sums at a time as the machine has registers for.

A sum waits some four cycles for each of its terms, and two terms can be added in a cycle: with fewer than eight sums at
a time the machine idles, and with more than half of its registers hold it moves them to memory and back. So `ROWS` are
held, eight where 32 registers hold eight float64 each (AVX-512), else four. They are one `Vec`: operators work on
all of them, and a Vec of a single row takes part in each.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastfactor.kernels.compiling import INTRINSICS, has_feature, kernel
from fastfactor.kernels.simd import _FLAGS, VecType, _address, _join, _part_pointers, _row_length, _split, _widen

MOST_ROWS = 8  # tall matrices have a multiple of this many rows, whatever the machine
ROWS = MOST_ROWS if has_feature("avx512f") else MOST_ROWS // 2


def _row_pointers(context, builder, static, vec, sig, args):
    """Pointers to the parts of chunk args[2] of the rows from args[1] on of the matrix args[0]."""
    one_row, (M, row, chunk) = VecType(vec.dtype, vec.lanes), args[:3]
    for i in range(ROWS):
        row_i = builder.add(row, row.type(i))
        pointer = _address(context, builder, static, one_row, sig.args[0], M, row_i, chunk)
        yield from _part_pointers(builder, one_row, pointer)


@intrinsic
def _load_rows(typingctx, M, row, chunk, static):
    vec = VecType(M.dtype, static.spec.lanes, ROWS)

    def codegen(context, builder, sig, args):
        align = vec.real.bitwidth // 8
        pointers = _row_pointers(context, builder, static, vec, sig, args)
        return _join(context, builder, vec, [builder.load(pointer, align=align) for pointer in pointers])

    return vec(M, types.intp, types.intp, static), codegen


@intrinsic
def _store_rows(typingctx, M, row, chunk, w, static):
    def codegen(context, builder, sig, args):
        pointers = _row_pointers(context, builder, static, w, sig, args)
        for pointer, part in zip(pointers, _split(builder, w, args[3]), strict=True):
            builder.store(part, pointer, align=w.real.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(M, types.intp, types.intp, w, static), codegen


@intrinsic
def _zero_rows(typingctx, M, static):
    vec = VecType(M.dtype, static.spec.lanes, ROWS)

    def codegen(context, builder, sig, args):
        return context.get_constant_null(vec)

    return vec(M, static), codegen


def _spread(down):
    """Make the intrinsic that puts ROWS numbers of a matrix, down a column or along a row, into the lanes of a row."""

    @intrinsic
    def spread(typingctx, M, row, column, like, static):
        vec, one_row = VecType(like.dtype, static.spec.lanes, ROWS), VecType(like.dtype, static.spec.lanes)

        def codegen(context, builder, sig, args):
            matrix = context.make_array(sig.args[0])(context, builder, args[0])
            width = _row_length(builder, static, matrix)
            start, parts = builder.add(builder.mul(args[1], width), args[2]), []
            for i in range(ROWS):
                offset = builder.mul(width, width.type(i)) if down else width.type(i)
                pointer = builder.gep(matrix.data, [builder.add(start, offset)])
                number = context.unpack_value(builder, M.dtype, pointer)
                parts += _widen(context, builder, number, M.dtype, one_row)
            return _join(context, builder, vec, parts)

        return vec(M, types.intp, types.intp, like, static), codegen

    return spread


@intrinsic
def _sum_rows(typingctx, w):
    one_row = VecType(w.dtype, w.lanes)

    def codegen(context, builder, sig, args):
        parts, count = _split(builder, w, args[0]), len(one_row.parts)
        sums = parts[:count]
        for start in range(count, len(parts), count):
            sums = [builder.fadd(x, y, flags=_FLAGS) for x, y in zip(sums, parts[start:], strict=False)]
        return _join(context, builder, one_row, sums)

    return one_row(w), codegen


if INTRINSICS:
    load_rows, store_rows, zero_rows, sum_rows = _load_rows, _store_rows, _zero_rows, _sum_rows
    down, along = _spread(down=True), _spread(down=False)
else:
    from fastfactor.kernels.plain import check

    @kernel
    def load_rows(M, row, chunk, static):
        """Return chunk `chunk` of the rows from `row` on of the C-contiguous matrix M."""
        check(M, row + ROWS - 1, chunk, static)
        return M[row : row + ROWS, chunk * static.lanes : (chunk + 1) * static.lanes].copy()

    @kernel
    def store_rows(M, row, chunk, w, static):
        """Write `w` back to where `load_rows` found it."""
        check(M, row + ROWS - 1, chunk, static)
        M[row : row + ROWS, chunk * static.lanes : (chunk + 1) * static.lanes] = w

    @kernel
    def zero_rows(M, static):
        """Return rows of zeros in the dtype of M."""
        return np.zeros((ROWS, static.lanes), M.dtype)

    @kernel
    def down(M, row, column, like, static):
        """Return the numbers M[row], M[row + 1], ... down a column, each in all lanes of a row, in `like`'s dtype."""
        w = np.empty((ROWS, static.lanes), like.dtype)
        for i in range(ROWS):
            w[i] = M[row + np.uint64(i), column]
        return w

    @kernel
    def along(M, row, column, like, static):
        """Return the numbers M[row, column], M[row, column + 1], ... likewise."""
        w = np.empty((ROWS, static.lanes), like.dtype)
        for i in range(ROWS):
            w[i] = M[row, column + np.uint64(i)]
        return w

    @kernel
    def sum_rows(w):
        """Return the sum of the rows."""
        return w.sum(axis=0)
