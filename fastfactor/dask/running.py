"""`fit` and `svd` on a Dask cluster: the same kernels, on parts of the rows that stay with their workers.

Completion is the stratified descent of Gemulla, Nijkamp, Haas and Sismanis (KDD 2011): rows and columns are cut into P
parts, and the P x P tiles are visited by diagonals, whose tiles share no row and no column. Tiles and row factors stay
on a worker, column factors travel. The result depends on P and not on how many workers there are.

An epoch is a transaction: the client keeps the factors of its beginning. A worker that dies takes at most one epoch of
work with it, and the parts of the matrix that it held are computed anew from where they came from.
"""

from __future__ import annotations

import itertools
import operator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.dask.cluster import Cluster, retrying, using_client
from fastfactor.dask.parts import inspect_part, lay_part, sweep_tile, take_held
from fastfactor.dask.sources import as_parts
from fastfactor.kernels.update import Factors, Step
from fastfactor.matrix.grid import Held, deal_stripes
from fastfactor.matrix.labelled import StoredGrid
from fastfactor.model import Factorization
from fastfactor.options import Options, check_dtype, check_integer, check_options, check_real
from fastfactor.problems import as_model, standardise_moments
from fastfactor.solvers.fitting import Task, choose_and_fit, order_penalty
from fastfactor.solvers.recipe import Recipe
from fastfactor.solvers.schedule import Penalty, weigh_by_frequency

_MAX_HELD = 1_000_000  # held-out entries, which the client keeps


@dataclass
class DaskGrid:
    """Tiles on workers; see `solvers.sgd.Sweepable`."""

    cluster: Cluster
    tiles: list[Any]
    row_order: NDArray[np.int64]
    col_order: NDArray[np.int64]
    col_starts: NDArray[np.int64]
    held: Held
    n_entries: int
    owner: Any = None  # the factors whose state the workers have
    rows: list[Any] = field(default_factory=list)
    cols: list[Any] = field(default_factory=list)
    upcoming: list[int] = field(default_factory=list)
    done: list[tuple[int, Step, Any]] = field(default_factory=list)

    @property
    def n_stripes(self) -> int:
        """Number of parts."""
        return len(self.tiles)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return self.cluster.shape

    def begin_epoch(self, epoch: int, order: NDArray[np.int64]) -> None:
        """Take note of the diagonals that make up the epoch."""
        self.upcoming, self.done = order.tolist(), []

    def sweep(
        self, factors: Factors, diagonals: NDArray[np.int64], losses: NDArray[np.float64], step: Step, static: Any
    ) -> None:
        """Have some diagonals swept; with the last one of the epoch `factors` and `losses` get what came of it."""
        self.done += [(d, step, static.spec) for d in diagonals.tolist()]
        if len(self.done) < len(self.upcoming):
            return
        rows, cols = retrying(lambda: self._run(factors))
        for b, (U, bias, loss) in enumerate(rows):
            part = slice(int(self.cluster.starts[b]), int(self.cluster.starts[b + 1]))
            factors.U[part], factors.row_bias[part], losses[b, 0] = U, bias, loss
        for c, (V, bias) in enumerate(cols):
            part = slice(int(self.col_starts[c]), int(self.col_starts[c + 1]))
            factors.V[part], factors.col_bias[part] = V, bias

    def _run(self, factors: Factors) -> Any:
        """Run the epoch; when a worker dies under it, the next attempt begins with what the client has."""
        if self.owner is not factors:
            self._send(factors)
        self.owner = None
        for place, planned in enumerate(self.done):
            self._submit(*planned, place == 0)
        found = self.cluster.client.gather([self.rows, self.cols])
        self.owner = factors
        return found

    def _send(self, factors: Factors) -> None:
        starts = self.cluster.starts
        scatter = self.cluster.client.scatter
        cuts = [slice(int(a), int(b)) for a, b in itertools.pairwise(starts)]
        self.rows = scatter([(factors.U[cut], factors.row_bias[cut], 0.0) for cut in cuts], hash=False)
        cuts = [slice(int(a), int(b)) for a, b in zip(self.col_starts[:-1], self.col_starts[1:], strict=True)]
        self.cols = scatter([(factors.V[cut], factors.col_bias[cut]) for cut in cuts], hash=False)
        self.owner = factors

    def _submit(self, d: int, step: Step, spec: Any, is_first: bool) -> None:
        P, client, starts = self.n_stripes, self.cluster.client, self.cluster.starts
        for b in range(P):
            c = (b + d) % P
            shrink_u = _cut(step.shrink_u, starts[b], starts[b + 1])
            shrink_v = _cut(step.shrink_v, self.col_starts[c], self.col_starts[c + 1])
            here = Step(step.lr, shrink_u, shrink_v, step.place, step.prox)
            state = self.rows[b], self.cols[c]
            swept = client.submit(sweep_tile, self.tiles[b], c, *state, here, spec, is_first, pure=False)
            self.rows[b] = client.submit(operator.itemgetter(0), swept, pure=False)
            self.cols[c] = client.submit(operator.itemgetter(1), swept, pure=False)


