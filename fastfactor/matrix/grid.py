"""The block grid: which entries touch which rows and columns.

Rows and columns are dealt into B stripes each, at random but with equal shares of the entries; block (i, j) holds what
row stripe i and column stripe j have in common. The B blocks of a diagonal share no row and no column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.kernels.layout import count_blocks, count_columns, fill_blocks
from fastfactor.kernels.sweep import AHEAD, Blocks, sweep_dense, sweep_stored
from fastfactor.kernels.update import Factors, Step
from fastfactor.matrix.inputs import Observations, slice_rows
from fastfactor.matrix.mapped import walk_rows
from fastfactor.threads import launch

# Stripes by number of entries: few enough for long runs of a row within a block, enough to share out over cores, and
# never a function of the machine, so that results are not either (docs/performance.md).
_STRIPES = ((2_000_000, 8), (50_000_000, 16), (1 << 63, 32))
_SAMPLED_ENTRIES = 1_000_000  # enough to know how often a column occurs


def choose_stripes(shape: tuple[int, int], n_entries: int) -> int:
    """Return B, from the shape and the number of entries alone."""
    wanted = next(stripes for limit, stripes in _STRIPES if n_entries < limit)
    return min(wanted, *shape)


def deal_stripes(
    counts: NDArray[np.int64], n_stripes: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Deal rows (or columns) into stripes of equal size and nearly equal numbers of entries.

    The most frequent ones are dealt first, back and forth over the stripes, ties in random order. Within a stripe they
    keep the order they have, so that the layout reads the user's arrays forwards.

    Returns
    -------
    order : (n,) int64 array
        Rows in the order of the factors, stripe after stripe.
    starts : (n_stripes + 1,) int64 array
        Where each stripe begins in `order`.
    """
    n = len(counts)
    turn = np.arange(n)
    dealt = np.where((turn // n_stripes) % 2 == 0, turn % n_stripes, n_stripes - 1 - turn % n_stripes)
    shuffled = rng.permutation(n)
    stripe = np.empty(n, np.uint16)
    stripe[shuffled[np.argsort(_rarity(counts)[shuffled], kind="stable")]] = dealt
    starts = np.concatenate(([0], np.cumsum(np.bincount(stripe, minlength=n_stripes))))
    return np.argsort(stripe, kind="stable"), starts.astype(np.int64)


def _rarity(counts: NDArray[np.int64]) -> NDArray[Any]:
    """Return numbers that ascend as the counts descend: of 16 bits where they fit, which NumPy sorts by radix."""
    rarity = counts.max() - counts
    return rarity.astype(np.uint16) if rarity.max() < 1 << 16 else rarity


@dataclass(frozen=True)
class Held:
    """Entries kept out of the blocks: positions in the order of the factors, standardised values."""

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    values: NDArray[Any]
    weights: NDArray[Any] | None = None


@dataclass(frozen=True)
class Grid:
    """A matrix ready for sweeps.

    Attributes
    ----------
    blocks : Blocks
        What the kernels eat.
    row_order, col_order : (n_rows,), (n_cols,) int64 arrays
        Factor row p belongs to matrix row row_order[p].
    held : Held
        Entries kept for validation.
    n_entries : int
        Entries in the blocks.
    """

    blocks: Blocks
    row_order: NDArray[np.int64]
    col_order: NDArray[np.int64]
    held: Held
    n_entries: int

    @property
    def n_stripes(self) -> int:
        """Number of stripes B of the rows, and of the columns."""
        return len(self.blocks.row_starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return len(self.row_order), len(self.col_order)

    def begin_epoch(self, epoch: int, order: NDArray[np.int64]) -> None:
        """Hear which epoch begins, and in which order it will ask for diagonals; here there is nothing to prepare."""

    def sweep(
        self, factors: Factors, diagonals: NDArray[np.int64], losses: NDArray[np.float64], step: Step, static: Any
    ) -> None:
        """Update on the entries of some diagonals; `losses` (B, B) gets the sum of each block's losses."""
        launch(sweep_stored, factors, self.blocks, None, diagonals, losses, step, static)


@dataclass(frozen=True)
class DenseGrid:
    """A dense matrix ready for sweeps over every entry; no copy, rows and columns keep their order.

    Attributes
    ----------
    A : (n_rows, n_cols) C-contiguous array
    row_starts, col_starts : (B + 1,) int64 arrays
        Boundaries of the stripes.
    """

    A: NDArray[Any]
    row_starts: NDArray[np.int64]
    col_starts: NDArray[np.int64]

    @classmethod
    def of(cls, A: NDArray[Any]) -> DenseGrid:
        """Cut `A` into stripes of equal size."""
        B = choose_stripes(A.shape, A.size)
        row_starts, col_starts = (np.linspace(0, n, B + 1).astype(np.int64) for n in A.shape)
        return cls(A, row_starts, col_starts)

    @property
    def n_stripes(self) -> int:
        """Number of stripes B of the rows, and of the columns."""
        return len(self.row_starts) - 1

    @property
    def row_order(self) -> NDArray[np.int64]:
        """The matrix row of each factor row: the same."""
        return np.arange(self.A.shape[0])

    @property
    def col_order(self) -> NDArray[np.int64]:
        """The matrix column of each factor row of V: the same."""
        return np.arange(self.A.shape[1])

    @property
    def n_entries(self) -> int:
        """Number of entries: all of them."""
        return self.A.size

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return self.A.shape

    def begin_epoch(self, epoch: int, order: NDArray[np.int64]) -> None:
        """Hear which epoch begins, and in which order it will ask for diagonals; here there is nothing to prepare."""

    def sweep(
        self, factors: Factors, diagonals: NDArray[np.int64], losses: NDArray[np.float64], step: Step, static: Any
    ) -> None:
        """Update on the entries of some diagonals; `losses` (B, B) gets the sum of each block's losses."""
        stripes = (self.row_starts, self.col_starts)
        launch(sweep_dense, factors, self.A, stripes, diagonals, losses, step, static)


def count_entries(X: Observations, stride: int = 1) -> NDArray[np.int64]:
    """Return how many entries each column has in every `stride`-th row."""
    counts = np.zeros(X.shape[1], np.int64)
    for start, stop in walk_rows(X.indptr, (X.indices,)):
        first = -(-start // stride) * stride
        if first < stop:
            count_columns(X.indptr[first : stop + 1], X.indices, counts, stride)
    return counts


def _index_dtype(longest: int) -> type:
    return np.uint16 if longest <= 1 << 16 else np.uint32


def entry_dtype(longest: int, dtype: Any, *, weighted: bool) -> np.dtype[Any]:
    """Return what an entry is in blocks of stripes up to that long; a record: kernels see fields as attributes."""
    index = _index_dtype(longest)
    more = [("weight", np.empty(0, dtype).real.dtype)] if weighted else []
    fields = np.dtype([("row", index), ("col", index), ("value", dtype), *more], align=True)
    return np.dtype((np.record, fields))


@dataclass(frozen=True)
class Deal:
    """Which stripe each row and each column went to, and where in it: all that a seed decides about a grid.

    Attributes
    ----------
    row_order, col_order : (n_rows,), (n_cols,) int64 arrays
    row_starts, col_starts : (B + 1,) int64 arrays
        See `deal_stripes`.
    """

    row_order: NDArray[np.int64]
    row_starts: NDArray[np.int64]
    col_order: NDArray[np.int64]
    col_starts: NDArray[np.int64]

    @classmethod
    def of(cls, X: Observations, seed: int) -> Deal:
        """Deal the rows and columns of `X`."""
        B = choose_stripes(X.shape, X.n_entries)
        rng = np.random.default_rng(seed)
        rows = deal_stripes(np.diff(X.indptr), B, rng)
        return cls(*rows, *deal_stripes(count_entries(X, max(1, X.n_entries // _SAMPLED_ENTRIES)), B, rng))

    @property
    def n_stripes(self) -> int:
        """Number of stripes B of the rows, and of the columns."""
        return len(self.row_starts) - 1

    @property
    def row_stripe(self) -> NDArray[Any]:
        """For each row its stripe."""
        return _find_stripes(self.row_order, self.row_starts)

    @property
    def col_place(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """For each column its stripe, and its position in it."""
        positions = _find_positions(self.col_order, self.col_starts, _index_dtype(self.longest))
        return _find_stripes(self.col_order, self.col_starts), positions

    @property
    def longest(self) -> int:
        """Length of the longest stripe."""
        return max(int(np.diff(starts).max()) for starts in (self.row_starts, self.col_starts))

    def entry_dtype(self, dtype: Any, *, weighted: bool) -> np.dtype[Any]:
        """Return what an entry of the blocks is."""
        return entry_dtype(self.longest, dtype, weighted=weighted)


@dataclass(frozen=True)
class Making:
    """What a grid is laid out with.

    Attributes
    ----------
    shift, scale : number
        What is stored for the value x is (x - shift) / scale.
    dtype : numpy dtype
        Of what is stored: float32, float64, complex64 or complex128.
    seed : int
        For the deal of rows and columns and for the choice of held-out entries; the two do not depend on each other,
        so that the deal is the same with and without them.
    held_share : float
        Share of the entries kept out, in [0, 1).
    """

    shift: complex
    scale: float
    dtype: np.dtype[Any]
    seed: int
    held_share: float = 0.0

    @property
    def held_out(self) -> tuple[np.uint64, np.uint64]:
        """What a kernel chooses held-out entries by."""
        return np.uint64(self.seed), np.uint64(round(self.held_share * 2**32))

    def convert(self, data: NDArray[Any]) -> tuple[Any, Any]:
        """Return what a kernel standardises with, in the type of the values: the shift, and the factor after it.

        Raises
        ------
        ValueError
            If the values are so small that there is no such factor.
        """
        with np.errstate(over="ignore", divide="ignore"):
            factor = data.real.dtype.type(1 / np.float64(self.scale))
        if not np.isfinite(factor):
            raise ValueError(
                f"X has values that vary by {self.scale:.3g}, out of the range of dtype {data.dtype}: rescale them"
            )
        return data.dtype.type(self.shift), factor


def build_grid(X: Observations, making: Making, weights: NDArray[Any] | None = None) -> Grid:
    """Lay the entries of `X` out in blocks.

    Parameters
    ----------
    X : Observations
    making : Making
    weights : (n_entries,) array, optional
        One per entry, in the order of X.
    """
    deal, held_out, dtype = Deal.of(X, making.seed), making.held_out, making.dtype
    B, col_place = deal.n_stripes, deal.col_place
    slices = slice_rows(X.indptr)
    counts, held_counts = np.zeros((len(slices) - 1, B, B), np.int64), np.zeros((len(slices) - 1, B), np.int64)
    launch(count_blocks, X.indptr, X.indices, slices, deal.row_stripe, col_place[0], held_out, counts, held_counts)
    offsets = np.concatenate(([0], np.cumsum(counts.sum(axis=0)))).astype(np.uint64)
    held_starts = np.concatenate(([0], np.cumsum(held_counts.sum(axis=0))))

    n_entries, n_held = int(offsets[-1]), int(held_starts[-1])
    entries = np.empty(n_entries + int(AHEAD), deal.entry_dtype(dtype, weighted=weights is not None))
    entries[n_entries:] = 0  # looked at, never used
    held = Held(np.empty(n_held, np.int64), np.empty(n_held, np.int64), np.empty(n_held, dtype), None)
    if weights is not None:
        real = held.values.real.dtype
        held, weights = replace(held, weights=np.empty(n_held, real)), weights.astype(real)
    blocks = Blocks(entries, offsets[:-1], offsets[1:], deal.row_starts, deal.col_starts)
    places = (held_starts, held.rows, held.cols, held.values)
    matrix = (X.indptr, X.indices, X.data)
    standard = making.convert(X.data)
    launch(fill_blocks, matrix, weights, deal.row_order, col_place, blocks, standard, held_out, places, held.weights)
    return Grid(blocks, deal.row_order, deal.col_order, held, n_entries)


def _find_stripes(order: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[Any]:
    """Return for each row (or column) its stripe, in 8 bits where there are few, as in memory."""
    stripe = np.empty(len(order), np.uint8 if len(starts) - 1 <= 1 << 8 else np.uint16)
    stripe[order] = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return stripe


def _find_positions(order: NDArray[np.int64], starts: NDArray[np.int64], index: Any) -> NDArray[Any]:
    """Return for each row (or column) its position in its stripe."""
    local = np.empty(len(order), index)
    local[order] = np.arange(len(order)) - np.repeat(starts[:-1], np.diff(starts))
    return local
