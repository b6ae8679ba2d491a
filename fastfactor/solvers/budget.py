"""How much memory a fit will take, beyond what the process has: known from sizes, before anything is allocated.

Each stage of a fit holds some things at once; what the largest stage holds is the prediction. Compiled code, which a
process loads once, is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfactor.kernels.sweep import AHEAD
from fastfactor.matrix.disk_grid import DIAGONALS_AHEAD
from fastfactor.matrix.grid import choose_stripes, entry_dtype
from fastfactor.matrix.mapped import LARGE_PAGE, PIECE, PIECES_AHEAD
from fastfactor.matrix.sizes import Size
from fastfactor.solvers.fitting import HELD_SHARE
from fastfactor.solvers.memory import choose_spec

_INDEX = 8  # bytes of a position in most arrays of one number for each row and column
_SIDE_NUMBERS = 9  # numbers of 8 bytes for each row and column: orders, their inverse, penalties and steps
_MAPPED_HELD = 1 / 8  # of the held-out entries that lie in a file, resident at a time
_FIXED = {"threads and small arrays": float(1 << 24)}  # and what the allocator keeps


@dataclass(frozen=True)
class Planned:
    """What of a fit decides about its memory.

    Attributes
    ----------
    rank : int
    dtype : numpy dtype
        What it is computed in.
    tries : bool
        Whether fits are tried on held-out entries before the final one.
    held : float
        Share of the entries that the final fit holds out, or number of those that were given over that of X.
    weighted : bool
    looks : bool
        Whether the loss needs a look at all values.
    warm : bool
        Whether it starts from a model.
    lays_out : bool
        Whether a grid on disk is not as the final fit needs it.
    keeps : bool
        Whether the best of the fits that are tried is kept: it may become the model.
    """

    rank: int
    dtype: np.dtype[Any]
    tries: bool = False
    held: float = 0.0
    weighted: bool = False
    looks: bool = False
    warm: bool = False
    lays_out: bool = True
    keeps: bool = False


def predict_memory(size: Size, planned: Planned) -> dict[str, float]:
    """Return the bytes that a fit of stored entries will take at its peak, by what they are for."""
    n_rows, n_cols = size.shape
    item, n = planned.dtype.itemsize, size.n_entries
    sides = (n_rows + n_cols) * _SIDE_NUMBERS * _INDEX
    factors = (n_rows + n_cols) * (choose_spec(planned.rank, biases=True)[1] + 1) * item
    drawn = max(n_rows, n_cols) * planned.rank * item * (3 if planned.dtype.kind == "c" else 1)
    longest = -(-max(n_rows, n_cols) // choose_stripes(size.shape, n))
    entry = entry_dtype(longest, planned.dtype, weighted=planned.weighted).itemsize
    extra = n * 30 if planned.weighted else 0  # the weights, as they come and in float64, and two orders
    looked = n * (size.value_size * size.on_disk + 2) if planned.looks else 0
    given: dict[str, float] = {"the matrix": size.kept + extra, "numbers for each row and column": sides, **_FIXED}
    pair = 2 * _INDEX + item

    def hold(share: float) -> dict[str, float]:
        blocks, held = (1 - min(share, 1.0) * planned.tries) * n * entry, share * n * pair
        if size.on_disk:  # some diagonals at a time, and before that a piece in both orders
            moved = planned.lays_out or share > 0
            read = min(n, (1 + PIECES_AHEAD) * PIECE) * (4 + size.value_size)
            piece = (read + min(n, PIECE) * (entry + share * pair)) * moved
            diagonal = n * entry / choose_stripes(size.shape, n) + 2 * LARGE_PAGE
            return {
                "blocks": max(piece, min((1 + DIAGONALS_AHEAD) * diagonal, n * entry)),
                "held-out entries": held * _MAPPED_HELD,
            }
        return {"blocks": blocks + int(AHEAD) * entry, "held-out entries": held}

    stages: list[dict[str, float]] = [given | {"the matrix": size.peak + extra + looked}]
    final, best = hold(planned.held), factors * planned.keeps
    stages.append(given | final | {"factors": max(2 * factors, factors + drawn) + factors * planned.warm + best})
    if planned.tries:
        stages.append(given | hold(HELD_SHARE) | {"factors": max(2 * factors, factors + drawn) + best})
    return max(stages, key=lambda stage: sum(stage.values()))


def predict_dense_memory(shape: tuple[int, int], kept: int, item: int, rank: int) -> dict[str, float]:
    """Return the same for a fit of every entry, whose matrix takes `kept` bytes unless the user's own will do."""
    cells, factors = shape[0] * shape[1] * item, sum(shape) * (choose_spec(rank, biases=True)[1] + 1) * item
    return {"the matrix": kept + 2 * cells, "factors": 2 * factors, **_FIXED}
