"""What workers do for `fit`: a part of the rows is cut by columns into tiles, each of them a small grid of blocks.

Each task computes on one thread, and its result depends on its arguments alone, so it may run anywhere, and again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import aligned_empty
from fastfactor.dask.parts import Part
from fastfactor.kernels.layout import count_blocks, fill_blocks
from fastfactor.kernels.simd import Static
from fastfactor.kernels.sweep import AHEAD, Blocks, sweep_stored
from fastfactor.kernels.update import Factors, Step
from fastfactor.matrix.grid import Deal, Making, deal_stripes
from fastfactor.threads import launch, using_threads

Array = NDArray[Any]
RowState = tuple[Array, Array, float]  # factors, biases, and the summed loss of the epoch
ColState = tuple[Array, Array]
Numbers = tuple[Any, Any]  # what a step does to rows (or columns): shrinking and pace, one for all or one for each


@dataclass(frozen=True)
class Layout:
    """What the client decides about the tiles.

    Attributes
    ----------
    col_order, col_starts : (n_cols,), (P * s + 1,) int64 arrays
        Columns in the order of the factors, and the stripes of them: `s` for each of the P parts.
    n_inner : int
        s, the stripes of the rows of each part too.
    making : Making
        As for a grid in memory, but that each part holds out entries by a seed of its own.
    """

    col_order: NDArray[np.int64]
    col_starts: NDArray[np.int64]
    n_inner: int
    making: Making

    @property
    def n_parts(self) -> int:
        """P, the parts of the columns."""
        return (len(self.col_starts) - 1) // self.n_inner

    def deal(self, number: int, row_counts: Array) -> Deal:
        """Return which stripe each row of part `number` and each column goes to; the rows' positions are the part's."""
        rng = np.random.default_rng([self.making.seed, 5, number])
        return Deal(*deal_stripes(row_counts, self.n_inner, rng), self.col_order, self.col_starts)


@dataclass(frozen=True)
class Tiles:
    """The tiles of a part.

    Attributes
    ----------
    entries : record array
        See `Blocks`; tile after tile.
    offsets : (P, s * s + 1) uint64 array
        For each tile where its blocks begin.
    row_starts : (s + 1,) int64 array
        Stripes of the part's rows.
    col_starts : (P, s + 1) int64 array
        For each tile the stripes of its columns.
    held : (rows, cols, values)
        What was held out: rows in the order of the part's factors, columns in that of all.
    """

    entries: Any
    offsets: Array
    row_starts: Array
    col_starts: Array
    held: tuple[Array, Array, Array]

    def blocks(self, c: int) -> Blocks:
        """Return the blocks of a tile."""
        offsets = self.offsets[c]
        return Blocks(self.entries, offsets[:-1], offsets[1:], self.row_starts, self.col_starts[c])


def lay_part(part: Part, layout: Layout) -> Tiles:
    """Return the tiles of a part, by the counting sort of the grids in memory."""
    X, s, P = part.matrix, layout.n_inner, layout.n_parts
    indptr = X.indptr.astype(np.int64)
    deal = layout.deal(part.number, np.diff(indptr))
    own_seed = np.random.SeedSequence([layout.making.seed, 4, part.number]).generate_state(1, np.uint64)[0]
    making = replace(layout.making, seed=own_seed)
    held_out, dtype = making.held_out, making.dtype
    counts, held_counts = np.zeros((1, s, P * s), np.int64), np.zeros((1, s), np.int64)
    held_starts = np.zeros(s + 1, np.int64)
    with using_threads(1):
        rows = np.array([0, X.shape[0]], np.int64)
        launch(count_blocks, indptr, X.indices, rows, deal.row_stripe, deal.col_place[0], held_out, counts, held_counts)
        np.cumsum(held_counts[0], out=held_starts[1:])
        held = [np.empty(int(held_starts[-1]), kind) for kind in (np.int64, np.int64, dtype)]
        sizes = counts.reshape(s, P, s).transpose(1, 0, 2)
        ends = np.cumsum(sizes, dtype=np.uint64).reshape(P, s * s)
        offsets = np.concatenate([np.append(np.uint64(0), ends[:-1, -1])[:, None], ends], axis=1)
        starts = offsets[:, :-1].reshape(P, s, s).transpose(1, 0, 2).ravel()
        entries = np.empty(int(ends[-1, -1]) + int(AHEAD), deal.entry_dtype(dtype, weighted=False))
        entries[int(ends[-1, -1]) :] = 0  # looked at, never used
        blocks = Blocks(entries, starts, starts, deal.row_starts, deal.col_starts)
        standard = making.convert(X.data)
        places = (held_starts, *held)
        matrix = (indptr, X.indices, X.data)
        launch(fill_blocks, matrix, None, deal.row_order, deal.col_place, blocks, standard, held_out, places, None)
    firsts = deal.col_starts[:-1].reshape(P, s)
    col_starts = np.concatenate([firsts, deal.col_starts[s::s][:, None]], axis=1) - firsts[:, :1]
    return Tiles(entries, offsets, deal.row_starts, col_starts, (held[0], held[1], held[2]))


def take_held(tiles: Tiles) -> tuple[Array, Array, Array]:
    """Return rows (of the part), columns (in the order of the factors) and values that were held out."""
    return tiles.held


@dataclass(frozen=True)
class Visit:
    """Which tiles one task sweeps, and how.

    Attributes
    ----------
    first_row, first_col : int
        Numbers of the group's first parts of the rows and of the columns.
    diagonals : list of int
        Part b meets part b ^ d of the columns, for each d in turn.
    inner : list of (s,) int64 array
        For each of these the order of the tiles' own diagonals.
    step : Step
        As far as it is the same for all rows and columns.
    spec : Spec
    is_first : bool
        Whether it is the rows' first of the epoch, and begins a new sum of losses.
    """

    first_row: int
    first_col: int
    diagonals: list[int]
    inner: list[Array]
    step: Step
    spec: Any
    is_first: bool


def sweep_group(
    tiles: list[Tiles],
    rows: list[RowState],
    cols: list[ColState],
    row_numbers: list[Numbers],
    col_numbers: list[Numbers],
    visit: Visit,
) -> tuple[list[RowState], list[ColState]]:
    """Update on the entries of some parts of the rows in as many parts of the columns, and return the factors."""
    mine = [_copy(U, bias) for U, bias, _ in rows]
    theirs = [_copy(V, bias) for V, bias in cols]
    losses = [0.0 if visit.is_first else loss for _, _, loss in rows]
    found = np.zeros((len(tiles[0].row_starts) - 1,) * 2)
    static = Static(visit.spec)
    with using_threads(1):
        for d, inner in zip(visit.diagonals, visit.inner, strict=True):
            for i, part in enumerate(tiles):
                c = (visit.first_row + i) ^ d
                j = c - visit.first_col
                factors = Factors(mine[i][0], theirs[j][0], mine[i][1], theirs[j][1])
                (shrink_u, pace_u), (shrink_v, pace_v) = row_numbers[i], col_numbers[j]
                step = visit.step._replace(shrink_u=shrink_u, shrink_v=shrink_v, pace_u=pace_u, pace_v=pace_v)
                launch(sweep_stored, factors, part.blocks(c), None, inner, found, step, static)
                losses[i] += float(found[:, inner].sum())
    return [(*own, loss) for own, loss in zip(mine, losses, strict=True)], theirs


def _copy(M: Array, bias: Array) -> tuple[Array, Array]:
    """Copy factors: those that came belong to others too, who may need them once more."""
    copied = aligned_empty(M.shape, M.dtype)
    np.copyto(copied, M)
    return copied, bias.copy()
