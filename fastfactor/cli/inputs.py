"""Options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from fastfactor.cli.outcomes import Code, Failure, failing_with
from fastfactor.io.reading import KINDS, find_format

Command = TypeVar("Command", bound=Callable[..., Any])


class OutputPath(click.Path):
    """The name of a file to write, in one of some formats."""

    def __init__(self, formats: Sequence[str]) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.formats = formats

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a path whose name says a format."""
        path: Any = super().convert(value, param, ctx)
        if (find_format(path) or "") not in self.formats:
            self.fail(f"{str(path)!r} must end in {', '.join('.' + each for each in self.formats)}", param, ctx)
        return path


def with_options(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command all of these options, in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _parse_columns(_: Any, __: Any, text: str | None) -> list[str | int] | None:
    if text is None:
        return None
    return [int(part) if part.isdecimal() else part for part in (part.strip() for part in text.split(","))]


talking = with_options(
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
    click.option("--quiet", is_flag=True, help="Nothing but warnings and errors on stderr."),
)
threading = click.option("--threads", type=click.IntRange(min=1), help="At most this many; by default all there are.")
seeding = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of whatever is drawn.")
reading = with_options(
    click.option("--format", type=click.Choice(KINDS), help="Of the input; by default told by its name."),
    click.option(
        "--columns",
        callback=_parse_columns,
        help="Names or positions of the columns to read: row,column or row,column,value.",
    ),
    click.option("--delimiter", help="Between the fields of text: one character."),
    click.option("--header/--no-header", default=None, help="Whether the first line of text holds names."),
    click.option("--integer-ids", is_flag=True, help="Ids in text are integers."),
    click.option(
        "--on-bad-line",
        type=click.Choice(["error", "skip"]),
        default="error",
        show_default=True,
        help="What to do with a line that cannot be read; skip: leave it out and count it.",
    ),
)
model_argument = click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
input_argument = click.argument("inputs_", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))

READING = ("format", "columns", "delimiter", "header", "integer_ids", "on_bad_line")


def read(paths: Sequence[Path], options: dict[str, Any], **more: Any) -> Any:
    """Read what a command was given, or fail with the code for bad input."""
    from fastfactor import io

    chosen = {name: options[name] for name in READING}
    with failing_with(Code.BAD_INPUT):
        return io.read(paths[0] if len(paths) == 1 else paths, **chosen, **more)


def read_for(model: Any, paths: Sequence[Path], options: dict[str, Any], unknown: str) -> Any:
    """Read entries in terms of the positions of a model, by its ids, or as positions where it has none.

    What lies beyond the model has positions after its own; by ids that is so where `unknown` is "add".
    """
    from fastfactor.matrix.labelled import Labelled

    if model.row_labels is not None and model.col_labels is not None:
        return read(paths, options, like=model, unknown=unknown)
    is_text = (options["format"] or find_format(paths[0])) in ("csv", "tsv")
    X = read(paths, {**options, "integer_ids": is_text})
    if X.row_labels is None:
        return X
    rows, cols, values = X.triplets
    if X.row_labels.kind != "integers" or X.col_labels.kind != "integers":
        raise Failure(
            Code.BAD_INPUT, f"{paths[0]} holds ids, but the model was fitted without: it knows positions only"
        )
    places = X.row_ids[rows].astype(np.int64), X.col_ids[cols].astype(np.int64)
    for name, index, size in zip(("row", "column"), places, model.shape, strict=True):
        if index.min() < 0:
            raise Failure(Code.BAD_INPUT, f"{paths[0]} holds {name} {index.min()}, the model has {size} from 0 on")
    shape = (max(model.shape[0], int(places[0].max()) + 1), max(model.shape[1], int(places[1].max()) + 1))
    return Labelled((*places, values), shape)


def read_ids(path: Path) -> list[str]:
    """Return the lines of a file of ids, each as it is between its ends."""
    with failing_with(Code.BAD_INPUT):
        try:
            with path.open(encoding="utf-8-sig") as lines:
                return [line.rstrip("\n") for line in lines]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}") from None


def load(path: Path, **options: Any) -> Any:
    """Open a saved model, or fail with the code for bad input."""
    from fastfactor import storage

    with failing_with(Code.BAD_INPUT):
        return storage.load(path, **options)


def places_of(model: Any, side: str, ids: Sequence[str]) -> Any:
    """Return the positions of ids that were given on the command line."""
    labels = model.row_labels if side == "rows" else model.col_labels
    name, size = ("row ids", model.shape[0]) if side == "rows" else ("column ids", model.shape[1])
    with failing_with(Code.BAD_INPUT):
        if labels is not None and labels.kind == "text":
            return labels.find(ids, name)
        numbers = [_as_integer(text, name) for text in ids]
        if labels is not None:
            return labels.find(numbers, name)
        outside = [number for number in numbers if not 0 <= number < size]
        if outside:
            raise ValueError(
                f"the model has no ids, and {outside[0]} is not among the positions 0..{size - 1} of {side}"
            )
        return np.array(numbers, np.int64)


def _as_integer(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} of this model are integers, got {text!r}") from None


def spell(labels: Any, places: Any) -> list[Any]:
    """Return ids (or the positions, where there are none) as Python objects."""
    found: list[Any] = (places if labels is None else labels.take(places)).tolist()
    return found
