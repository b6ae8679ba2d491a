"""The public functions: validate, choose a solver, return a result; no loops here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from fastfactor import __version__
from fastfactor.checkpoint import Checkpoint
from fastfactor.handing import call_on_cluster, is_dask
from fastfactor.matrix.inputs import without_ids
from fastfactor.matrix.labelled import Labelled, StoredGrid
from fastfactor.model import Factorization
from fastfactor.options import (
    UNOBSERVED,
    Options,
    check_choice,
    check_flag,
    check_memory,
    check_options,
    check_sampling,
    check_stored,
    check_weak,
    check_weight,
)
from fastfactor.posterior import fit_posterior
from fastfactor.problems import Problem, fit_missing, fit_positives, fit_zero
from fastfactor.progress import Display
from fastfactor.solvers.journal import Journal, log
from fastfactor.starting import check_init
from fastfactor.threads import using_threads


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
    learning_rate: Any = "auto",
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
    max_memory: int | str | None = None,
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
    X : array, scipy.sparse matrix or array, (rows, cols, values), or what fastfactor.io returns
        Shape (n_rows, n_cols); rows are samples. Real or complex numbers; never changed. Ids that were read go
        along with the model. A grid on disk (`fastfactor.io.build_grid`) gives the same model in little memory. Dask
        collections go to `fastfactor.dask.fit`.
    rank : int
        Columns of U and V, at least 1.
    unobserved : {"missing", "zero", "weak"}
        What is not stored (or is NaN in a dense matrix): unknown, or 0. With "zero" every epoch visits all
        n_rows x n_cols entries; for large sparse matrices `fastfactor.svd` solves the same problem far faster. "weak",
        for implicit feedback: what is stored (in a dense matrix: not 0) is a positive and aims at 1, whatever its
        value; the rest are zeros of small weight, never visited. Whole rows are solved for, by conjugate gradients:
        `biases`, `nonnegative`, `l1_regularization` and `learning_rate` have nothing to choose there (with loss="bpr",
        which goes by single steps, all but `biases` have).
    loss : {"squared", "absolute", "huber", "logistic", "poisson", "bpr"} or Loss
        Of an entry. "absolute" and "huber" (quadratic up to one robust standard deviation of the values) for outliers;
        "logistic" for exactly two values: predictions are probabilities of the larger one; "poisson" for counts, with
        the logarithm as link: predictions are means; a `fastfactor.Loss` for one of your own. "bpr" for "weak": each
        positive is to rank above columns that its row has not, drawn at random; predictions are scores.
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
    learning_rate : float, (rows, columns) or "auto"
        Step of the first epoch, in reciprocal units of the values; it falls to zero over the epochs, as a cube. Where
        a fit diverges it starts again with half the step. A pair holds the steps of rows and of columns, each a number
        or an array of one for each; smaller ones for frequent rows let the rare ones learn faster.
    max_epochs : int, optional
        Sweeps over the entries that the step size is planned for. By default 40 (more where "zero" needs them), or
        fewer where held-out entries got worse again.
    validation : float, matrix, triplets or False, optional
        Entries to judge the fit by after each epoch: that share of X, held out; or the given ones. The fit then keeps
        its best epoch, and stops when five epochs (the first ones, in which factors only begin to grow, not counted)
        brought no better one; regularization="auto" is chosen by them if there are 20 or more, and is else a first
        guess. By default a tenth of the entries is held out as long as there is something to choose, and the final fit
        uses all entries. False: none. For "weak" these are positives, of up to 5000 rows (1000 where there are many
        columns), and the validation loss is 1 less their mean ndcg at 20. For "zero" None or False.
    sample_weight : array or sparse matrix, optional
        Weights of the entries, finite and at least 0 (for "weak" confidences): a matrix that stores the places of X, a
        dense one of its shape, or for triplets an array; for "zero", where every entry has one, a dense one. They
        multiply the loss, and the penalties of "weak" with the squared loss. Entries of `validation` that are given
        have weight 1.
    unobserved_weight : float, optional
        Of each zero of unobserved="weak", above 0; a positive has weight 1. By default that with which all zeros weigh
        ten times what all positives do (0.5 at most), or what is better for held-out positives.
    shape : (int, int), optional
        Of X, when it is triplets; by default just large enough.
    duplicates : {"error", "sum", "mean", "last"}
        What to do with several entries at one place.
    posterior_samples : int
        Above 0: the model is the mean of that many samples of the posterior distribution, drawn by block Gibbs sampling
        after the usual fit, and knows its errors (`predict(return_std=True)`, `predict_interval`). For "missing" and
        the squared loss of real numbers, in float32, every other argument but rank, learning_rate and max_epochs (of
        the usual fit), shape, duplicates, seed and n_threads at its default. 50 is a good number. Such a model keeps
        up to 16 of them: at most (36 rank + 72) (n_rows + n_cols) bytes in all.
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
    max_memory : int or str, optional
        Bytes, or text like "400MB", that the fit may take beyond what the process has. What it will take is known from
        the sizes; where that is more, nothing is begun. Compiled code is not counted.
    callback : callable, optional
        Called after each epoch of the final fit with an object that has the attributes epoch, n_epochs, n_entries,
        seconds, learning_rate, train_loss and validation_loss (for standardised values); a true answer ends the fit.
        Where its attribute `hears_trials` is true, it is also called in the fits that choose penalties, whose number
        is then in `trial` (0 in the final fit), and ends the whole fit with the best of these.
    checkpoint : path, optional
        A folder that keeps what the fit has reached, every few seconds, in the end the model. The same call with the
        same folder goes on from there, after a crash or a kill at any moment, and gives the bits that it would have
        given; once the fit has ended it returns the model at once. A fit that `max_seconds` or `callback` ended goes on
        too (with `max_seconds` more), and asks `callback` about the last epoch again. A folder of another fit is
        refused with what differs, one that a running fit uses with its process.
    progress : bool, optional
        Show how far the fit is, on stderr: a bar on a terminal (package rich), else a line each second. (The logger
        "fastfactor" tells at level INFO what was tried, and when the step was halved.)

    Returns
    -------
    Factorization

    Raises
    ------
    TypeError, ValueError
        For bad input, before any work starts; the message names the argument and the value.
    MemoryError
        If the fit would take more than `max_memory`; the message says how much.
    DivergenceError
        If the fit diverges even with the step halved eight times.
    BlockingIOError
        If another process or thread runs a fit with this `checkpoint`.
    OSError
        If the checkpoint cannot be written; what it kept before is still there.

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
    if is_dask(X):
        model: Factorization = call_on_cluster(fit, locals())
        return model
    given = {**locals(), "the version of fastfactor": __version__}
    check_choice(unobserved, "unobserved", UNOBSERVED)
    n_samples = check_sampling(posterior_samples, given)
    display = Display(callback, max_seconds, is_quiet=not check_flag(progress, "progress"))
    options = check_options(given)
    if not display.is_quiet:
        options = replace(options, callback=display)
    check_init(init, options, X)
    others, limit = check_weight(unobserved_weight, unobserved, options.loss), check_memory(max_memory)
    if isinstance(X, StoredGrid):
        check_stored(unobserved, sample_weight, n_samples)
    if max_memory is not None and (unobserved == "weak" or (unobserved == "zero" and sample_weight is not None)):
        weighted = "" if unobserved == "weak" else " with a sample_weight"
        raise NotImplementedError(
            f"max_memory is not available yet for unobserved={unobserved!r}{weighted}: leave it at None "
            f"(got {max_memory!r})"
        )
    if unobserved == "weak":
        check_weak(options, learning_rate)
    matrix, shape = without_ids(X, shape)
    handed = X if unobserved == "zero" else matrix
    problem = Problem(handed, shape, duplicates, dtype, validation, sample_weight, init, limit)
    solve = partial(_solve, problem, options, unobserved, others, n_samples)
    with using_threads(n_threads), display:
        model = solve(Journal()) if checkpoint is None else Checkpoint.of(checkpoint, given).run(solve)
    log.info("fit of %d x %d at rank %d ended after %d epochs", *model.shape, rank, len(model.history["epoch"]))
    return replace(model, row_labels=X.row_labels, col_labels=X.col_labels) if isinstance(X, Labelled) else model


def _solve(
    problem: Problem, options: Options, unobserved: str, others: float | None, n_samples: int, journal: Journal
) -> Factorization:
    if unobserved == "zero":
        return fit_zero(problem, options, journal)
    if unobserved == "weak":
        return fit_positives(problem, options, others, journal)
    if n_samples:
        return fit_posterior(problem, options, n_samples, journal)
    return fit_missing(problem, options, journal)
