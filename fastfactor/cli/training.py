"""Commands that compute: fit, svd, warmup."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from fastfactor.cli import inputs
from fastfactor.cli.outcomes import Code, Failure, Talk, failing_with
from fastfactor.cli.stopping import Stopping
from fastfactor.progress import Display

# Options that go to the library's fit as they are.
GIVEN = (
    *("rank", "unobserved", "loss", "regularization", "learning_rate", "nonnegative", "max_epochs", "duplicates"),
    *("unobserved_weight", "dtype", "max_seconds", "max_memory", "seed", "checkpoint"),
)
LOSSES = ("squared", "absolute", "huber", "logistic", "poisson", "bpr")


class Number(click.ParamType[Any]):
    """A number, or a word that stands for one."""

    name = "number"

    def __init__(self, word: str) -> None:
        self.word = word

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a float, or the word."""
        if value == self.word or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {self.word!r}", param, ctx)


@click.command()
@inputs.input_argument
@click.argument("model", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--rank", type=click.IntRange(min=1), default=32, show_default=True, help="Number of columns of the factors."
)
@click.option(
    "--unobserved",
    type=click.Choice(["missing", "zero", "weak"]),
    default="missing",
    show_default=True,
    help="What is not stored: unknown, 0, or probably 0.",
)
@click.option(
    "--unobserved-weight", type=click.FloatRange(min=0, min_open=True), help="Weight of each zero, for 'weak'."
)
@click.option("--loss", type=click.Choice(LOSSES), default="squared", show_default=True, help="Loss of an entry.")
@click.option("--regularization", type=Number("auto"), default="auto", show_default=True, help="Penalty per entry.")
@click.option(
    "--learning-rate", type=Number("auto"), default="auto", show_default=True, help="Step size of the first epoch."
)
@click.option("--biases/--no-biases", default=None, help="Offsets of rows and columns; by default for 'missing'.")
@click.option("--nonnegative", is_flag=True, help="Keep the factors at 0 or above.")
@click.option("--max-epochs", type=click.IntRange(min=1), help="By default until it stops getting better.")
@click.option("--validation", type=Number("none"), help="Share of the entries to hold out; none: fit all of them.")
@click.option(
    "--duplicates",
    type=click.Choice(["error", "sum", "mean", "last"]),
    default="error",
    show_default=True,
    help="What to do with several entries at one place.",
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Precision.")
@click.option("--init", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A model to start from.")
@click.option("--max-seconds", type=click.FloatRange(min=0, min_open=True), help="Stop the fit after about this time.")
@click.option("--max-memory", help="Refuse a fit that would take more, as in 400MB.")
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder that keeps what the fit has reached: after a crash or a signal the same command goes on from there.",
)
@inputs.threading
@inputs.seeding
@inputs.reading
@inputs.talking
def fit(inputs_: Sequence[Path], model: Path, as_json: bool, quiet: bool, **options: Any) -> int:
    """Fit a model to a table or a matrix file, and save it.

    INPUT has lines of row id, column id and value, or is a matrix file; MODEL is a folder. On SIGINT or SIGTERM the
    fit ends after the running epoch, and the best model so far is saved.
    """
    talk = Talk(as_json, quiet)
    if options["checkpoint"] is not None and options["checkpoint"].resolve() == model.resolve():
        raise Failure(Code.USAGE, f"--checkpoint must be another folder than the model's, {model}")
    init = None if options["init"] is None else inputs.load(options["init"])
    started = time.perf_counter()
    has_ids = init is not None and init.row_labels is not None
    X = inputs.read(inputs_, options, **({"like": init} if has_ids else {}))
    read_in = time.perf_counter()
    talk.log(f"read {X.n_entries:,} entries, {X.shape[0]:,} x {X.shape[1]:,}, in {read_in - started:.1f} s")
    stopping = Stopping()
    with stopping:
        fitted, was_stopped = _fit(X, init, options, talk, stopping)
        done = time.perf_counter()
        with failing_with(Code.FAILED):
            fitted.save(model)
    saved = time.perf_counter()
    history = fitted.history
    talk.result(
        {
            "model": str(model),
            "shape": list(fitted.shape),
            "rank": fitted.rank,
            "entries": X.n_entries,
            "skipped_lines": X.n_skipped,
            "epochs": len(history["epoch"]),
            **{name: float(history[name][-1]) for name in ("train_loss", "validation_loss") if len(history[name])},
            "regularization": fitted.selection.get("regularization"),
            "seconds": {"read": read_in - started, "fit": done - read_in, "save": saved - done},
            "stopped": was_stopped,
        }
    )
    return Code.STOPPED if was_stopped else Code.DONE


def _fit(X: Any, init: Any, options: dict[str, Any], talk: Talk, stopping: Stopping) -> tuple[Any, bool]:
    """Return the model, and whether a signal ended the fit."""
    from fastfactor.api import fit as fit_model
    from fastfactor.exceptions import DivergenceError

    with Display(stopping, options["max_seconds"], talk.log, talk.quiet) as display:
        try:
            with failing_with(Code.FAILED), failing_with(Code.BAD_INPUT, but=OSError):  # that is the checkpoint's
                fitted = fit_model(
                    X,
                    **{name: options[name] for name in GIVEN},
                    biases="auto" if options["biases"] is None else options["biases"],
                    validation=False if options["validation"] == "none" else options["validation"],
                    init=init,
                    n_threads=options["threads"],
                    callback=display,
                )
        except DivergenceError as error:
            raise Failure(Code.DIVERGED, str(error)) from error
    return fitted, stopping.was_obeyed


@click.command()
@inputs.input_argument
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "-k", "--rank", "k", type=click.IntRange(min=1), default=6, show_default=True, help="How many singular triplets."
)
@inputs.reading
@inputs.talking
def svd(inputs_: Sequence[Path], output: Path, k: int, as_json: bool, quiet: bool, **options: Any) -> int:
    """Write the truncated SVD of INPUT to the folder OUTPUT.

    The files are U.npy, s.npy and Vt.npy. What INPUT does not store is 0. Where INPUT has ids, row_ids.parquet and
    col_ids.parquet hold them in the order of the positions.
    """
    from fastfactor import decomposition, io

    talk = Talk(as_json, quiet)
    X = inputs.read(inputs_, options)
    started = time.perf_counter()
    with failing_with(Code.BAD_INPUT):
        result = decomposition.svd(X, k)
    seconds = time.perf_counter() - started
    with failing_with(Code.FAILED):
        io.write_svd(output, result, X)
    talk.result(
        {
            "output": str(output),
            "shape": X.shape,
            "singular_values": result.s,
            "largest_residual": result.residuals.max(),
            "converged": result.converged,
            "seconds": seconds,
        }
    )
    return Code.DONE


