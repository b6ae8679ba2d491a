"""A model goes on where its fit ended: `Factorization.partial_fit`."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fastfactor.folding import fold_in
from fastfactor.kernels.losses import find_traits, register_loss
from fastfactor.matrix.domains import check_domain, check_labels, locate_in
from fastfactor.matrix.inputs import Observations, as_observations, without_ids
from fastfactor.matrix.labelled import Labelled
from fastfactor.model import Factorization
from fastfactor.options import Options, check_integer, check_seed, refuse_sampled
from fastfactor.problems import Problem, as_model, fit_positives, fit_zero
from fastfactor.solvers.fitting import Task, fit_observed
from fastfactor.solvers.recipe import Recipe
from fastfactor.starting import as_start, check_init
from fastfactor.threads import using_threads

_EPOCHS = {"missing": 5, "zero": 20, "weak": 3}
_NEXT_RATE = 0.003  # for new entries alone, standardised: larger steps forget the entries before (docs/performance.md)


def partial_fit(
    model: Factorization, X: Any, max_epochs: int | None, seed: int, n_threads: int | None
) -> Factorization:
    """Return the model after more epochs on `X`; see `Factorization.partial_fit`."""
    refuse_sampled(model, "partial_fit")
    recipe = Recipe.read(model.recipe, bool(model.row_bias.any() or model.col_bias.any()))
    options = Options(
        rank=model.rank,
        loss=model.loss if isinstance(model.loss, str) else register_loss(model.loss),
        biases=recipe.biases,
        penalty=recipe.regularization,
        l1_penalty=recipe.l1_regularization,
        nonnegative=recipe.nonnegative,
        learning_rate=_NEXT_RATE / recipe.standard.penalty_unit if recipe.unobserved == "missing" else None,
        pace=None,
        max_epochs=_EPOCHS[recipe.unobserved] if max_epochs is None else check_integer(max_epochs, "max_epochs", 1),
        max_seconds=math.inf,
        seed=check_seed(seed),
        callback=None,
    )
    check_init(model, options, X)
    matrix, shape = without_ids(X, None)
    dtype = model.U.real.dtype
    with using_threads(n_threads):
        if recipe.unobserved == "zero":
            more = fit_zero(Problem(X, shape, dtype=dtype, init=model), options)
        elif recipe.unobserved == "weak":
            problem = Problem(matrix, shape, dtype=dtype, validation=False, init=model)
            more = fit_positives(problem, options, recipe.others)
        else:
            more = _fit_entries(model, recipe, matrix, shape, options)
    labels = (X.row_labels, X.col_labels) if isinstance(X, Labelled) else (None, None)
    grown = [new > old for new, old in zip(more.shape, model.shape, strict=True)]
    return replace(
        more,
        row_labels=labels[0] or (None if grown[0] else model.row_labels),
        col_labels=labels[1] or (None if grown[1] else model.col_labels),
    )


def _fit_entries(model: Factorization, recipe: Recipe, X: Any, shape: Any, options: Options) -> Factorization:
    """Fit new entries, in the units of the entries before."""
    observed = _read_beside(model, X, shape)
    values, standard = observed.data[: observed.n_entries], recipe.standard
    domain = find_traits(options.loss).domain
    if domain == "binary":
        check_labels(standard.labels, values, locate_in(observed), "X")
    elif options.loss != "squared":
        check_domain(domain, values, locate_in(observed), "X")
    start = as_start(_with_new_rows(model, observed), observed.shape, model.U.dtype)
    task = Task.of(options, model.U.dtype, standard, start)
    fitted, grid = fit_observed(observed, False, options, task)
    return as_model(fitted, task, grid.row_order, grid.col_order, asdict(recipe))


def _read_beside(model: Factorization, X: Any, shape: Any) -> Observations:
    """Return the entries of `X` as those of a matrix that is at least as large as the model's."""
    observed = as_observations(X, shape=shape)
    n_rows, n_cols = (max(sizes) for sizes in zip(observed.shape, model.shape, strict=True))
    if observed.data.dtype.kind == "c" and model.U.dtype.kind != "c":
        raise TypeError("X is complex, the model is real")
    indptr = np.pad(observed.indptr, (0, n_rows - observed.shape[0]), mode="edge")
    return replace(observed, shape=(n_rows, n_cols), indptr=indptr)


def _with_new_rows(model: Factorization, observed: Observations) -> Factorization:
    """Return the model with new rows fitted to its columns: drawn at random they would spoil these first."""
    first = observed.indptr[model.shape[0]]
    rows, cols = observed.rows[first:] - model.shape[0], observed.indices[first : observed.n_entries]
    known = cols < model.shape[1]
    if not known.any():
        return model
    folded = fold_in(model, (rows[known], cols[known], observed.data[first : observed.n_entries][known]))
    U, row_bias = np.concatenate([model.U, folded.U]), np.concatenate([model.row_bias, folded.row_bias])
    return replace(model, U=U, row_bias=row_bias)