def _cut(numbers: Any, start: int, stop: int) -> Any:
    return numbers[start:stop] if np.ndim(numbers) else numbers


def fit(
    X: Any,
    rank: int = 32,
    *,
    client: Any = None,
    n_parts: int = 8,
    shape: tuple[int, int] | None = None,
    biases: bool | str = "auto",
    regularization: Any = "auto",
    learning_rate: float | str = "auto",
    max_epochs: int | None = None,
    validation: Any = None,
    seed: int = 0,
    dtype: Any = None,
    max_seconds: float | None = None,
    callback: Any = None,
) -> Factorization:
    """Fit the stored entries of a matrix on a Dask cluster, by the squared loss; see `fastfactor.fit`.

    Parameters
    ----------
    X : Dask array, Dask DataFrame, or StoredGrid
        An array with chunks of scipy.sparse or dense ones (NaN is missing); the first three columns of a DataFrame as
        row, column (positions) and value, each place once; a grid in a folder that all workers can read.
    rank : int
    client : distributed.Client, optional
        By default the current one, or that of a `LocalCluster` of as many processes as there are cores, for this call.
    n_parts : int
        Parts of the rows, and of the columns; at most as many as the array has chunks of rows. The result depends on
        it, and at most so many workers have something to do.
    shape : (int, int), optional
        Of a DataFrame; by default just large enough.
    biases, regularization, learning_rate, max_epochs, seed, dtype, max_seconds, callback
        As for `fastfactor.fit`.
    validation : None, float or False
        As for `fastfactor.fit`; at most a million entries are held out to choose by.

    Returns
    -------
    Factorization

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument and the value.
    ImportError
        If dask.distributed is not installed.

    References
    ----------
    Gemulla, Nijkamp, Haas and Sismanis, "Large-scale matrix factorization with distributed stochastic gradient
    descent", KDD 2011.
    """
    options = check_options(
        rank,
        "missing",
        "squared",
        biases,
        regularization,
        0.0,
        False,
        learning_rate,
        max_epochs,
        max_seconds,
        seed,
        callback,
    )
    if validation is not None and validation is not False:
        validation = check_real(validation, "validation", strict=True)
        if validation >= 1:
            raise ValueError(f"validation must be a share below 1, got {validation}")
    n_parts = check_integer(n_parts, "n_parts", 1)
    with using_client(client) as own:
        cluster = Cluster(own, *as_parts(X, own, n_parts, shape))
        model = _fit(cluster, options, validation, dtype)
    if not isinstance(X, StoredGrid):
        return model
    return replace(model, row_labels=X.row_labels, col_labels=X.col_labels)


def _fit(cluster: Cluster, options: Options, validation: Any, dtype: Any) -> Factorization:
    looks = cluster.gather(inspect_part)
    n_entries = sum(look.n for look in looks)
    if not n_entries:
        raise ValueError("X has no observed entry")
    mean = sum(look.total for look in looks) / n_entries
    spread = float(np.sqrt(sum(look.squares_about(mean) for look in looks) / n_entries))
    computed = check_dtype(dtype, looks[0].dtype, np.float32)
    standard = standardise_moments(mean, spread, options, computed)
    counts = np.concatenate([look.row_counts for look in looks]), np.sum([look.col_counts for look in looks], axis=0)
    col_order, col_starts = deal_stripes(counts[1], len(cluster.parts), np.random.default_rng(options.seed))

    def layout(share: float) -> Any:
        share = min(share, _MAX_HELD / n_entries)
        place = np.empty(cluster.n_cols, np.int64)
        place[col_order] = np.arange(cluster.n_cols)
        shift, scale = standard.labels
        args = (place, col_starts, shift, scale, computed, options.seed, share)
        laid = cluster.run(lay_part, *args)
        client = cluster.client
        found = retrying(lambda: client.gather([client.submit(take_held, each, pure=False) for each in laid]))
        rows = np.concatenate([start + held[0] for start, held in zip(cluster.starts[:-1], found, strict=True)])
        held = Held(rows, *(np.concatenate([part[i] for part in found]) for i in (1, 2)))
        n_kept = n_entries - len(rows)
        return DaskGrid(cluster, laid, np.arange(cluster.shape[0]), col_order, col_starts, held, n_kept)

    task = Task.of(options, computed, standard)
    given = task.penalty()
    weights = [weigh_by_frequency(each) for each in counts]

    def penalise(mean: float, grid: Any) -> Penalty:
        if given is not None:
            return order_penalty(given, grid)
        return Penalty(mean * weights[0], mean * weights[1][grid.col_order])

    fitted, grid = choose_and_fit(layout, penalise, n_entries, validation, options, task)
    described = Recipe.of("missing", options, standard, fitted.selection["regularization"])
    recipe = described.scaled_by_frequency(counts[0]) if fitted.selection["scaled_by_frequency"] else asdict(described)
    return as_model(fitted, task, grid.row_order, grid.col_order, recipe)
