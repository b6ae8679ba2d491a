"""What workers do: a part is some rows of the matrix, cut into tiles for `fit`, multiplied for `svd`.

Each task computes on one thread, and its result depends on its arguments alone, so it may run anywhere, and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.kernels.gram import SparseRows, add_adjoint_sparse, add_gram_sparse, multiply_sparse
from fastfactor.kernels.simd import Static
from fastfactor.kernels.sweep import AHEAD, Blocks, sweep_stored
from fastfactor.kernels.update import Factors, Step
from fastfactor.matrix.inputs import as_observations, is_sparse
from fastfactor.matrix.operators import BLOCK, LANES
from fastfactor.solvers.memory import copy_factors
from fastfactor.threads import launch, using_threads

_STRIPES = 32  # strips of columns, all tiles of a part together: entries of a row come in as many short runs

Array = NDArray[Any]
RowState = tuple[Array, Array, float]  # factors, biases, and the summed loss of the epoch
ColState = tuple[Array, Array]


@dataclass(frozen=True)
class Part:
    """Some rows of a matrix, as CSR arrays, checked: see `Observations`.

    Attributes
    ----------
    number : int
        Which part it is.
    matrix : scipy.sparse.csr_array
    """

    number: int
    matrix: Any


@dataclass(frozen=True)
class Look:
    """What the client has to know of a part."""

    n: int
    total: complex
    square: float
    largest: float
    dtype: np.dtype[Any]
    row_counts: NDArray[np.int64]
    col_counts: NDArray[np.int64]

    def squares_about(self, mean: complex) -> float:
        """Return the sum of |x - mean|^2."""
        return self.square - 2 * (self.total * np.conj(mean)).real + self.n * abs(mean) ** 2

    def squares(self, scale: float) -> float:
        """Return the sum of |x / scale|^2."""
        return self.square / scale**2


def make_part(number: int, pieces: list[Any], n_rows: int, n_cols: int, missing_is_zero: bool) -> Part:
    """Return a part from blocks of rows (matrices one below the other), or from triplets in terms of its own rows.

    Raises
    ------
    TypeError, ValueError
        If they hold no numbers, or bad ones; see `as_observations`.
    """
    if pieces and isinstance(pieces[0], tuple):
        parts = [np.concatenate([piece[i] for piece in pieces]) for i in range(3)]
        if not len(parts[2]):
            return Part(number, sp.csr_array((n_rows, n_cols), dtype=np.float32))
        X = as_observations((parts[0], parts[1], parts[2]), shape=(n_rows, n_cols))
        return Part(number, sp.csr_array((X.data, X.indices, X.indptr), shape=X.shape))
    if not all(map(is_sparse, pieces)):
        dense = np.concatenate([piece.toarray() if is_sparse(piece) else np.asarray(piece) for piece in pieces])
        return Part(number, _from_dense(dense, missing_is_zero))
    whole: Any = sp.csr_array(sp.vstack(pieces, format="csr"))
    if whole.nnz:
        X = as_observations(whole, duplicates="sum" if missing_is_zero else "error")
        whole = sp.csr_array((X.data, X.indices, X.indptr), shape=X.shape)
    return Part(number, whole)


def _from_dense(dense: Array, missing_is_zero: bool) -> Any:
    if missing_is_zero and not np.isfinite(dense).all():
        raise ValueError("X must not contain infinities or NaNs")
    seen = ~np.isnan(dense)
    if not seen.any():
        return sp.csr_array(dense.shape, dtype=np.float32)
    X = as_observations(dense)
    return sp.csr_array((X.data, X.indices, X.indptr), shape=X.shape)


def inspect_part(part: Part) -> Look:
    """Return sums and counts of a part."""
    X = part.matrix
    values = X.data.astype(np.result_type(X.data, np.float64))
    return Look(
        int(X.nnz),
        values.sum().item(),
        float(np.vdot(values, values).real),
        float(np.abs(values).max()) if len(values) else 0.0,
        X.data.dtype,
        np.diff(X.indptr).astype(np.int64),
        np.bincount(X.indices, minlength=X.shape[1]),
    )


@dataclass(frozen=True)
class Tiles:
    """A part, cut by columns: records (row, column, value) by strip of columns, then row; and what was held out."""

    entries: list[Any]
    held: tuple[Array, Array, Array]


def lay_part(
    part: Part, place: Array, col_starts: Array, shift: Any, scale: float, dtype: Any, seed: int, share: float
) -> Tiles:
    """Return the tiles of a part.

    Parameters
    ----------
    place : (n_cols,) array
        Position of each column in the order of the factors.
    col_starts : (P + 1,) array
        First position of each part of the columns.
    shift, scale : number
        What standardises the values.
    seed, share
        Which entries are held out, and how many of them.
    """
    X, columns = part.matrix, place[part.matrix.indices]
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    values = ((X.data - X.data.dtype.type(shift)) * X.data.real.dtype.type(1 / scale)).astype(dtype)
    kept = np.random.default_rng([seed, 4, part.number]).random(len(values)) >= share
    fields = np.dtype([("row", np.uint32), ("col", np.uint32), ("value", dtype)], align=True)
    n_strips = max(1, _STRIPES // (len(col_starts) - 1))
    stripe = np.searchsorted(col_starts, columns, side="right") - 1
    entries = []
    for c in range(len(col_starts) - 1):
        chosen = np.flatnonzero((stripe == c) & kept)
        strip = (columns[chosen] - col_starts[c]) * n_strips // (col_starts[c + 1] - col_starts[c])
        chosen = chosen[np.argsort(strip.astype(np.uint8), kind="stable")]
        tile = np.zeros(len(chosen) + int(AHEAD), np.dtype((np.record, fields)))
        inside = tile[: len(chosen)]
        inside["row"], inside["col"], inside["value"] = rows[chosen], columns[chosen] - col_starts[c], values[chosen]
        entries.append(tile)
    return Tiles(entries, (rows[~kept], columns[~kept], values[~kept]))


def take_held(tiles: Tiles) -> tuple[Array, Array, Array]:
    """Return rows (of the part), columns (in the order of the factors) and values that were held out."""
    return tiles.held


def sweep_tile(
    tiles: Tiles, c: int, rows: RowState, cols: ColState, step: Step, spec: Any, is_first: bool
) -> tuple[RowState, ColState]:
    """Update on each entry of tile `c`, and return the factors; `is_first` in an epoch begins a new sum of losses."""
    entries = tiles.entries[c]
    factors = copy_factors(Factors(rows[0], cols[0], rows[1], cols[1]))  # what came is others' too
    sizes = np.array([0, len(factors.U)]), np.array([0, len(factors.V)])
    blocks = Blocks(entries, np.array([0, len(entries) - int(AHEAD)], np.uint64), *sizes)
    losses = np.zeros((1, 1))
    with using_threads(1):
        launch(sweep_stored, factors, blocks, None, np.zeros(1, np.int64), losses, step, Static(spec))
    loss = float(losses[0, 0]) + (0.0 if is_first else rows[2])
    return (factors.U, factors.row_bias, loss), (factors.V, factors.col_bias)


def _rows_of(part: Part, scale: float) -> SparseRows:
    X = part.matrix
    return SparseRows(X.indptr, X.indices, X.data, np.float64(scale), np.array([0, X.shape[0]], np.int64))


def _own(X: Array) -> Array:
    """Return an array that kernels take for writable, as those that came over a wire may not be."""
    return X if X.flags.writeable else X.copy()


def gram_part(part: Part, X: Array, scale: float) -> Array:
    """Return A^H (A X) for the part A."""
    G = np.zeros((1, *X.shape), X.dtype)
    with using_threads(1):
        launch(add_gram_sparse, _rows_of(part, scale), _own(X), G, LANES)
    return G[0]


def multiply_part(part: Part, V: Array, scale: float) -> Array:
    """Return A V for the part A."""
    U = np.empty((part.matrix.shape[0], V.shape[1]), V.dtype)
    with using_threads(1):
        for q in range(V.shape[1] // BLOCK):
            launch(multiply_sparse, _rows_of(part, scale), _own(V), U, q, LANES)
    return U


def scatter_part(part: Part, U: Array, scale: float) -> Array:
    """Return A^H U for the part A."""
    Z = np.empty((part.matrix.shape[1], U.shape[1]), U.dtype)
    with using_threads(1):
        for q in range(U.shape[1] // BLOCK):
            G = np.zeros((1, len(Z), BLOCK), U.dtype)
            launch(add_adjoint_sparse, _rows_of(part, scale), _own(U), G, q, LANES)
            Z[:, q * BLOCK : (q + 1) * BLOCK] = G[0]
    return Z


def add_up(first: Array, second: Array) -> Array:
    """Return the sum."""
    return first + second
