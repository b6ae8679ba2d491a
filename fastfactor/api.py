"""The public functions: validate, choose a solver, return a result; no loops here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfactor.kernels.losses import LOSSES, find_loss, find_traits
from fastfactor.kernels.update import Factors
from fastfactor.matrix.domains import check_domain, check_labels, locate_in
from fastfactor.matrix.grid import Grid, Held
from fastfactor.matrix.inputs import Observations, as_dense, as_observations, without_ids
from fastfactor.matrix.labelled import Labelled
from fastfactor.matrix.positives import as_positives, store_rows
from fastfactor.matrix.weights import as_weights, weigh_moments
from fastfactor.model import Factorization
from fastfactor.options import (
    UNOBSERVED,
    Options,
    check_choice,
    check_dtype,
    check_options,
    check_penalty_lengths,
    check_real,
    check_weak,
    check_weight,
    refuse_unbuilt,
)
from fastfactor.solvers.fitting import Fitted, Task, fit_dense, fit_observed
from fastfactor.solvers.schedule import count_epochs_of_all
from fastfactor.solvers.standard import Standard, standardise
from fastfactor.solvers.weak import Positives, fit_weak
from fastfactor.starting import as_start, check_init
from fastfactor.threads import using_threads

_SLOW_DENSE_WORK = 2e11  # entries x rank x epochs of unobserved="zero": minutes


def fit(
    X: Any,
    rank: int = 32,
    *,
    unobserved: str = "missing",
    loss: Any = "squared",
    regularization: Any = "auto",
    l1_regularization: Any = 0.0,
    biases: bool | str = "auto",
    nonnegative: Any = False,
    learning_rate: float | str = "auto",
    max_epochs: int | None = None,
    validation: Any = None,
    sample_weight: Any = None,
    unobserved_weight: float | None = None,
    shape: tuple[int, int] | None = None,
    duplicates: str = "error",
    init: Any = None,
    posterior_samples: int = 0,
    seed: int = 0,
    n_threads: int | None = None,
    dtype: Any = None,
    max_seconds: float | None = None,
    max_memory: int | None = None,
    callback: Callable[[Any], Any] | None = None,
    progress: Any = None,
    checkpoint: Any = None,
) -> Factorization:
    """Factorize X ~ U V^H (plus biases) by stochastic gradient descent on single entries.

    Minimises, over the entries (r, c) that count and with e_rc = X_rc - prediction_rc,
    J = sum 1/2 |e_rc|^2 + 1/2 regularization (|U_r|^2 + |V_c|^2), so the penalty of a row acts once per entry it has.
    With unobserved="weak" each entry's share of J, penalty included, is multiplied by its weight.

    Parameters
    ----------
    X : array, scipy.sparse matrix or array, (rows, cols, values), or what `fastfactor.io.read` returns
        Shape (n_rows, n_cols); rows are samples. Real or complex numbers; never changed. Ids that were read go
        along with the model.
    rank : int
        Columns of U and V, at least 1.
    unobserved : {"missing", "zero", "weak"}
        What is not stored (or is NaN in a dense matrix): unknown, or 0. With "zero" every epoch visits all
        n_rows x n_cols entries; for large sparse matrices `fastfactor.svd` solves the same problem far faster. "weak",
        for implicit feedback: what is stored (in a dense matrix: not 0) is a positive and aims at 1, whatever its
        value; the rest are zeros of small weight, never visited. Whole rows are solved for, by conjugate gradients:
        `loss`, `biases`, `nonnegative`, `l1_regularization` and `learning_rate` have nothing to choose there.
    loss : {"squared", "absolute", "huber", "logistic", "poisson"} or Loss
        Of an entry. "absolute" and "huber" (quadratic up to one robust standard deviation of the values) for outliers;
        "logistic" for exactly two values: predictions are probabilities of the larger one; "poisson" for counts, with
        the logarithm as link: predictions are means; a `fastfactor.Loss` for one of your own.
    regularization : float, (rows, columns) or "auto"
        L2 penalty per observed entry, in the units of the values; of the rows' and of the columns' factors when a pair,
        each of whose sides is a number or an array of one for each row or column.
        The biases' penalty is that over the standard deviation of X. "auto" tries several on held-out entries, and
        weakens them for frequent rows and columns; with unobserved="zero" it is 0.
    l1_regularization : float or (float, float)
        Penalty on the moduli of the factors (and biases), per observed entry; makes many of them zero.
    biases : bool or "auto"
        Fit mean + row offset + column offset beside U V^H; "auto" does for "missing", unless `nonnegative`.
    nonnegative : bool or (bool, bool)
        Keep the factors (and biases) of rows and of columns at 0 or above. Values are not shifted by their mean then.
    learning_rate : float or "auto"
        Step of the first epoch, in reciprocal units of the values; it falls to zero over the epochs, as a square. Where
        a fit diverges it starts again with half the step.
    max_epochs : int, optional
        Sweeps over the entries that the step size is planned for. By default 40 (more where "zero" needs them), or
        fewer where held-out entries got worse again.
    validation : float, matrix, triplets or False, optional
        Entries to judge the fit by after each epoch: that share of X, held out; or the given ones. The fit then keeps
        its best epoch, and stops when five epochs brought no better one. By default a tenth of the entries is held out
        as long as there is something to choose, and the final fit uses all entries. False: none. For "weak" None or
        False; positives of up to 5000 rows are held out, and judged by the ndcg at 20.
    sample_weight : array or sparse matrix, optional
        Weights of the entries, finite and at least 0, for "missing" and "weak" (confidences): a matrix that stores the
        places of X, a dense one of its shape, or for triplets an array. With "missing" they multiply the loss, not the
        penalties. Entries of `validation` that are given have weight 1.
    unobserved_weight : float, optional
        Of each zero of unobserved="weak", above 0; a positive has weight 1. By default that with which all zeros weigh
        ten times what all positives do (0.5 at most), or what is better for held-out positives.
    shape : (int, int), optional
        Of X, when it is triplets; by default just large enough.
    duplicates : {"error", "sum", "mean", "last"}
        What to do with several entries at one place.
    init : Factorization, optional
        A model of the same rank and loss to start from. X may have more rows and columns: those are drawn as usual. Its
        mean and biases become part of the new biases, as far as the fit has some.
    seed : int
        Equal seeds give equal bits, on one CPU type, with any number of threads.
    n_threads : int, optional
        At most this many; by default all that the process may use.
    dtype : {float32, float64}, optional
        Precision. Default: float32; with unobserved="zero" that of X.
    max_seconds : float, optional
        Stop after about this time, with what has been reached. (The result then depends on the machine.)
    callback : callable, optional
        Called after each epoch of the final fit with an object that has the attributes epoch, seconds, learning_rate,
        train_loss and validation_loss (for standardised values); a true answer ends the fit.
    posterior_samples, max_memory, progress, checkpoint
        Not available yet; anything but the default raises NotImplementedError.

    Returns
    -------
    Factorization

    Raises
    ------
    TypeError, ValueError
        For bad input, before any work starts; the message names the argument and the value.
    DivergenceError
        If the fit diverges even with the step halved eight times.

    References
    ----------
    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", IEEE Computer 2009.
    Gemulla et al., "Large-scale matrix factorization with distributed stochastic gradient descent", KDD 2011 (blocks).

    Examples
    --------
    >>> import numpy as np, fastfactor as ff
    >>> A = np.outer(np.arange(1.0, 21.0), np.ones(10))
    >>> A[3, 4] = np.nan
    >>> model = ff.fit(A, rank=2)
    >>> bool(abs(model.predict(3, 4) - 4.0) < 0.5)
    True
    """
    check_choice(unobserved, "unobserved", UNOBSERVED)
    refuse_unbuilt(
        posterior_samples=(posterior_samples, 0),
        max_memory=(max_memory, None),
        progress=(progress, None),
        checkpoint=(checkpoint, None),
    )
    options = check_options(
        rank,
        unobserved,
        loss,
        biases,
        regularization,
        l1_regularization,
        nonnegative,
        learning_rate,
        max_epochs,
        max_seconds,
        seed,
        callback,
    )
    check_init(init, options, X)
    others = check_weight(unobserved_weight, unobserved)
    if unobserved == "weak":
        check_weak(options, learning_rate, validation)
    with using_threads(n_threads):
        if unobserved == "zero":
            refuse_unbuilt(sample_weight=(sample_weight, None))
            model = _fit_zero(X, validation, shape, duplicates, dtype, options, init)
        elif unobserved == "weak":
            matrix, shape = without_ids(X, shape)
            search = validation is None
            model = _fit_weak(matrix, shape, duplicates, dtype, options, sample_weight, others, init, search)
        else:
            matrix, shape = without_ids(X, shape)
            model = _fit_missing(matrix, validation, shape, duplicates, dtype, options, sample_weight, init)
    return replace(model, row_labels=X.row_labels, col_labels=X.col_labels) if isinstance(X, Labelled) else model


def _fit_zero(
    X: Any,
    validation: Any,
    shape: Any,
    duplicates: str,
    dtype: Any,
    options: Any,
    init: Factorization | None,
) -> Factorization:
    if validation is not None and validation is not False:
        raise ValueError("validation must be None or False where unobserved='zero': every entry is fitted")
    if duplicates not in ("error", "sum"):
        raise ValueError(f"duplicates must be 'sum' (or the default) where unobserved='zero', got {duplicates!r}")
    A = as_dense(X, shape=shape)
    work = A.size * options.rank * (options.max_epochs or count_epochs_of_all(A.shape))
    if work > _SLOW_DENSE_WORK:
        warnings.warn(
            f"unobserved='zero' visits all {A.shape[0]} x {A.shape[1]} entries each epoch, about {work / 3e9:.0f} s on "
            "two cores; fastfactor.svd solves the same problem much faster",
            stacklevel=3,
        )
    computed = check_dtype(dtype, A.dtype, A.dtype)
    _check_real_only(options, computed)
    if options.loss == "squared":
        largest = float(np.abs(A).max())
        scale = largest * float(np.sqrt(np.mean(np.abs(A / (largest or 1.0)) ** 2))) or 1.0
        _check_range_of(computed, 0.0, scale)
        standard = Standard.of_moments(0.0, scale, (A / (largest or 1.0)).mean() * largest)
    else:
        labels = check_domain(find_traits(options.loss).domain, A.ravel(), lambda i: divmod(i, A.shape[1]))
        standard = standardise(options.loss, A.ravel(), _is_centred(options), labels)
    check_penalty_lengths(options.penalty, A.shape)
    task = Task.of(options, computed, standard, as_start(init, A.shape, computed))
    real = A.real.dtype.type
    shift, scale = standard.labels
    A = A / real(scale) if shift == 0 else (A - real(shift)) / real(scale)
    fitted = fit_dense(np.ascontiguousarray(A, computed), options, task)
    return _as_model(fitted, task, np.arange(A.shape[0]), np.arange(A.shape[1]))


def _fit_missing(
    X: Any,
    validation: Any,
    shape: Any,
    duplicates: str,
    dtype: Any,
    options: Any,
    sample_weight: Any,
    init: Factorization | None,
) -> Factorization:
    observed = as_observations(X, shape=shape, duplicates=duplicates)
    check_penalty_lengths(options.penalty, observed.shape)
    computed = check_dtype(dtype, observed.data.dtype, np.float32)
    _check_real_only(options, computed)
    if observed.std == 0:
        warnings.warn(
            f"all stored values of X equal {observed.data[0]}: with unobserved='missing' there is nothing to learn but "
            "that; for implicit feedback use unobserved='weak'",
            stacklevel=3,
        )
    weights = None if sample_weight is None else as_weights(sample_weight, X, observed)
    if weights is not None:
        observed = weigh_moments(observed, weights)
    standard = _standardise(observed, options, computed, weights)
    if weights is not None:
        standard = standard.weighted(float(weights.mean()))
        weights = weights / weights.mean()
    task = Task.of(options, computed, standard, as_start(init, observed.shape, computed))
    fitted, grid = fit_observed(observed, _check_validation(validation, observed, task), options, task, weights)
    return _as_model(fitted, task, grid.row_order, grid.col_order)


def _fit_weak(
    X: Any,
    shape: Any,
    duplicates: str,
    dtype: Any,
    options: Options,
    sample_weight: Any,
    others: float | None,
    init: Factorization | None,
    search: bool,
) -> Factorization:
    observed = as_positives(X, shape, duplicates)
    check_penalty_lengths(options.penalty, observed.shape)
    computed = check_dtype(dtype, observed.data.dtype, np.float32)
    weights = None if sample_weight is None else as_weights(sample_weight, X, observed)
    task = Task.of(options, computed, Standard.of_moments(0.0, 1.0, 1.0), as_start(init, observed.shape, computed))
    ones = np.ones(observed.n_entries)
    positives = Positives.of(store_rows(observed.indptr, observed.indices, ones, weights, computed), observed.shape[1])
    fitted = fit_weak(positives, others, task, search=search)
    return _as_model(fitted, task, np.arange(observed.shape[0]), np.arange(observed.shape[1]))


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
        return standardise(options.loss, values, _is_centred(options), labels)
    centred = _is_centred(options)
    shift = X.mean if centred else 0.0
    scale = (X.std if centred else float(np.hypot(X.std, abs(X.mean)))) or 1.0
    _check_range_of(computed, shift, scale)
    return Standard.of_moments(shift, scale, X.mean)


def _check_range_of(dtype: np.dtype[Any], shift: Any, scale: float) -> None:
    """Refuse values whose model would overflow or vanish in `dtype`; `shift` and `scale` are theirs."""
    limits = np.finfo(dtype)
    if abs(shift) + scale > float(limits.max) / 1e3 or scale < float(limits.tiny) * 1e3:
        raise ValueError(
            f"X has values around {abs(shift):.3g} that vary by {scale:.3g}, out of the range of dtype {dtype}: "
            "pass dtype='float64', or rescale them"
        )


def _check_validation(validation: Any, observed: Observations, task: Task) -> Any:
    """Return None, False, a share, or a function from the grid to the entries given."""
    if validation is None or validation is False:
        return validation
    if isinstance(validation, float | np.floating):
        share = check_real(validation, "validation", strict=True)
        if share >= 1:
            raise ValueError(f"validation must be a share below 1, got {validation}")
        return share
    shape = observed.shape if isinstance(validation, tuple) else None
    given = as_observations(validation, shape=shape, name="validation")
    if given.shape != observed.shape:
        raise ValueError(f"validation has shape {given.shape}, X has {observed.shape}")

    domain = find_traits(task.spec.loss).domain
    if task.spec.loss != "squared" and domain != "binary":
        check_domain(domain, given.data[: given.n_entries], locate_in(given), "validation")
    elif domain == "binary":
        check_labels(task.standard.labels, given.data[: given.n_entries], locate_in(given), "validation")

    def place(grid: Grid) -> Held:
        places = np.argsort(grid.row_order), np.argsort(grid.col_order)
        values = task.standard.apply(given.data[: given.n_entries], task.dtype)
        return Held(places[0][given.rows], places[1][given.indices[: given.n_entries]], values)

    return place


def _as_model(fitted: Fitted, task: Task, row_order: NDArray[Any], col_order: NDArray[Any]) -> Factorization:
    """Bring factors back to the user's order and units."""
    scale, rank = task.standard.scale, task.options.rank
    unit, loss_unit = task.standard.penalty_unit, task.standard.loss_unit
    factors: Factors = fitted.factors
    real = factors.U.real.dtype.type

    def restore(M: NDArray[Any], order: NDArray[Any], factor: float) -> NDArray[Any]:
        out = np.empty((len(M), rank) if M.ndim == 2 else len(M), M.dtype)
        out[order] = M[:, :rank] if M.ndim == 2 else M
        out *= real(factor)
        return out

    columns: dict[str, ArrayLike] = {
        "epoch": np.array([e.epoch for e in fitted.history], np.int64),
        "seconds": np.array([e.seconds for e in fitted.history]),
        "learning_rate": np.array([e.learning_rate for e in fitted.history]) / unit,
        "train_loss": np.array([e.train_loss for e in fitted.history]) * loss_unit,
        "validation_loss": np.array([e.validation_loss for e in fitted.history]) * loss_unit,
    }
    return Factorization(
        U=restore(factors.U, row_order, scale**0.5),
        V=restore(factors.V, col_order, scale**0.5),
        mean=task.dtype.type(task.standard.shift),
        row_bias=restore(factors.row_bias, row_order, scale),
        col_bias=restore(factors.col_bias, col_order, scale),
        history={name: np.asarray(column) for name, column in columns.items()},
        selection=fitted.selection,
        loss=task.spec.loss if task.spec.loss in LOSSES else find_loss(task.spec.loss),
    )
