"""The column that a stored entry is held against where pairs are ranked: drawn at random among those its row has not.

Columns come from the stripe of the entry's own block, so that no other thread touches their factors meanwhile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from fastfactor.kernels.compiling import kernel
from fastfactor.kernels.layout import hash_counter
from fastfactor.kernels.topn import is_among

TRIES = 8  # draws that may hit what the row has; then the entry is left out this time


class Rivals(NamedTuple):
    """What decides which column an entry is held against.

    Attributes
    ----------
    seed : uint64
        Another one in each epoch.
    names : (n_cols,) int64 array
        What a column of the factors is called in `indices`.
    indices, starts, stops
        The columns that each row has, as in `topn.Seen`, rows in the order of the factors. (A parallel loop takes no
        tuple within a tuple.)
    """

    seed: Any
    names: Any
    indices: Any
    starts: Any
    stops: Any


@kernel
def _select(rivals, r0, r1, c0, c1):
    return Rivals(rivals.seed, rivals.names[c0:c1], rivals.indices, rivals.starts[r0:r1], rivals.stops[r0:r1])


def select_rivals(rivals, r0, r1, c0, c1):
    """Return the rivals within rows r0:r1 and columns c0:c1 of the factors; None for None."""
    return None if rivals is None else _select(rivals, r0, r1, c0, c1)


@overload(select_rivals, inline="always")
def _select_rivals(rivals, r0, r1, c0, c1):
    if isinstance(rivals, types.NoneType):
        return lambda rivals, r0, r1, c0, c1: None
    return lambda rivals, r0, r1, c0, c1: _select(rivals, r0, r1, c0, c1)


@kernel
def draw_rival(rivals, i, r):
    """Return a column for entry `i`, of row `r`, uniform over those that the row has not; -1 where none was found."""
    n_cols = np.uint64(len(rivals.names))
    for t in range(TRIES):
        bits = hash_counter(rivals.seed, np.uint64(TRIES) * np.uint64(i) + np.uint64(t))
        c = np.int64(((bits >> np.uint64(32)) * n_cols) >> np.uint64(32))
        if not is_among(rivals.names[c], rivals.indices, rivals.starts[r], rivals.stops[r]):
            return c
    return np.int64(-1)
