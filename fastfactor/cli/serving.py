"""Commands that ask a saved model: predict, recommend, similar, evaluate, export, info."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from fastfactor.cli import inputs
from fastfactor.cli.outcomes import Code, Failure, Talk, failing_with
from fastfactor.io.reading import TABLES

_output_option = click.option(
    "--output", type=inputs.OutputPath(TABLES), help="Table to write: .parquet, .arrow, .csv or .tsv."
)
_count_option = click.option(
    "-n", "n", type=click.IntRange(min=1), default=10, show_default=True, help="How many for each."
)
_exclude_option = click.option(
    "--exclude", type=click.Path(path_type=Path), help="Entries not to recommend, usually those that were fitted."
)
_side_option = click.option(
    "--side", type=click.Choice(["rows", "cols"]), default="rows", show_default=True, help="Whether rows or columns."
)


@click.command()
@inputs.model_argument
@inputs.input_argument
@click.argument("output", type=inputs.OutputPath(TABLES))
@inputs.reading
@inputs.talking
def predict(model: Path, inputs_: Sequence[Path], output: Path, as_json: bool, quiet: bool, **options: Any) -> int:
    """Predict pairs of row id and column id.

    INPUT is a table of pairs, OUTPUT one of predictions. A pair with an id that the model does not have gets an
    empty prediction.
    """
    from fastfactor import io

    fitted = inputs.load(model)
    if options["columns"] is None:
        options["columns"] = [0, 1]
    pairs = inputs.read_for(fitted, inputs_, options, unknown="add")
    with failing_with(Code.FAILED):
        n_unknown = io.write_predictions(output, fitted, pairs)
    Talk(as_json, quiet).result({"output": str(output), "pairs": pairs.n_entries, "unknown": n_unknown})
    return Code.DONE


@click.command()
@inputs.model_argument
@click.argument("ids", nargs=-1)
@_output_option
@_count_option
@click.option("--rows", type=click.Path(dir_okay=False, path_type=Path), help="A file with a row id per line.")
@_exclude_option
@inputs.threading
@inputs.reading
@inputs.talking
def recommend(
    model: Path,
    ids: Sequence[str],
    output: Path | None,
    n: int,
    rows: Path | None,
    exclude: Path | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Recommend columns to rows: those with the highest predictions.

    IDS and the file --rows name the rows; without either, all are meant. The result goes to the table --output, or to
    stdout.
    """
    from fastfactor import io

    fitted, talk = inputs.load(model), Talk(as_json, quiet)
    if rows is not None:
        ids = [*ids, *inputs.read_ids(rows)]
    if not ids and output is None:
        raise click.UsageError("for all rows give --output; else name some ids")
    places = inputs.places_of(fitted, "rows", ids) if ids else np.arange(fitted.shape[0])
    seen = None if exclude is None else inputs.read_for(fitted, [exclude], options, unknown="skip")
    if output is not None:
        with failing_with(Code.FAILED):
            n_lines = io.write_recommendations(output, fitted, places, n, seen, n_threads=threads)
        talk.result({"output": str(output), "rows": len(places), "lines": n_lines})
        return Code.DONE
    with failing_with(Code.BAD_INPUT):
        found, scores = fitted.recommend(places, n, io.exclude_from(seen, fitted.shape), n_threads=threads)
    _say_ranked(talk, inputs.spell(fitted.row_labels, places), found, scores, fitted.col_labels, "score")
    return Code.DONE


