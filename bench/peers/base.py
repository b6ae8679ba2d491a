"""The two interfaces that every peer implements: completion of a rating matrix, and truncated SVD.

A peer is a file in this folder with a list `PEERS` of instances. It imports its package at the top: where that fails,
the peer is skipped and the error is the reason. The `__init__` of this folder shows one whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bench import generate

Matrix = sp.csr_matrix | NDArray[np.floating]
Predictor = Callable[[NDArray[np.integer], NDArray[np.integer]], NDArray[np.floating]]
Triplets = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]


@dataclass(frozen=True)
class Recipe:
    """Options of one fit. `regularization` is per observed entry; 0 for `learning_rate` means that a peer has none.

    With a `frequency_power` the penalty of a row or column falls as that power of its number of entries; its mean over
    the entries is then `regularization`. The same for the step with a `pace_power`. Only fastfactor can.
    """

    rank: int
    regularization: float = 0.05
    learning_rate: float = 0.1
    n_epochs: int = 10
    biases: bool = False
    frequency_power: float = 0.0
    pace_power: float = 0.0
    n_threads: int = 2
    seed: int = 0
    dtype: str = "float32"


@dataclass(frozen=True)
class Run:
    """What one fit took and reached.

    `ends[i]` is the time from the call, the matrix being in memory in the format that the peer takes, to the end of
    epoch `epochs[i]`: what a peer does before its first epoch is inside. `test_rmse` is filled when `fit` was given
    test entries; a peer may then be slower, so the times of such a run are not used.
    """

    epochs: Sequence[int]
    ends: Sequence[float]
    predict: Predictor
    test_rmse: Sequence[float] = field(default=())  # may end early, where a peer stops that no longer improves

    @property
    def seconds_per_epoch(self) -> float:
        """Median over the epochs but the first, which the layout and the like are a part of."""
        return float(np.median(np.diff(self.ends) / np.diff(self.epochs)))


class CompletionPeer(ABC):
    """Predicts missing entries of a matrix from its stored ones."""

    name: str
    problem: str = "missing"

    @abstractmethod
    def fit(self, train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None = None) -> Run:
        """Fit `recipe.n_epochs` epochs on the float32 matrix `train`."""

    def warm_up(self, recipe: Recipe) -> None:
        """Compile whatever the peer compiles, on a small matrix of the same types."""
        small = generate.rating_matrix(300, 200, 5_000).astype(recipe.dtype)
        self.fit(small, replace(recipe, n_epochs=2))


class SvdPeer(ABC):
    """Computes the leading singular triplets of a matrix.

    `efforts` are settings from loose to tight (tolerances, or numbers of iterations): the suite takes the loosest one
    that meets a residual. `default` is what a user gets who sets nothing.
    """

    name: str
    efforts: Sequence[float]
    default: float = 0.0

    @abstractmethod
    def solve(self, A: Matrix, k: int, effort: float) -> Triplets:
        """Return (U, s, Vt) in any order."""

    def warm_up(self, A: Matrix, k: int) -> None:
        """Compile whatever the peer compiles, on a small matrix of A's kind, loosely and at the default setting."""
        small = generate.text_matrix(2_000, 500, 20_000) if sp.issparse(A) else generate.decaying_dense(600, 300)
        for effort in {next(iter(self.efforts)), self.default}:
            self.solve(small.astype(A.dtype), k, effort)

    def plausible_efforts(self, residual: float) -> Iterator[float]:
        """Efforts worth trying for a residual; by default tolerances down from a thousand times as much."""
        return (effort for effort in self.efforts if effort <= 1e3 * residual)


def factor_predictor(
    U: NDArray[np.floating],
    V: NDArray[np.floating],
    row_bias: NDArray[np.floating] | float = 0.0,
    col_bias: NDArray[np.floating] | float = 0.0,
) -> Predictor:
    """Predict row_bias[r] + col_bias[c] + U[r] . V[c]; a mean goes into either bias."""
    row_bias, col_bias = np.broadcast_to(row_bias, len(U)), np.broadcast_to(col_bias, len(V))

    def predict(rows: NDArray[np.integer], cols: NDArray[np.integer]) -> NDArray[np.floating]:
        return np.einsum("nk,nk->n", U[rows], V[cols]) + row_bias[rows] + col_bias[cols]

    return predict


def rmse(predict: Predictor, entries: sp.coo_matrix, chunk: int = 1 << 18) -> float:
    """Root mean squared error over stored entries, in chunks so that memory stays small."""
    total = 0.0
    for start in range(0, entries.nnz, chunk):
        part = slice(start, start + chunk)
        errors = entries.data[part] - predict(entries.row[part], entries.col[part])
        total += float(np.sum(np.square(errors, dtype=np.float64)))
    return float(np.sqrt(total / entries.nnz))