@click.command()
@click.option(
    "--rank",
    "ranks",
    type=click.IntRange(min=1),
    multiple=True,
    default=(32,),
    show_default=True,
    help="Rank of the jobs; may be given more than once.",
)
@click.option(
    "--unobserved",
    type=click.Choice(["missing", "zero", "weak"]),
    help="As the jobs have it; 'zero' compiles svd too. By default missing, and weak for bpr.",
)
@click.option("--loss", type=click.Choice(LOSSES), default="squared", show_default=True, help="Loss of the jobs.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Precision of the jobs.",
)
@inputs.threading
@inputs.talking
def warmup(
    ranks: Sequence[int],
    unobserved: str | None,
    loss: str,
    dtype: str,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compile ahead, so that the first job does not wait.

    That is what a fit, predictions and recommendations need, and svd where all entries count. Compiled kernels are
    kept on disk, for each rank, loss, dtype and kind of unobserved entries: give those that the jobs use.
    """
    talk = Talk(as_json, quiet)
    unobserved = unobserved or ("weak" if loss == "bpr" else "missing")
    seconds = {}
    for rank in ranks:
        started = time.perf_counter()
        with failing_with(Code.USAGE):
            _compile_fit(rank, threads, {"unobserved": unobserved, "loss": loss, "dtype": dtype})
            if unobserved == "zero":
                _compile_svd(rank, dtype)
        seconds[str(rank)] = time.perf_counter() - started
        talk.log(f"rank {rank}: {seconds[str(rank)]:.1f} s")
    talk.result({"seconds": seconds, "unobserved": unobserved, "loss": loss, "dtype": dtype})
    return Code.DONE


def _compile_fit(rank: int, n_threads: int | None, options: dict[str, Any]) -> None:
    """Fit small matrices in the ways that jobs do, and use the models."""
    import scipy.sparse as sp

    from fastfactor.api import fit as fit_model
    from fastfactor.placing import place_threads

    rng = np.random.default_rng(0)
    stored = rng.random((60, 600)) < 0.1
    is_weak = options["unobserved"] == "weak"  # of positives alone
    X = (stored & (is_weak | (rng.random(stored.shape) < 0.5))).astype(np.float32)  # fits the domain of every loss
    rows, cols = (each.astype(np.int32) for each in np.nonzero(X if is_weak else stored))
    table = rows, cols, X[rows, cols].astype(np.float64)  # as tables are read
    matrix = sp.csr_array((X[rows, cols], (rows, cols)), X.shape)
    cases: list[tuple[Any, Any, Any]] = [(table, "auto", None), (matrix, 0.1, 0.2), (matrix, 0.1, False)]
    for entries, penalty, validation in [(X, 0.1, False)] if options["unobserved"] == "zero" else cases:
        model = fit_model(
            entries, rank, regularization=penalty, validation=validation, max_epochs=1, n_threads=n_threads, **options
        )
    model.predict([0], [0])
    for some in (range(1), range(60)):  # few rows and many take different ways
        model.recommend(some, 1)
    place_threads()


def _compile_svd(k: int, dtype: str) -> None:
    """Decompose matrices, sparse and dense, tall and wide, that are too large for LAPACK alone."""
    import scipy.sparse as sp

    from fastfactor import decomposition

    shape = (6 * k + 1500, 4 * k + 1200)
    values = np.random.default_rng(0).random(shape)
    X: Any = sp.csr_array(np.where(values < 20 / shape[1], values, 0).astype(dtype))
    for A in (X, sp.csr_array(X.T), X.toarray(), X.T.toarray()):
        decomposition.svd(A, k)
