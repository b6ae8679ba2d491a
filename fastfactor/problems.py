"""The three problems: from checked arguments and a matrix to a model, by way of units, a solver and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfactor.exceptions import warn_caller
from fastfactor.kernels.losses import LOSSES, find_loss, find_traits
from fastfactor.kernels.update import Factors
from fastfactor.matrix.domains import check_domain, check_labels, locate_in
from fastfactor.matrix.grid import Grid, Held
from fastfactor.matrix.inputs import Observations, as_dense, as_observations, is_sparse, without_ids
from fastfactor.matrix.labelled import StoredGrid
from fastfactor.matrix.mapped import drop_pages
from fastfactor.matrix.positives import Positives, as_positives, store_rows
from fastfactor.matrix.sizes import measure
from fastfactor.matrix.weights import as_weights, weigh_moments
from fastfactor.model import Factorization
from fastfactor.options import Options, check_dtype, check_lengths, check_share, refuse_beyond
from fastfactor.solvers.budget import Planned, predict_dense_memory, predict_memory
from fastfactor.solvers.fitting import Fitted, Task, fit_dense, fit_observed, may_stop
from fastfactor.solvers.held_ranks import HeldRanks
from fastfactor.solvers.journal import Journal
from fastfactor.solvers.memory import restore_order
from fastfactor.solvers.pairs import fit_pairs
from fastfactor.solvers.recipe import Recipe
from fastfactor.solvers.schedule import count_epochs_of_all
from fastfactor.solvers.standard import Standard, standardise
from fastfactor.solvers.weak import fit_weak
from fastfactor.starting import as_start

_SLOW_DENSE_WORK = 2e11  # entries x rank x epochs of unobserved="zero": minutes


@dataclass(frozen=True)
class Problem:
    """What is to be fitted: a matrix as it was handed over, and the arguments of `fit` that go with its entries.

    Attributes
    ----------
    X : what `fit` takes
        Without ids, but where all entries count.
    shape, duplicates, dtype, validation, sample_weight, init
        See `fit`.
    limit : float
        Bytes that the fit may take.
    """

    X: Any
    shape: Any = None
    duplicates: str = "error"
    dtype: Any = None
    validation: Any = None
    sample_weight: Any = None
    init: Factorization | None = None
    limit: float = np.inf


def fit_zero(problem: Problem, options: Options, journal: Journal | None = None) -> Factorization:
    """Fit every entry, what is not stored being 0; refuse to take more than the limit."""
    X, validation, sample_weight, dtype = problem.X, problem.validation, problem.sample_weight, problem.dtype
    if validation is not None and validation is not False:
        raise ValueError("validation must be None or False where unobserved='zero': every entry is fitted")
    if sample_weight is not None and is_sparse(sample_weight):
        raise ValueError("sample_weight must be a dense array where unobserved='zero': every entry of X has a weight")
    if problem.duplicates not in ("error", "sum"):
        raise ValueError(
            f"duplicates must be 'sum' (or the default) where unobserved='zero', got {problem.duplicates!r}"
        )
    if problem.limit < np.inf:
        _check_dense_room(problem, options)
    A = as_dense(X, shape=problem.shape)
    work = A.size * options.rank * (options.max_epochs or count_epochs_of_all(A.shape))
    if work > _SLOW_DENSE_WORK:
        warn_caller(
            f"unobserved='zero' visits all {A.shape[0]} x {A.shape[1]} entries each epoch, about {work / 3e9:.0f} s on "
            f"two cores{'; fastfactor.svd solves the same problem much faster' if sample_weight is None else ''}"
        )
    computed = check_dtype(dtype, A.dtype, A.dtype)
    _check_real_only(options, computed)
    if sample_weight is not None:
        observed = as_observations(A)
        check_lengths(options, A.shape)
        planned = replace(options, max_epochs=options.max_epochs or count_epochs_of_all(A.shape))
        weights = as_weights(sample_weight, A, observed)
        return _fit_entries("zero", problem, observed, weights, computed, planned, journal)
    if options.loss == "squared":
        with np.errstate(over="ignore", invalid="ignore"):  # moduli of complex numbers, at the ends of the range
            largest = float(np.abs(A).max())
            scale = largest * float(np.sqrt(np.mean(np.abs(A / (largest or 1.0)) ** 2))) or 1.0
        _check_range_of(computed, 0.0, scale)
        standard = Standard.of_moments(0.0, scale, (A / (largest or 1.0)).mean() * largest)
    else:
        labels = check_domain(find_traits(options.loss).domain, A.ravel(), lambda i: divmod(i, A.shape[1]))
        standard = standardise(options.loss, A.ravel(), _is_centred(options), labels)
    check_lengths(options, A.shape)
    task = Task.of(options, computed, standard, as_start(problem.init, A.shape, computed), journal)
    real = A.real.dtype.type
    shift, scale = standard.labels
    A = A / real(scale) if shift == 0 else (A - real(shift)) / real(scale)
    fitted = fit_dense(np.ascontiguousarray(A, computed), options, task)
    recipe = asdict(Recipe.of("zero", options, standard, options.penalty or (0.0, 0.0)))
    return as_model(fitted, task, np.arange(A.shape[0]), np.arange(A.shape[1]), recipe)


def fit_missing(problem: Problem, options: Options, journal: Journal | None = None) -> Factorization:
    """Fit the stored entries; refuse to take more than the limit."""
    if problem.limit < np.inf:
        _check_room(problem, options)
    observed = as_observations(problem.X, shape=problem.shape, duplicates=problem.duplicates)
    check_lengths(options, observed.shape)
    computed = check_dtype(problem.dtype, observed.data.dtype, np.float32)
    _check_real_only(options, computed)
    if observed.std == 0:
        warn_of_one_value(observed.data[0])
    weights = _weigh(problem, observed)
    return _fit_entries("missing", problem, observed, weights, computed, options, journal)


def warn_of_one_value(value: Any) -> None:
    """Warn that there is nothing to learn from what is stored."""
    warn_caller(
        f"all stored values of X equal {value}: with unobserved='missing' there is nothing to learn but that; for "
        "implicit feedback use unobserved='weak'"
    )


def _weigh(problem: Problem, observed: Observations) -> NDArray[np.float64] | None:
    """Return a weight for each entry, None where all have the same."""
    return None if problem.sample_weight is None else as_weights(problem.sample_weight, problem.X, observed)


def _fit_entries(
    unobserved: str,
    problem: Problem,
    observed: Observations,
    weights: NDArray[Any] | None,
    computed: np.dtype[Any],
    options: Options,
    journal: Journal | None,
) -> Factorization:
    """Fit the entries of `observed`, each with its weight, and describe it as a fit of `unobserved`."""
    if weights is not None:
        observed = weigh_moments(observed, weights)
    standard = _standardise(observed, options, computed, weights)
    drop_pages(observed.data)
    mean_weight = 1.0 if weights is None else float(weights.mean())
    if weights is not None:
        standard = standard.weighted(mean_weight)
        weights = weights / mean_weight
    task = Task.of(options, computed, standard, as_start(problem.init, observed.shape, computed), journal)
    held = False if unobserved == "zero" else _check_validation(problem.validation, observed, task)
    fitted, grid = fit_observed(observed, held, options, task, weights)
    penalty = fitted.selection["regularization"]
    described = Recipe.of(unobserved, options, standard, penalty, weight=mean_weight)
    by_frequency = fitted.selection["scaled_by_frequency"]
    recipe = described.scaled_by_frequency(np.diff(observed.indptr)) if by_frequency else asdict(described)
    return as_model(fitted, task, grid.row_order, grid.col_order, recipe)


def fit_positives(
    problem: Problem, options: Options, others: float | None, journal: Journal | None = None
) -> Factorization:
    """Fit positives against all else: zeros that weigh `others` each (None: choose), or what is to rank below them."""
    observed = as_positives(problem.X, problem.shape, problem.duplicates)
    check_lengths(options, observed.shape)
    computed = check_dtype(problem.dtype, observed.data.dtype, np.float32)
    weights, start = _weigh(problem, observed), as_start(problem.init, observed.shape, computed)
    ones = np.ones(observed.n_entries)
    positives = Positives.of(store_rows(observed.indptr, observed.indices, ones, weights, computed), observed.shape[1])
    held, search = _hold_positives(problem.validation, positives, options), problem.validation is not False
    if find_traits(options.loss).pairs:
        mean_weight = 1.0 if weights is None else float(weights.mean())
        standard = Standard(0.0, 1.0, mean_weight, baseline=float(np.log(2)))
        task = Task.of(options, computed, standard, start, journal)
        fitted, grid = fit_pairs(positives, task, search=search, held=held)
        recipe = Recipe.of("weak", options, standard, fitted.selection["regularization"], weight=mean_weight)
        return as_model(fitted, task, grid.row_order, grid.col_order, asdict(recipe))
    task = Task.of(options, computed, Standard.of_moments(0.0, 1.0, 1.0), start, journal)
    fitted = fit_weak(positives, others, task, search=search, held=held)
    chosen = fitted.selection["unobserved_weight"]
    recipe = Recipe.of("weak", options, task.standard, fitted.selection["regularization"], others=chosen)
    return as_model(fitted, task, np.arange(observed.shape[0]), np.arange(observed.shape[1]), asdict(recipe))


def _hold_positives(validation: Any, positives: Positives, options: Options) -> HeldRanks | None:
    """Return what a fit of implicit feedback is to be judged by, where the caller says so, and what is left to fit."""
    if validation is None or validation is False:
        return None
    if isinstance(validation, float | np.floating):
        return HeldRanks.of_share(positives, check_share(validation, "validation"), options.rank, options.seed)
    shape = positives.shape if isinstance(validation, tuple) else None
    given = as_positives(validation, shape, "error", "validation")
    if given.shape != positives.shape:
        raise ValueError(f"validation has shape {given.shape}, X has {positives.shape}")
    n_rows, n_cols = given.shape
    by_row = store_rows(given.indptr, given.indices, given.data, None, np.float32)
    stored, known = Positives.of(by_row, n_cols).sides[0], positives.sides[0]
    keys, fitted = (
        np.repeat(np.arange(n_rows), np.diff(each.indptr)) * n_cols + each.indices for each in (stored, known)
    )
    both = keys[np.isin(keys, fitted)]
    if both.size:
        row, col = divmod(int(both[0]), n_cols)
        raise ValueError(
            f"validation[{row}, {col}] is stored in X too: what was fitted is left out of the lists that a fit is "
            "judged by"
        )
    return HeldRanks.of(positives, stored.indptr, stored.indices, options.rank, options.seed)


def _dtype_of(X: Any) -> np.dtype[Any]:
    """Return the dtype of the values of what `measure` knows."""
    if isinstance(X, StoredGrid):
        return np.dtype(X.observations.data.dtype)
    return np.dtype(np.asarray(X[2]).dtype if isinstance(X, tuple) else X.dtype)


def _check_dense_room(problem: Problem, options: Options) -> None:
    """Raise a MemoryError if a fit of every entry would take more than the limit."""
    X, shape = without_ids(problem.X, problem.shape)
    size = measure(X, shape)
    if size is None:  # no matrix at all, as the conversion will say
        return
    own = _dtype_of(X)
    item = check_dtype(problem.dtype, own, own if own.kind in "fc" else np.float64).itemsize
    made = 0 if isinstance(X, np.ndarray) else size.shape[0] * size.shape[1] * item
    refuse_beyond(problem.limit, predict_dense_memory(size.shape, made, item, options.rank))


def _check_room(problem: Problem, options: Options) -> None:
    """Raise a MemoryError if a fit of stored entries would take more than the limit."""
    X, validation = problem.X, problem.validation
    size = measure(X, problem.shape)
    if size is None:  # no matrix at all, as the conversion will say
        return
    held = validation if isinstance(validation, float) else 0.0
    if validation is not None and validation is not False and not isinstance(validation, float):
        given = measure(validation)
        held = 0.0 if given is None else given.n_entries / size.n_entries
    computed = check_dtype(problem.dtype, _dtype_of(X), np.float32)
    is_usual = options.loss == "squared" and _is_centred(options)
    planned = Planned(
        rank=options.rank,
        dtype=computed,
        tries=validation is None and (options.penalty is None or options.max_epochs is None),
        held=held,
        weighted=problem.sample_weight is not None,
        looks=options.loss != "squared",
        warm=problem.init is not None,
        lays_out=not (is_usual and size.on_disk and X.observations.suits(computed, options.seed)),
        keeps=may_stop(options),
    )
    needed = predict_memory(size, planned)
    advice = ""
    if not size.on_disk:
        there = predict_memory(replace(size, kept=8 * size.shape[0], peak=8 * size.shape[0], on_disk=True), planned)
        advice = f". From a grid on disk (fastfactor.io.build_grid) it needs {sum(there.values()) / 1e6:,.0f} MB"
    refuse_beyond(problem.limit, needed, advice)


def _is_centred(options: Options) -> bool:
    """Whether predictions are measured from a constant: with biases, behind a link always, with signs bound never."""
    return not any(options.nonnegative) and (options.biases or find_traits(options.loss).centre == "origin")


def _check_real_only(options: Options, dtype: np.dtype[Any]) -> None:
    """Refuse what complex numbers do not have: a sign, and an L1 penalty of their parts."""
    for name, sides in (("nonnegative", options.nonnegative), ("l1_regularization", options.l1_penalty)):
        if any(sides) and dtype.kind == "c":
            raise TypeError(f"{name} needs real values, X is complex")


def _standardise(X: Observations, options: Options, computed: np.dtype[Any], weights: NDArray[Any] | None) -> Standard:
    """Choose the units of a fit of `X`, having checked that the loss is defined for its values."""
    if options.loss != "squared":
        values = X.data[: X.n_entries]
        labels = check_domain(find_traits(options.loss).domain, values, locate_in(X))
        values = values if weights is None else values[weights > 0]
        with np.errstate(over="ignore", invalid="ignore"):
            standard = standardise(options.loss, values, _is_centred(options), labels)
        _check_range_of(computed, standard.shift, standard.scale)
        return standard
    # Values are standardised in their own type.
    narrower = min(computed, X.data.dtype, key=lambda dtype: np.finfo(dtype).bits)
    return standardise_moments(X.mean, X.std, options, narrower)


def standardise_moments(mean: Any, std: float, options: Options, computed: np.dtype[Any]) -> Standard:
    """Return the units of a fit by the squared loss of values with this mean and standard deviation."""
    centred = _is_centred(options)
    shift = mean if centred else 0.0
    scale = (std if centred else float(np.hypot(std, abs(mean)))) or 1.0
    _check_range_of(computed, shift, scale)
    return Standard.of_moments(shift, scale, mean)


def _check_range_of(dtype: np.dtype[Any], shift: Any, scale: float) -> None:
    """Refuse values whose model would overflow or vanish in `dtype`; `shift` and `scale` are theirs."""
    limits = np.finfo(dtype)
    if not (abs(shift) + scale <= float(limits.max) / 1e3 and scale >= float(limits.tiny) * 1e3):  # NaN too
        raise ValueError(
            f"X has values around {abs(shift):.3g} that vary by {scale:.3g}, out of the range of dtype {dtype}: "
            "pass X and dtype as float64, or rescale them"
        )


def _check_validation(validation: Any, observed: Observations, task: Task) -> Any:
    """Return None, False, a share, or a function from the grid to the entries given."""
    if validation is None or validation is False:
        return validation
    if isinstance(validation, float | np.floating):
        return check_share(validation, "validation")
    shape = observed.shape if isinstance(validation, tuple) else None
    given = as_observations(validation, shape=shape, name="validation")
    if given.shape != observed.shape:
        raise ValueError(f"validation has shape {given.shape}, X has {observed.shape}")
    if given.data.dtype.kind == "c" and task.dtype.kind != "c":
        raise TypeError("validation is complex, X is real")
    domain = find_traits(task.spec.loss).domain
    if task.spec.loss != "squared" and domain != "binary":
        check_domain(domain, given.data[: given.n_entries], locate_in(given), "validation")
    elif domain == "binary":
        check_labels(task.standard.labels, given.data[: given.n_entries], locate_in(given), "validation")

    def place(grid: Grid) -> Held:
        places = np.argsort(grid.row_order), np.argsort(grid.col_order)
        with np.errstate(over="ignore"):
            values = task.standard.apply(given.data[: given.n_entries], task.dtype)
        if not np.isfinite(values).all():
            raise ValueError(f"validation holds values out of the range of dtype {task.dtype}: pass dtype='float64'")
        return Held(places[0][given.rows], places[1][given.indices[: given.n_entries]], values)

    return place


def as_model(
    fitted: Fitted, task: Task, row_order: NDArray[Any], col_order: NDArray[Any], recipe: dict[str, Any]
) -> Factorization:
    """Bring factors back to the user's order and units."""
    scale, rank = task.standard.scale, task.options.rank
    unit, loss_unit = task.standard.penalty_unit, task.standard.loss_unit
    factors: Factors = fitted.factors
    real = factors.U.real.dtype.type

    def restore(M: NDArray[Any], order: NDArray[Any], factor: float) -> NDArray[Any]:
        out = restore_order(M[:, :rank] if M.ndim == 2 else M, order)
        out *= real(factor)
        return out

    columns: dict[str, ArrayLike] = {
        "epoch": np.array([e.epoch for e in fitted.history], np.int64),
        "seconds": np.array([e.seconds for e in fitted.history]),
        "learning_rate": np.array([e.learning_rate for e in fitted.history]) / unit,
    }
    with np.errstate(over="ignore", invalid="ignore"):  # squares of values beyond 1e154
        for name in ("train_loss", "validation_loss"):
            columns[name] = np.array([getattr(e, name) for e in fitted.history]) * loss_unit
    return Factorization(
        U=restore(factors.U, row_order, scale**0.5),
        V=restore(factors.V, col_order, scale**0.5),
        mean=task.dtype.type(task.standard.shift),
        row_bias=restore(factors.row_bias, row_order, scale),
        col_bias=restore(factors.col_bias, col_order, scale),
        history={name: np.asarray(column) for name, column in columns.items()},
        selection=fitted.selection,
        loss=task.spec.loss if task.spec.loss in LOSSES else find_loss(task.spec.loss),
        recipe=recipe,
    )
