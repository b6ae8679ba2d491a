"""The block grid in a file: laid out piece by piece, swept with the next diagonal being read and the last one dropped.

The blocks lie there diagonal after diagonal, so that each is read as one piece. Every block is the same as in memory,
so a fit is too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.layout import count_blocks, count_strays, fill_blocks
from fastfactor.kernels.sweep import AHEAD, Blocks
from fastfactor.kernels.update import Factors, Step
from fastfactor.matrix.grid import Deal, Grid, Held, Making, build_grid
from fastfactor.matrix.inputs import Observations, slice_rows
from fastfactor.matrix.mapped import LARGE_PAGE, ArrayFile, Scratch, drop_pages, touch_pages, use_large_pages, walk_rows
from fastfactor.matrix.structure import check_range
from fastfactor.threads import launch

DIAGONALS_AHEAD = 2  # read before they are swept
_PIECE_SLICES = 4  # of the rows of a piece, to share out over threads


class _Reader:
    """A thread that reads the diagonals of an epoch ahead of the sweep."""

    def __init__(self, read: Callable[[int], None], diagonals: list[int]) -> None:
        self.pool, self.read = ThreadPoolExecutor(1), read
        self.reads = [self.pool.submit(read, d) for d in diagonals[:DIAGONALS_AHEAD]]
        self.upcoming = diagonals[DIAGONALS_AHEAD:]

    def await_next(self) -> None:
        """Wait until the next diagonal is in memory, and have one more read."""
        self.reads.pop(0).result()
        self.reads += [self.pool.submit(self.read, d) for d in self.upcoming[:1]]
        del self.upcoming[:1]

    def stop(self) -> None:
        """Read no more, whatever was asked for."""
        self.pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class DiskGrid(Grid):
    """A `Grid` whose entries are mapped from a file.

    Attributes
    ----------
    readers : list of _Reader
        That of this epoch.
    sound : set of int
        Diagonals whose entries are known to lie in their blocks: a file may hold anything, and sweeps follow it.
    """

    readers: list[_Reader] = field(default_factory=list, compare=False)
    sound: set[int] = field(default_factory=set, compare=False)

    def __post_init__(self) -> None:
        use_large_pages(self.blocks.entries)

    def begin_epoch(self, epoch: int, order: NDArray[np.int64]) -> None:
        """Have the diagonals read in the order in which they will be swept."""
        for reader in self.readers:
            reader.stop()  # the last epoch may have been broken off
        self.readers[:] = [_Reader(self._read, order.tolist())]

    def sweep(
        self, factors: Factors, diagonals: NDArray[np.int64], losses: NDArray[np.float64], step: Step, static: Any
    ) -> None:
        """Update on the entries of some diagonals, one after the other; see `Grid.sweep`."""
        for d in diagonals:
            self.readers[0].await_next()
            self._inspect(int(d))
            super().sweep(factors, np.array([d]), losses, step, static)
            for start, stop in self._ranges(int(d)):
                edge = LARGE_PAGE // self.blocks.entries.itemsize  # pages at its ends hold others' entries too
                drop_pages(self.blocks.entries, max(0, start - edge), min(stop + edge, self.n_entries))

    def _inspect(self, d: int) -> None:
        """Look at a diagonal's entries before the first sweep over them, which needs them in memory anyway."""
        if d in self.sound:
            return
        strays = np.zeros(self.n_stripes, np.int64)
        launch(count_strays, self.blocks, d, strays)
        if strays.any():
            raise ValueError(
                f"{strays.sum()} entries of the grid on disk lie outside their blocks: it is damaged "
                "(open_grid with verify=True names the file)"
            )
        self.sound.add(d)

    def _read(self, d: int) -> None:
        for start, stop in self._ranges(d):
            touch_pages(self.blocks.entries, start, stop)

    def _ranges(self, d: int) -> Iterator[tuple[int, int]]:
        """Yield which entries a diagonal holds: one range of them where the file has the order of the diagonals."""
        numbers = number_blocks(self.n_stripes)[d]
        starts, stops = self.blocks.starts[numbers], self.blocks.stops[numbers]
        cuts = np.flatnonzero(starts[1:] != stops[:-1]) + 1
        firsts, lasts = np.append(0, cuts), np.append(cuts, len(numbers)) - 1
        yield from zip(starts[firsts].tolist(), stops[lasts].tolist(), strict=True)


