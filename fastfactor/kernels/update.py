"""The step on one entry, or on two of a row: the only copy of the update equations (docs/derivation.md, 4 and 13)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from fastfactor.kernels.compiling import entry_kernel, kernel
from fastfactor.kernels.losses import bounded, derivative, value
from fastfactor.kernels.simd import conj, load, maximum, store, total, zeros


class Factors(NamedTuple):
    """What is learned. Rows of U and V are padded with zero columns to a compiled width.

    Attributes
    ----------
    U, V : (n_rows, width), (n_cols, width) arrays, C-contiguous
    row_bias, col_bias : (n_rows,), (n_cols,) arrays; never read when the Spec has no biases
    """

    U: Any
    V: Any
    row_bias: Any
    col_bias: Any


class Step(NamedTuple):
    """The step size, and what the L2 penalties leave of a number in one step, 1 - lr * reg.

    Attributes
    ----------
    lr : float
    shrink_u, shrink_v : float or array
        For factor rows and their biases, of matrix rows and of matrix columns: one number for all, or one for each.
    place : (4,) array or None
        A `losses.Place`: where predictions lie; None, which compiles to nothing, where the values are standardised.
    prox : (4,) real array or None
        Thresholds lr * l1 of rows and of columns, and the least that their numbers may be, 0 or -inf; None, which
        compiles to nothing, where there is neither an L1 penalty nor a bound.
    pace_u, pace_v : array or None
        The steps of single rows and columns over `lr`; None, which compiles to nothing, where all have the same.
    origin, stretch : float or None
        The loss of a user's own sees origin + stretch p, its derivative being multiplied by `lr` alone: what is left of
        a place where no step has to be cut off. None, which compiles to nothing, for any other loss.
    """

    lr: Any
    shrink_u: Any
    shrink_v: Any
    place: Any = None
    prox: Any = None
    pace_u: Any = None
    pace_v: Any = None
    origin: Any = None
    stretch: Any = None


def at(numbers, i):
    """Return numbers[i], or the one number that stands for all."""
    return numbers[i] if np.ndim(numbers) else numbers


def cut(numbers, start, stop):
    """Return numbers[start:stop], or the one number that stands for all."""
    return numbers[start:stop] if np.ndim(numbers) else numbers


@overload(at, inline="always")
def _at(numbers, i):
    return (lambda numbers, i: numbers[i]) if isinstance(numbers, types.Array) else (lambda numbers, i: numbers)


@overload(cut, inline="always")
def _cut(numbers, start, stop):
    if isinstance(numbers, types.Array):
        return lambda numbers, start, stop: numbers[start:stop]
    return lambda numbers, start, stop: numbers


def approach(v, prox, side):
    """Return what the L1 penalty and the bound make of `v`, rows being side 0 and columns side 1 (equation 9)."""
    return v if prox is None else _approach(v, prox[side], prox[side + 2])


@kernel
def _approach(v, threshold, least):
    zero = threshold - threshold
    return maximum(maximum(v - threshold, zero) - maximum(zero - threshold - v, zero), least)


@overload(approach, inline="always")
def _approach_of(v, prox, side):
    if isinstance(prox, types.NoneType):
        return lambda v, prox, side: v
    return lambda v, prox, side: _approach(v, prox[side], prox[side + 2])


def stretched(p, origin, stretch):
    """Return origin + stretch p, or `p` where there is neither."""
    return p if stretch is None else origin + stretch * p


@overload(stretched, inline="always")
def _stretched(p, origin, stretch):
    if isinstance(stretch, types.NoneType):
        return lambda p, origin, stretch: p
    return lambda p, origin, stretch: origin + stretch * p


def at_or_none(numbers, i):
    """Return numbers[i], or None for None."""
    return None if numbers is None else numbers[i]


@overload(at_or_none, inline="always")
def _at_or_none(numbers, i):
    if isinstance(numbers, types.NoneType):
        return lambda numbers, i: None
    return lambda numbers, i: numbers[i]


def weigh(number, weight):
    """Return `number` times a weight; a weight of None compiles to nothing."""
    return number if weight is None else number * weight


@overload(weigh, inline="always")
def _weigh(number, weight):
    if isinstance(weight, types.NoneType | types.Omitted):
        return lambda number, weight: number
    return lambda number, weight: number * weight


def weight_of(entry):
    """Return the weight of an entry of the blocks, or None where they have none."""
    return entry.weight if "weight" in entry.dtype.names else None


@overload(weight_of, inline="always")
def _weight_of(entry):
    if "weight" in entry.fields:
        return lambda entry: entry.weight
    return lambda entry: None


@entry_kernel
def n_chunks(M, static):
    """Return how many Vecs make up a factor row: a literal 1 when one does."""
    return 1 if static.whole else M.shape[1] // static.lanes


@entry_kernel
def predict_entry(factors, r, c, static):
    """Return p = sum_q U_rq conj(V_cq), plus the biases (equation 1)."""
    U, V = factors.U, factors.V
    products = zeros(U, static)
    for k in range(n_chunks(U, static)):
        products = products + load(U, r, k, static) * conj(load(V, c, k, static))
    p = total(products)
    if static.biases:
        p += factors.row_bias[r] + factors.col_bias[c]
    return p


@entry_kernel
def update_entry(factors, r, c, x, step, static, weight=None):
    """Descend on entry (r, c) of value x; both sides step from the old values (equation 4). Return its loss before.

    `weight` multiplies the loss, not the penalties; None means 1.
    """
    U, V = factors.U, factors.V
    p = stretched(predict_entry(factors, r, c, static), step.origin, step.stretch)
    g = bounded(step.lr * weigh(derivative(static, step.place, x, p), weight), step.place)
    shrink_u, shrink_v = at(step.shrink_u, r), at(step.shrink_v, c)
    gu, gv = weigh(g, at_or_none(step.pace_u, r)), weigh(g, at_or_none(step.pace_v, c))
    for k in range(n_chunks(U, static)):
        u, v = load(U, r, k, static), load(V, c, k, static)
        store(U, r, k, approach(shrink_u * u - gu * v, step.prox, 0), static)
        store(V, c, k, approach(shrink_v * v - conj(gv) * u, step.prox, 1), static)
    if static.biases:
        factors.row_bias[r] = approach(shrink_u * factors.row_bias[r] - gu, step.prox, 0)
        factors.col_bias[c] = approach(shrink_v * factors.col_bias[c] - gv, step.prox, 1)
    return weigh(value(static, step.place, x, p), weight)


@entry_kernel
def update_pair(factors, r, c, d, x, step, static, weight=None):
    """Descend on the entries (r, c) and (r, d) by the loss of the difference of their predictions (equation 13).

    All three rows of factors step from their old values. Returns the loss before.
    """
    U, V = factors.U, factors.V
    p = predict_entry(factors, r, c, static) - predict_entry(factors, r, d, static)
    g = bounded(step.lr * weigh(derivative(static, step.place, x, p), weight), step.place)
    shrink_u, shrink_c, shrink_d = at(step.shrink_u, r), at(step.shrink_v, c), at(step.shrink_v, d)
    gu = weigh(g, at_or_none(step.pace_u, r))
    gc, gd = weigh(g, at_or_none(step.pace_v, c)), weigh(g, at_or_none(step.pace_v, d))
    for k in range(n_chunks(U, static)):
        u, v, w = load(U, r, k, static), load(V, c, k, static), load(V, d, k, static)
        store(U, r, k, approach(shrink_u * u - gu * (v - w), step.prox, 0), static)
        store(V, c, k, approach(shrink_c * v - gc * u, step.prox, 1), static)
        store(V, d, k, approach(shrink_d * w + gd * u, step.prox, 1), static)
    return weigh(value(static, step.place, x, p), weight)
