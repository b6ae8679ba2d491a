"""Per-entry SGD as plain Numba loops: the baseline that shows what each step of the library's kernels buys.

Three rungs of one ladder, each with the step of the one before it:

- `loops`: the code most people would write. Shuffled triplets, one thread.
- `loops-reordered`: LLVM may reorder sums, so the dot product becomes vector instructions too.
- `loops-blocks`: as many threads as asked for, over blocks that share no row and no column.

A rank that is a constant when LLVM sees the loop is no rung: it then unrolls the loops before it could vectorise them,
and ran at 23 instead of 67 million updates a second at rank 16, 24 instead of 37 at 32, and no faster at 64. What the
library adds on top is one factor row as one machine vector, prefetching, and a compiled layout.
"""

import time

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bench.peers.base import CompletionPeer, Recipe, Run, factor_predictor, rmse

_REORDER = {"reassoc", "contract", "arcp", "nsz"}
_N_BLOCKS = 16
_DECAY = 0.9


class Loops(CompletionPeer):
    def __init__(self, name: str, reorder: bool, n_blocks: int) -> None:
        self.name = name
        self._sweep = numba.njit(parallel=True, fastmath=_REORDER if reorder else False)(_sweep)
        self._n_blocks = n_blocks

    def fit(self, train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None = None) -> Run:
        entries = train.tocoo()
        rng = np.random.default_rng(recipe.seed)
        start = time.perf_counter()
        mean = np.float32(entries.data.mean())
        order, offsets = _lay_out(entries, self._n_blocks, rng)
        rows, cols, values = entries.row[order], entries.col[order], entries.data[order] - mean
        size = np.float32(0.3 / recipe.rank**0.5)
        U, V = (rng.standard_normal((n, recipe.rank), dtype=np.float32) * size for n in train.shape)
        predict = factor_predictor(U, V, float(mean))
        ends, errors = [], []
        n_threads_before = numba.get_num_threads()
        numba.set_num_threads(recipe.n_threads if self._n_blocks > 1 else 1)
        try:
            for epoch in range(recipe.n_epochs):
                step = np.float32(recipe.learning_rate * _DECAY**epoch)
                self._sweep(U, V, rows, cols, values, offsets, step, np.float32(recipe.regularization))
                ends.append(time.perf_counter() - start)
                if test is not None:
                    errors.append(rmse(predict, test))
        finally:
            numba.set_num_threads(n_threads_before)
        return Run(range(1, recipe.n_epochs + 1), ends, predict, errors)


def _lay_out(
    entries: sp.coo_matrix, n_blocks: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order the entries by block, at random inside; block (i, j) is at place ((j - i) mod n) * n + i, by diagonals."""
    order = rng.permutation(entries.nnz)
    row_part, col_part = (rng.permutation(n) * n_blocks // n for n in entries.shape)
    i, j = row_part[entries.row[order]], col_part[entries.col[order]]
    block = ((j - i) % n_blocks) * n_blocks + i
    order = order[np.argsort(block.astype(np.uint16), kind="stable")]
    offsets = np.append(0, np.cumsum(np.bincount(block, minlength=n_blocks**2)))
    return order, offsets


def _sweep(U, V, rows, cols, values, offsets, step, reg):  # compiled once per rung
    n_blocks = int(np.sqrt(len(offsets) - 1))
    for diagonal in range(n_blocks):
        for i in numba.prange(n_blocks):
            block = diagonal * n_blocks + i
            for place in range(offsets[block], offsets[block + 1]):
                r, c = rows[place], cols[place]
                e = values[place]
                for q in range(U.shape[1]):
                    e -= U[r, q] * V[c, q]
                for q in range(U.shape[1]):
                    u, v = U[r, q], V[c, q]
                    U[r, q] = u + step * (e * v - reg * u)
                    V[c, q] = v + step * (e * u - reg * v)


PEERS = [
    Loops("loops", reorder=False, n_blocks=1),
    Loops("loops-reordered", reorder=True, n_blocks=1),
    Loops("loops-blocks", reorder=True, n_blocks=_N_BLOCKS),
]