def number_blocks(n_stripes: int) -> NDArray[np.int64]:
    """Return the numbers, as `Blocks` has them, of the blocks of each diagonal: an array (diagonal, row stripe)."""
    stripes = np.arange(n_stripes)
    return n_stripes * stripes + (stripes + stripes[:, None]) % n_stripes


def place_blocks(
    offsets: NDArray[np.uint64], order: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return where each block starts and stops, when they lie in a file in this order and begin at these offsets."""
    starts, stops = np.empty_like(offsets[:-1]), np.empty_like(offsets[1:])
    starts[order], stops[order] = offsets[:-1], offsets[1:]
    return starts, stops


@dataclass(frozen=True)
class Stored(Observations):
    """Entries that lie in a folder, and perhaps a grid of them.

    Attributes
    ----------
    folder : Path
        Where more grids may be laid out, in files without names.
    grid : DiskGrid or None
    made_with : dict
        What `grid` was laid out with: shift, scale, dtype, seed.
    """

    folder: Path = Path()
    grid: DiskGrid | None = None
    made_with: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def inspected(self) -> Stored:
        """These entries, after one look at all places.

        Raises
        ------
        ValueError
            If one lies outside the matrix: the file was damaged since it was written.
        """
        check_range(self.indices, self.shape[1], f"{self.folder}: column index")
        return self

    def suits(self, dtype: np.dtype[Any], seed: int) -> bool:
        """Whether `grid` is for fits of this precision and seed, as far as these decide."""
        return self.made_with.get("dtype") == dtype.str and self.made_with.get("seed") == seed


def lay_out(X: Observations, making: Making, weights: NDArray[Any] | None = None) -> Grid:
    """Return the grid of `build_grid`: in memory, or in a file where `X` lies in one."""
    if not isinstance(X, Stored):
        return build_grid(X, making, weights)
    assert weights is None  # options.py has refused them
    if X.grid is not None and making.held_share == 0 and describe(making) == X.made_with:
        return X.grid
    plan = Plan.of(X, making)
    entries = Scratch(X.folder, plan.entry_dtype, plan.n_stored)
    held = [Scratch(X.folder, kind, plan.n_held) for kind in (np.int64, np.int64, making.dtype)]
    plan.write(X, entries, held)
    return plan.as_grid(entries.map(), Held(*(file.map() for file in held)))


def describe(making: Making) -> dict[str, Any]:
    """Return what a folder keeps of how its grid was made; such a grid holds no entry out."""
    return {"shift": making.shift, "scale": making.scale, "dtype": making.dtype.str, "seed": making.seed}


@dataclass(frozen=True)
class Plan:
    """How many entries of each piece of the rows go to each block: all that is known before they are moved.

    Attributes
    ----------
    deal : Deal
    making : Making
    counts : (n_pieces, B, B) int64 array
    held_counts : (n_pieces, B) int64 array
    """

    deal: Deal
    making: Making
    counts: NDArray[np.int64]
    held_counts: NDArray[np.int64]

    @classmethod
    def of(cls, X: Observations, making: Making) -> Plan:
        """Count the entries of `X`, in one pass."""
        deal, held_out = Deal.of(X, making.seed), making.held_out
        B, row_stripe, col_stripe = deal.n_stripes, deal.row_stripe, deal.col_place[0]
        found, held_found = [], []
        for start, stop in walk_rows(X.indptr, (X.indices,)):
            slices = start + slice_rows(X.indptr[start : stop + 1] - X.indptr[start], _PIECE_SLICES)
            counts, held_counts = np.zeros((_PIECE_SLICES, B, B), np.int64), np.zeros((_PIECE_SLICES, B), np.int64)
            launch(count_blocks, X.indptr, X.indices, slices, row_stripe, col_stripe, held_out, counts, held_counts)
            found.append(counts.sum(axis=0))
            held_found.append(held_counts.sum(axis=0))
        return cls(deal, making, np.array(found), np.array(held_found))

    @property
    def entry_dtype(self) -> np.dtype[Any]:
        """What an entry of the blocks is."""
        return self.deal.entry_dtype(self.making.dtype, weighted=False)

    @property
    def order(self) -> NDArray[np.int64]:
        """The numbers of the blocks as they lie in the file: diagonal after diagonal."""
        return number_blocks(self.deal.n_stripes).ravel()

    @property
    def offsets(self) -> NDArray[np.uint64]:
        """Where each block begins, in the order of the file."""
        return _starts(self.counts.sum(axis=0).ravel()[self.order]).astype(np.uint64)

    @property
    def n_stored(self) -> int:
        """Entries of the file: those of the blocks, and spare ones that kernels look at and never use."""
        return int(self.counts.sum()) + int(AHEAD)

    @property
    def n_held(self) -> int:
        """Held-out entries."""
        return int(self.held_counts.sum())

    def as_grid(self, entries: NDArray[Any], held: Held) -> DiskGrid:
        """Return the grid, once everything has been written."""
        deal = self.deal
        blocks = Blocks(entries, *place_blocks(self.offsets, self.order), deal.row_starts, deal.col_starts)
        sound = set(range(deal.n_stripes))  # just written
        n = self.n_stored - int(AHEAD)
        return DiskGrid(blocks, deal.row_order, deal.col_order, held, n, sound=sound)

    def write(self, X: Observations, entries: ArrayFile, held: Sequence[ArrayFile]) -> None:
        """Bring the entries of `X` into the order of the blocks, a piece of the rows at a time.

        Within a stripe rows keep their order, so a piece of the rows is a run of each stripe's positions, and of
        each block's entries.
        """
        deal, B, dtype = self.deal, self.deal.n_stripes, self.entry_dtype
        standard, held_out = self.making.convert(X.data), self.making.held_out
        order, held_cursor = self.order, np.zeros(B, np.int64)
        cursor = place_blocks(self.offsets, order)[0].astype(np.int64)
        held_cursor[1:] = np.cumsum(self.held_counts.sum(axis=0))[:-1]
        row_stripe, col_place, matrix = deal.row_stripe, deal.col_place, (X.indptr, X.indices, X.data)
        done = np.zeros(B, np.int64)  # rows of each stripe
        for place, (start, stop) in enumerate(walk_rows(X.indptr, (X.indices, X.data))):
            counts, held_counts = self.counts[place].ravel(), self.held_counts[place]
            offsets, held_starts = _starts(counts), _starts(held_counts)
            n_rows = np.bincount(row_stripe[start:stop], minlength=B)
            row_starts = _starts(n_rows)
            rows = start + np.argsort(row_stripe[start:stop], kind="stable")
            piece = np.empty(int(offsets[-1]), dtype)
            places = offsets.astype(np.uint64)
            blocks = Blocks(piece, places[:-1], places[1:], row_starts, deal.col_starts)
            found = [np.empty(int(held_starts[-1]), kind) for kind in (np.int64, np.int64, piece.dtype["value"])]
            launch(fill_blocks, matrix, None, rows, col_place, blocks, standard, held_out, (held_starts, *found), None)
            for b in range(B):  # the kernel counts the rows of the piece
                piece["row"][offsets[B * b] : offsets[B * (b + 1)]] += done[b].astype(piece.dtype["row"])
                found[0][held_starts[b] : held_starts[b + 1]] += deal.row_starts[b] + done[b] - row_starts[b]
                for file, values in zip(held, found, strict=False):
                    file.write(int(held_cursor[b]), values[held_starts[b] : held_starts[b + 1]])
            for block in order:
                entries.write(int(cursor[block]), piece[offsets[block] : offsets[block + 1]])
            cursor, held_cursor, done = cursor + counts, held_cursor + held_counts, done + n_rows
        entries.write(self.n_stored - int(AHEAD), np.zeros(int(AHEAD), dtype))


def _starts(counts: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
