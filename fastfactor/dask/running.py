"""`fit` and `svd` on a Dask cluster: the same kernels, on parts of the rows that stay with their workers.

Completion is the stratified descent of Gemulla, Nijkamp, Haas and Sismanis (KDD 2011): rows and columns are cut into P
parts, and the P x P tiles are visited by diagonals, whose tiles share no row and no column. Tiles and row factors stay
on a worker, column factors travel. The result depends on P and not on how many workers there are.

An epoch is a transaction: the client keeps the factors of its beginning. A worker that dies takes at most one epoch of
work with it, and the parts of the matrix that it held are computed anew from where they came from.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.dask.parts import (
    add_up,
    gram_part,
    inspect_part,
    lay_part,
    multiply_part,
    scatter_part,
    sweep_tile,
    take_held,
)
from fastfactor.dask.sources import as_parts
from fastfactor.decomposition import as_search, certify, choose_precision
from fastfactor.kernels.update import Factors, Step
from fastfactor.matrix.grid import Held, deal_stripes
from fastfactor.matrix.labelled import StoredGrid
from fastfactor.matrix.operators import Operand, power_of_two
from fastfactor.matrix.streaming import AdjointOperand
from fastfactor.model import Factorization
from fastfactor.options import Options, check_dtype, check_integer, check_options, check_real
from fastfactor.problems import as_model, standardise_moments
from fastfactor.results import SVDResult
from fastfactor.solvers.dispatch import decompose_operand
from fastfactor.solvers.fitting import Task, choose_and_fit, order_penalty
from fastfactor.solvers.recipe import Recipe
from fastfactor.solvers.schedule import Penalty, weigh_by_frequency

Array = NDArray[Any]

_ATTEMPTS = 4  # at an epoch or a pass; workers may die during each
_MAX_HELD = 1_000_000  # held-out entries, which the client keeps


@contextlib.contextmanager
def _using_client(client: Any) -> Iterator[Any]:
    """Yield the client that was given, the current one, or one of a `LocalCluster` that goes afterwards."""
    try:
        import distributed
    except ImportError as error:
        raise ImportError("dask.distributed is missing: pip install 'fastfactor[dask]'") from error
    if client is None:
        with contextlib.suppress(ValueError):
            client = distributed.default_client()
    if client is not None:
        yield client
        return
    with (
        distributed.LocalCluster(threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as own,
    ):
        yield own


def _retrying(work: Any) -> Any:
    """Return work(), begun anew as long as workers die under it."""
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    for attempt in range(_ATTEMPTS):
        try:
            return work()
        except (FutureCancelledError, KilledWorker, CommClosedError):
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


@dataclass
class Cluster:
    """The parts of a matrix on the workers of a client.

    Attributes
    ----------
    client : distributed.Client
    parts : list of Future
        Of `Part`, in the order of the rows.
    starts : (P + 1,) int64 array
        First row of each part.
    n_cols : int
    """

    client: Any
    parts: list[Any]
    starts: NDArray[np.int64]
    n_cols: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return int(self.starts[-1]), self.n_cols

    def run(self, function: Any, *args: Any) -> list[Any]:
        """Return futures of function(part, *args) for each part."""
        return [self.client.submit(function, part, *args, pure=False) for part in self.parts]

    def gather(self, function: Any, *args: Any) -> list[Any]:
        """Return what function(part, *args) is for each part."""
        return list(_retrying(lambda: self.client.gather(self.run(function, *args))))


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

    def begin_epoch(self, order: NDArray[np.int64]) -> None:
        """Take note of the diagonals that make up the epoch."""
        self.upcoming, self.done = order.tolist(), []

    def sweep(
        self, factors: Factors, diagonals: NDArray[np.int64], losses: NDArray[np.float64], step: Step, static: Any
    ) -> None:
        """Have some diagonals swept; with the last one of the epoch `factors` and `losses` get what came of it."""
        self.done += [(d, step, static.spec) for d in diagonals.tolist()]
        if len(self.done) < len(self.upcoming):
            return
        rows, cols = _retrying(lambda: self._run(factors))
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
    with _using_client(client) as own:
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
        found = _retrying(lambda: client.gather([client.submit(take_held, each, pure=False) for each in laid]))
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


class DaskOperand(Operand):
    """A matrix of parts on workers. Their sums are added as a tree, in the order of the parts."""

    def __init__(self, cluster: Cluster, dtype: Any, scale: float) -> None:
        self.cluster, self.scale = cluster, scale
        self.m, self.n = cluster.shape
        self.dtype = np.result_type(dtype, np.float64)

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X to G."""
        G[0, : self.n] += self._reduce(lambda: self.cluster.run(gram_part, self._share(X[: self.n]), self.scale))

    def multiply(self, V: Array) -> Array:
        """Return B V."""

        def work() -> Any:
            return self.cluster.client.gather(self.cluster.run(multiply_part, self._share(V), self.scale))

        return np.concatenate(_retrying(work))

    def adjoint(self, U: Array) -> Array:
        """Return B^H U."""
        starts, client = self.cluster.starts, self.cluster.client

        def begin() -> list[Any]:
            cuts = [np.ascontiguousarray(U[a:b]) for a, b in itertools.pairwise(starts)]
            shared = client.scatter(cuts, hash=False)
            return [
                client.submit(scatter_part, part, cut, self.scale, pure=False)
                for part, cut in zip(self.cluster.parts, shared, strict=True)
            ]

        return np.asarray(self._reduce(begin))

    def _share(self, X: Array) -> Any:
        return self.cluster.client.scatter(np.ascontiguousarray(X), broadcast=True, hash=False)

    def _reduce(self, begin: Any) -> Array:
        def work() -> Any:
            level: list[Any] = begin()
            while len(level) > 1:
                pairs: Sequence[Any] = [level[i : i + 2] for i in range(0, len(level), 2)]
                level = [
                    self.cluster.client.submit(add_up, *pair, pure=False) if len(pair) > 1 else pair[0]
                    for pair in pairs
                ]
            return level[0].result()

        return np.asarray(_retrying(work))


