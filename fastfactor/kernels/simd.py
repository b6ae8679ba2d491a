"""One factor row as a machine vector: the small room where the speed is kept.

A `Vec` is a Numba value whose data model is an LLVM vector, so that a row of 64 floats lives in however many registers
the machine needs for it, and `e = x - total(u * conj(v))` compiles to a handful of instructions. The rest of the
kernels only use the names exported here, and read like the equations they implement.

There are three faces with the same functions (`plain.py` holds and documents the two that need no vectors):

- the intrinsics below (the default);
- plain array code, for `NUMBA_DISABLE_JIT=1` and, with `FASTFACTOR_SIMD=0`, for machines or Numba versions on which
  vectors fail;
- plain array code that checks each index, with `FASTFACTOR_DEBUG=1` (implies the plain face).
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import (
    NativeValue,
    intrinsic,
    overload,
    overload_attribute,
    register_model,
    unbox,
)

from fastfactor.kernels.compiling import FASTMATH, INTRINSICS

_FLAGS = tuple(sorted(FASTMATH))
CACHE_LINE = 64  # bytes; what `store_past` writes begins on one


class Spec(NamedTuple):
    """What a sweep is compiled for. It travels as a type: each distinct Spec is its own machine code.

    Attributes
    ----------
    lanes : int
        Numbers per Vec.
    whole : bool
        True when one Vec is a whole factor row; False when the row is walked in chunks of `lanes`.
    loss : str
        A name from `losses.LOSSES`.
    biases : bool
        Whether each row and column has an offset of its own.
    """

    lanes: int
    whole: bool = True
    loss: str = "squared"
    biases: bool = False


class Static:
    """Carries a `Spec` into compiled code, where its fields are compile-time constants."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._numba_type_ = StaticType(spec)  # where Numba looks for an argument's type without a call into Python
        for name, value in spec._asdict().items():
            setattr(self, name, value)


