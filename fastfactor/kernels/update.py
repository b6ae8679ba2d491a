"""The step on one entry: the only copy of the update equation (docs/derivation.md, equation 4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from fastfactor.kernels.compiling import kernel
from fastfactor.kernels.losses import bounded, derivative, value
from fastfactor.kernels.simd import conj, load, store, total, zeros


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
    """

    lr: Any
    shrink_u: Any
    shrink_v: Any
    place: Any = None


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


@kernel
def n_chunks(M, static):
    """Return how many Vecs make up a factor row: a literal 1 when one does."""
    return 1 if static.whole else M.shape[1] // static.lanes


@kernel
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


@kernel
def update_entry(factors, r, c, x, step, static):
    """Descend on entry (r, c) of value x; both sides step from the old values (equation 4). Return its loss before."""
    U, V = factors.U, factors.V
    p = predict_entry(factors, r, c, static)
    g = bounded(step.lr * derivative(static, step.place, x, p), step.place)
    shrink_u, shrink_v = at(step.shrink_u, r), at(step.shrink_v, c)
    for k in range(n_chunks(U, static)):
        u, v = load(U, r, k, static), load(V, c, k, static)
        store(U, r, k, shrink_u * u - g * v, static)
        store(V, c, k, shrink_v * v - conj(g) * u, static)
    if static.biases:
        factors.row_bias[r] = shrink_u * factors.row_bias[r] - g
        factors.col_bias[c] = shrink_v * factors.col_bias[c] - g
    return value(static, step.place, x, p)