def svd(
    X: Any,
    k: int,
    *,
    client: Any = None,
    n_parts: int = 8,
    shape: tuple[int, int] | None = None,
    tol: float | None = None,
    max_passes: int | None = None,
    seed: int = 0,
    dtype: Any = None,
) -> SVDResult:
    """Compute the k leading singular triplets of a matrix on a Dask cluster; see `fastfactor.svd`.

    Parameters
    ----------
    X, client, n_parts, shape
        As for `fit`; what is not stored is 0. Dense chunks must be finite.
    k, tol, max_passes, seed, dtype
        As for `fastfactor.svd`.

    Returns
    -------
    SVDResult

    Raises
    ------
    TypeError, ValueError, ImportError
        As for `fit` and `fastfactor.svd`.
    """
    n_parts = check_integer(n_parts, "n_parts", 1)
    with _using_client(client) as own:
        cluster = Cluster(own, *as_parts(X, own, n_parts, shape, missing_is_zero=True))
        looks = cluster.gather(inspect_part)
        real = choose_precision(looks[0].dtype, dtype)
        search = as_search(cluster, k, real, tol, max_passes, None)
        largest = max(look.largest for look in looks)
        operand: Operand = DaskOperand(cluster, looks[0].dtype, power_of_two(largest))
        is_adjoint = operand.m < operand.n
        if is_adjoint:
            operand = AdjointOperand(operand)
        found = decompose_operand(operand, is_adjoint, search, np.random.default_rng(seed))
        scale = largest or 1.0
        norm = scale * float(np.sqrt(sum(look.squares(scale) for look in looks)))
    return SVDResult(**certify(found, search, real), frobenius_norm=norm)