class StaticType(types.Type):
    """The Numba type of a `Static`; two of them are equal when their Specs are."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        super().__init__(name=f"Static({spec!r})")


register_model(StaticType)(models.OpaqueModel)


@unbox(StaticType)
def _unbox_static(typ, obj, c):
    return NativeValue(c.context.get_dummy_value())


def _expose(name: str) -> None:
    @overload_attribute(StaticType, name, inline="always")
    def _constant(static):
        value = getattr(static.spec, name)
        return lambda static: value


for _name in ("lanes", "whole", "biases"):
    _expose(_name)


class VecType(types.Type):
    """`lanes` numbers of one floating or complex dtype (complex ones interleaved, as in memory), in each of `rows`."""

    def __init__(self, dtype: types.Type, lanes: int, rows: int = 1) -> None:
        self.dtype = dtype
        self.lanes = lanes
        self.rows = rows
        super().__init__(name=f"Vec({dtype}, {rows} x {lanes})")

    @property
    def is_complex(self) -> bool:
        """Whether the lanes hold complex numbers."""
        return isinstance(self.dtype, types.Complex)

    @property
    def real(self) -> types.Type:
        """The Numba type of a real part."""
        return self.dtype.underlying_float if self.is_complex else self.dtype

    @property
    def parts(self) -> list[int]:
        """Real numbers per LLVM vector: powers of two, since LLVM takes other lengths apart number by number."""
        count = 2 * self.lanes if self.is_complex else self.lanes
        return ([16] * (count // 16) + [size for size in (8, 4, 2, 1) if count % 16 & size]) * self.rows


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        element = dmm.lookup(fe_type.real).get_value_type()
        super().__init__(dmm, fe_type, ir.LiteralStructType([ir.VectorType(element, n) for n in fe_type.parts]))


def _split(builder, vec, value):
    return [builder.extract_value(value, i) for i in range(len(vec.parts))]


def _join(context, builder, vec, parts):
    value = ir.Constant(context.get_value_type(vec), ir.Undefined)
    for i, part in enumerate(parts):
        value = builder.insert_value(value, part, i)
    return value


def _row_length(builder, static, matrix):
    """Numbers in a row: a compile-time constant where a row is exactly one Vec."""
    length = builder.extract_value(matrix.shape, 1)
    return ir.Constant(length.type, static.spec.lanes) if static.spec.whole else length


def _address(context, builder, static, vec, array_type, array, row, chunk):
    """Pointer to a chunk of a row of a C-contiguous matrix: no stride but the row length, no negative index."""
    matrix = context.make_array(array_type)(context, builder, array)
    offset = builder.mul(row, _row_length(builder, static, matrix))
    if not static.spec.whole:
        offset = builder.add(offset, builder.mul(chunk, ir.Constant(chunk.type, vec.lanes)))
    return builder.bitcast(builder.gep(matrix.data, [offset]), context.get_value_type(vec.real).as_pointer())


def _part_pointers(builder, vec, pointer):
    """Pointers to the parts of the Vec at `pointer`."""
    element = pointer.type.pointee
    for start, size in zip(np.cumsum([0, *vec.parts]), vec.parts, strict=False):
        part = builder.gep(pointer, [ir.Constant(ir.IntType(64), int(start))])
        yield builder.bitcast(part, ir.VectorType(element, size).as_pointer())


# An LLVM vector's own alignment (64 bytes for 16 floats) faults on NumPy memory: loads and stores claim the element's.


@intrinsic
def _load(typingctx, M, row, chunk, static):
    vec = VecType(M.dtype, static.spec.lanes)

    def codegen(context, builder, sig, args):
        pointer = _address(context, builder, static, vec, sig.args[0], *args[:3])
        align = vec.real.bitwidth // 8
        parts = [builder.load(part, align=align) for part in _part_pointers(builder, vec, pointer)]
        return _join(context, builder, vec, parts)

    return vec(M, types.intp, types.intp, static), codegen


def _storing(past_caches):
    """Make the intrinsic that writes a Vec to a row, or one that writes whole cache lines past the caches."""

    @intrinsic
    def store(typingctx, M, row, chunk, v, static):
        def codegen(context, builder, sig, args):
            pointer = _address(context, builder, static, v, sig.args[0], *args[:3])
            for target, part in zip(_part_pointers(builder, v, pointer), _split(builder, v, args[3]), strict=True):
                store = builder.store(part, target, align=CACHE_LINE if past_caches else v.real.bitwidth // 8)
                if past_caches:
                    store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
            return context.get_dummy_value()

        return types.void(M, types.intp, types.intp, v, static), codegen

    return store


def _fetch(builder, pointer):
    """Ask for the cache line at `pointer`."""
    byte, int32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    fetch = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [byte, int32, int32, int32]), "llvm.prefetch.p0"
    )
    # for reading, keep in all caches, data
    builder.call(fetch, [builder.bitcast(pointer, byte), int32(0), int32(3), int32(1)])


@intrinsic
def _prefetch(typingctx, M, row, chunk, static):
    vec = VecType(M.dtype, static.spec.lanes)

    def codegen(context, builder, sig, args):
        pointer = _address(context, builder, static, vec, sig.args[0], *args[:3])
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        for offset in range(0, sum(vec.parts) * vec.real.bitwidth // 8, CACHE_LINE):
            _fetch(builder, builder.gep(pointer, [ir.Constant(ir.IntType(64), offset)]))
        return context.get_dummy_value()

    return types.void(M, types.intp, types.intp, static), codegen


def _shuffle(builder, first, lanes, second=None):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(first, ir.Constant(first.type, ir.Undefined) if second is None else second, mask)


def _splat(builder, scalar, count):
    vector = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    return _shuffle(builder, builder.insert_element(vector, scalar, ir.IntType(32)(0)), [0] * count)


def _signs(vector_type, first, second):
    return ir.Constant(vector_type, [first, second] * (vector_type.count // 2))


def _widen(context, builder, value, typ, vec):
    """Parts of a Vec as they are, for each row of `vec`; of a scalar with it in every lane."""
    if isinstance(typ, VecType):
        return _split(builder, typ, value) * (vec.rows // typ.rows)
    value = context.cast(builder, value, typ, vec.dtype)
    if not vec.is_complex:
        return [_splat(builder, value, n) for n in vec.parts]
    number = context.make_complex(builder, vec.dtype, value=value)
    return [
        _shuffle(
            builder,
            _splat(builder, number.real, n),
            [i + (i % 2) * n for i in range(n)],
            _splat(builder, number.imag, n),
        )
        for n in vec.parts
    ]


def _multiply_complex(builder, a, b):
    """Interleaved product: (re a) b + (im a) (i b), where i b swaps each pair and negates its first half."""
    lanes = range(a.type.count)
    real = _shuffle(builder, a, [i - i % 2 for i in lanes])
    imag = _shuffle(builder, a, [i + 1 - i % 2 for i in lanes])
    turned = builder.fmul(_shuffle(builder, b, [i + 1 - 2 * (i % 2) for i in lanes]), _signs(b.type, -1.0, 1.0))
    return builder.fadd(builder.fmul(real, b, flags=_FLAGS), builder.fmul(imag, turned, flags=_FLAGS), flags=_FLAGS)


def _register_operator(op, instruction: str) -> None:
    @intrinsic
    def apply(typingctx, a, b):
        vec = max((typ for typ in (a, b) if isinstance(typ, VecType)), key=lambda typ: typ.rows)

        def codegen(context, builder, sig, args):
            operands = [_widen(context, builder, value, typ, vec) for value, typ in zip(args, sig.args, strict=True)]
            if vec.is_complex and instruction == "fmul":
                parts = [_multiply_complex(builder, x, y) for x, y in zip(*operands, strict=True)]
            else:
                parts = [getattr(builder, instruction)(x, y, flags=_FLAGS) for x, y in zip(*operands, strict=True)]
            return _join(context, builder, vec, parts)

        return vec(a, b), codegen

    @overload(op)
    def _operator(a, b):
        if isinstance(a, VecType) or isinstance(b, VecType):
            return lambda a, b: apply(a, b)
        return None


for _op, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _register_operator(_op, _instruction)


@intrinsic
def _conj(typingctx, v):
    def codegen(context, builder, sig, args):
        if isinstance(v, VecType) and v.is_complex:
            parts = [builder.fmul(part, _signs(part.type, 1.0, -1.0)) for part in _split(builder, v, args[0])]
            return _join(context, builder, v, parts)
        if isinstance(v, types.Complex):
            number = context.make_complex(builder, v, value=args[0])
            number.imag = builder.fneg(number.imag)
            return number._getvalue()
        return args[0]

    return v(v), codegen


def _sum_lanes(builder, parts):
    """Sum all numbers of the given vectors: equal ones are added first, so that one vector is left to fold."""
    element, sums = parts[0].type.element, {}
    for part in parts:
        size = part.type.count
        sums[size] = builder.fadd(sums[size], part, flags=_FLAGS) if size in sums else part
    result = ir.Constant(element, -0.0)  # the neutral element of addition, signed zeros included
    for size, vector in sums.items():
        name = f"llvm.vector.reduce.fadd.v{size}f{32 if element == ir.FloatType() else 64}"
        fold = cgutils.get_or_insert_function(builder.module, ir.FunctionType(element, [element, vector.type]), name)
        result = builder.call(fold, [result, vector], fastmath=_FLAGS)
    return result


@intrinsic
def _total(typingctx, v):
    def codegen(context, builder, sig, args):
        parts = _split(builder, v, args[0])
        if not v.is_complex:
            return _sum_lanes(builder, parts)
        number = context.make_complex(builder, v.dtype)
        number.real = _sum_lanes(builder, [_shuffle(builder, part, range(0, part.type.count, 2)) for part in parts])
        number.imag = _sum_lanes(builder, [_shuffle(builder, part, range(1, part.type.count, 2)) for part in parts])
        return number._getvalue()

    return v.dtype(v), codegen


@intrinsic
def _maximum(typingctx, v, s):
    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[1], s, v.dtype if isinstance(v, VecType) else v)

        def choose(x, y):  # an ordered comparison: NaN stays NaN
            return builder.select(builder.fcmp_ordered("<", x, y), y, x)

        if not isinstance(v, VecType):
            return choose(args[0], scalar)
        parts = [choose(part, _splat(builder, scalar, part.type.count)) for part in _split(builder, v, args[0])]
        return _join(context, builder, v, parts)

    return v(v, s), codegen


@intrinsic
def _zeros(typingctx, M, static):
    vec = VecType(M.dtype, static.spec.lanes)

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(vec), None)

    return vec(M, static), codegen


if INTRINSICS:
    load, prefetch, conj, total, zeros = _load, _prefetch, _conj, _total, _zeros
    store, store_past = _storing(past_caches=False), _storing(past_caches=True)
    maximum = _maximum
else:
    from fastfactor.kernels import plain

    load, store, store_past = plain.load, plain.store, plain.store
    prefetch, conj = plain.prefetch, plain.conj
    total, zeros, maximum = plain.total, plain.zeros, plain.maximum