@click.command()
@inputs.model_argument
@click.argument("ids", nargs=-1)
@_side_option
@_output_option
@_count_option
@inputs.threading
@inputs.talking
def similar(
    model: Path,
    ids: Sequence[str],
    side: str,
    output: Path | None,
    n: int,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Find the rows or columns that are most alike.

    IDS name those whose neighbours are wanted; without any, all are meant. The result goes to the table --output, or
    to stdout.
    """
    from fastfactor import io

    fitted, talk = inputs.load(model), Talk(as_json, quiet)
    if not ids and output is None:
        raise click.UsageError(f"for all {side} give --output; else name some ids")
    axis = ("rows", "cols").index(side)
    places = inputs.places_of(fitted, side, ids) if ids else np.arange(fitted.shape[axis])
    if output is not None:
        with failing_with(Code.FAILED):
            n_lines = io.write_neighbours(output, fitted, places, n, side, n_threads=threads)
        talk.result({"output": str(output), side: len(places), "lines": n_lines})
        return Code.DONE
    found, cosines = (fitted.similar_rows, fitted.similar_cols)[axis](places, n, n_threads=threads)
    labels = (fitted.row_labels, fitted.col_labels)[axis]
    _say_ranked(talk, inputs.spell(labels, places), found, cosines, labels, "cosine")
    return Code.DONE


def _say_ranked(talk: Talk, own: list[Any], found: Any, values: Any, labels: Any, name: str) -> None:
    """Say lists of the best: lines with tabs between id, found id and value, or JSON."""
    lists = []
    for each, places, numbers in zip(own, found, values, strict=True):
        there = places >= 0
        pairs = zip(inputs.spell(labels, places[there]), numbers[there].tolist(), strict=True)
        lists.append({"id": each, "found": [{"id": one, name: value} for one, value in pairs]})
    if talk.wants_json:
        talk.result({"results": lists})
        return
    for entry in lists:
        for one in entry["found"]:
            print(entry["id"], one["id"], f"{one[name]:.6g}", sep="\t")


@click.command()
@inputs.model_argument
@inputs.input_argument
@click.option("--top", type=click.IntRange(min=1), help="Also recall and ndcg of the first so many recommendations.")
@_exclude_option
@inputs.threading
@inputs.reading
@inputs.talking
def evaluate(
    model: Path,
    inputs_: Sequence[Path],
    top: int | None,
    exclude: Path | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Compare predictions with entries that the fit did not see.

    Prints the root mean squared and the mean absolute error over INPUT. Entries with an id that the model does not
    have are counted and left out.
    """
    from fastfactor import io, metrics

    fitted = inputs.load(model)
    X = inputs.read_for(fitted, inputs_, options, unknown="skip")
    seen = None if exclude is None else inputs.read_for(fitted, [exclude], options, unknown="skip")
    rows, cols, values = X.triplets
    inside = (rows < fitted.shape[0]) & (cols < fitted.shape[1])
    if not inside.any():
        raise Failure(Code.BAD_INPUT, "no entry lies inside the model")
    rows, cols, values = rows[inside], cols[inside], values[inside]
    predicted = fitted.predict(rows, cols)
    result = {
        "entries": len(values),
        "unknown": X.n_unknown + int((~inside).sum()),
        "rmse": metrics.rmse(values, predicted),
        "mae": metrics.mae(values, predicted),
    }
    if top is not None:
        relevant = io.exclude_from(X, fitted.shape)
        present = np.unique(rows)
        with failing_with(Code.BAD_INPUT):
            found, _ = fitted.recommend(present, top, io.exclude_from(seen, fitted.shape), n_threads=threads)
        for name, metric in (("recall", metrics.recall_at_k), ("ndcg", metrics.ndcg_at_k)):
            result[f"{name}_at_{top}"] = metric(found, relevant[present], top)
    Talk(as_json, quiet).result(result)
    return Code.DONE


@click.command()
@inputs.model_argument
@click.argument("output", type=inputs.OutputPath((*TABLES, "npy")))
@_side_option
@inputs.talking
def export(model: Path, output: Path, side: str, as_json: bool, quiet: bool) -> int:
    """Write the factors of the rows or columns to a file.

    OUTPUT ends in .npy, .parquet, .arrow, .csv or .tsv.
    """
    from fastfactor import io

    fitted = inputs.load(model)
    with failing_with(Code.FAILED):
        io.write_factors(output, fitted, side)
    Talk(as_json, quiet).result({"output": str(output), side: fitted.shape[side == "cols"], "rank": fitted.rank})
    return Code.DONE


@click.command()
@inputs.model_argument
@click.option("--verify", is_flag=True, help="Read every array and compare its checksum.")
@inputs.talking
def info(model: Path, verify: bool, as_json: bool, quiet: bool) -> int:
    """Say what a saved model is."""
    fitted = inputs.load(model, verify=verify)
    epochs = fitted.history.get("epoch", ())
    labels = {"rows": fitted.row_labels, "columns": fitted.col_labels}
    result = {
        "shape": fitted.shape,
        "rank": fitted.rank,
        "dtype": str(fitted.U.dtype),
        "loss": fitted.loss if isinstance(fitted.loss, str) else "one of the user's own",
        "biases": bool(fitted.row_bias.any() or fitted.col_bias.any()),
        "ids": {side: "none" if ids is None else ids.kind for side, ids in labels.items()},
        "epochs": len(epochs),
        "train_loss": fitted.history["train_loss"][-1] if len(epochs) else None,
        "regularization": fitted.selection.get("regularization"),
        "bytes": sum(path.stat().st_size for path in model.glob("fastfactor*")),
        "verified": verify,
    }
    Talk(as_json, quiet).result(result)
    return Code.DONE
