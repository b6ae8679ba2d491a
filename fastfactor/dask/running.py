"""`fit` on a Dask cluster: the same kernels, on parts of the rows that stay with their workers.

Completion is the stratified descent of Gemulla, Nijkamp, Haas and Sismanis (KDD 2011): rows and columns are cut into P
parts, and the P x P tiles are visited by diagonals, whose tiles share no row and no column. Tiles and row factors stay
on a worker, column factors travel. The result depends on P and not on how many workers there are (`grid.py`).

An epoch is a transaction: the client keeps the factors of its beginning. A worker that dies takes at most one epoch of
work with it, and the parts of the matrix that it held are computed anew from where they came from.
"""

from __future__ import annotations

from copy import copy
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.dask.cluster import Cluster, retrying, using_client
from fastfactor.dask.grid import DaskGrid
from fastfactor.dask.parts import combine_moments, inspect_part
from fastfactor.dask.sources import as_parts
from fastfactor.dask.tiles import Layout, lay_part, take_held
from fastfactor.matrix.grid import Held, Making, choose_stripes, deal_stripes
from fastfactor.matrix.labelled import StoredGrid
from fastfactor.model import Factorization
from fastfactor.options import (
    Options,
    check_dtype,
    check_flag,
    check_integer,
    check_lengths,
    check_options,
    check_share,
)
from fastfactor.problems import as_model, standardise_moments, warn_of_one_value
from fastfactor.progress import Display
from fastfactor.solvers.fitting import Task, choose_and_fit, make_penalise
from fastfactor.solvers.recipe import Recipe

_MAX_HELD = 1_000_000  # held-out entries, which the client keeps


def fit(
    X: Any,
    rank: int = 32,
    *,
    client: Any = None,
    n_parts: int = 8,
    shape: tuple[int, int] | None = None,
    biases: bool | str = "auto",
    regularization: Any = "auto",
    learning_rate: Any = "auto",
    max_epochs: int | None = None,
    validation: Any = None,
    seed: int = 0,
    dtype: Any = None,
    max_seconds: float | None = None,
    callback: Any = None,
    progress: Any = None,
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
    biases, regularization, learning_rate, max_epochs, seed, dtype, max_seconds, callback, progress
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
    display = Display(callback, max_seconds, is_quiet=not check_flag(progress, "progress"))
    fixed = {"unobserved": "missing", "loss": "squared", "l1_regularization": 0.0, "nonnegative": False}
    options = check_options({**locals(), **fixed})
    if not display.is_quiet:
        options = replace(options, callback=display)
    if validation is not None and validation is not False:
        validation = check_share(validation, "validation")
    n_parts = check_integer(n_parts, "n_parts", 1)
    with using_client(client) as own, display:
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
    mean, std = combine_moments(looks)
    if std == 0:
        warn_of_one_value(mean)
    computed = check_dtype(dtype, np.result_type(*(look.dtype for look in looks if look.n)), np.float32)
    check_lengths(options, cluster.shape)
    standard = standardise_moments(mean, std, options, computed)
    counts = np.concatenate([look.row_counts for look in looks]), np.sum([look.col_counts for look in looks], axis=0)

    def layout(share: float) -> DaskGrid:
        making = Making(*standard.labels, computed, options.seed, min(share, _MAX_HELD / n_entries))
        return _lay_out(cluster, counts, n_entries, making)

    task = Task.of(options, computed, standard)
    penalise = make_penalise(task.penalty(), lambda: counts)
    fitted, grid = choose_and_fit(layout, penalise, n_entries, validation, options, task)
    described = Recipe.of("missing", options, standard, fitted.selection["regularization"])
    recipe = described.scaled_by_frequency(counts[0]) if fitted.selection["scaled_by_frequency"] else asdict(described)
    return as_model(fitted, task, grid.row_order, grid.col_order, recipe)


def _lay_out(
    cluster: Cluster,
    counts: tuple[NDArray[np.int64], NDArray[np.int64]],
    n_entries: int,
    making: Making,
) -> DaskGrid:
    """Have the workers lay out their tiles: as many stripes over all as a grid in memory has, a few in each part."""
    P = len(cluster.parts)
    n_inner = max(1, choose_stripes(cluster.shape, n_entries) // P)
    col_order, col_starts = deal_stripes(counts[1], P * n_inner, np.random.default_rng(making.seed))
    layout = Layout(col_order, col_starts, n_inner, making)
    client = cluster.client
    shared = client.submit(copy, layout, pure=False)  # a task, so that it is there again when a worker was lost
    laid = cluster.run(lay_part, shared)
    found = retrying(lambda: client.gather([client.submit(take_held, each, pure=False) for each in laid]))
    starts = cluster.starts[:-1]
    rows = np.concatenate([start + held[0] for start, held in zip(starts, found, strict=True)])
    held = Held(rows, *(np.concatenate([part[i] for part in found]) for i in (1, 2)))
    cuts = np.split(counts[0], starts[1:])
    row_order = np.concatenate(
        [start + layout.deal(b, cut).row_order for b, (start, cut) in enumerate(zip(starts, cuts, strict=True))]
    )
    return DaskGrid(cluster, laid, n_inner, row_order, col_order, col_starts[::n_inner], held, n_entries - len(rows))
