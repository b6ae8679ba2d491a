"""Parquet, Arrow and frames, batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.io.arrow import load_pyarrow, naming
from fastfactor.io.collecting import Collector, Faults

_LINES_PER_BYTE = 64  # of a file that packs well; room grows where it packs better
_BATCH = 1 << 20  # lines: a whole row group of most files, whose dictionary then comes once

Columns = tuple[Any, ...]


def choose_columns(names: Sequence[str], columns: Columns | None, source: str) -> list[int]:
    """Return the places of the columns of row ids, column ids and, if there is one, values.

    Parameters
    ----------
    names : sequence of str
        What the columns are called.
    columns : two or three names or positions, optional
        By default the first three, or the only two.
    source : str
        For messages.

    Raises
    ------
    ValueError
        If there is no such column, or a name stands for several.
    """
    if columns is None:
        if len(names) < 2:
            raise ValueError(f"{source} has {len(names)} column(s): row ids and column ids need one each")
        return list(range(min(len(names), 3)))
    places = []
    for column in columns:
        if isinstance(column, int):
            if not 0 <= column < len(names):
                raise ValueError(f"columns holds {column}, but {source} has {len(names)} columns")
            places.append(column)
        elif names.count(column) == 1:
            places.append(names.index(column))
        else:
            found = "more than once" if column in names else "not"
            raise ValueError(f"columns holds {column!r}, which is {found} among those of {source}: {', '.join(names)}")
    return places


def as_numbers(column: Any, name: str) -> NDArray[Any]:
    """Return the values of an Arrow array; null as NaN.

    Raises
    ------
    TypeError
        If they are not numbers.
    """
    pa = load_pyarrow()
    kind = column.type
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise TypeError(f"{name} holds {kind}: values must be numbers")
    if column.null_count and not pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    values = column.to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float32) if values.dtype in (np.float16, np.bool_) else values


def add_batches(batches: Iterator[Any], places: Sequence[Any], names: Sequence[str], collector: Collector) -> None:
    """Give record batches to a collector; `places` are those of ids and values in each batch, `names` what they are."""
    n_before = 0

    def number(i: int, start: int) -> int:
        return start + i + 1

    for batch in batches:
        chosen = [batch.column(place) for place in places]
        values = as_numbers(chosen[2], names[2]) if len(chosen) > 2 else None
        collector.add((chosen[0], chosen[1]), values, partial(number, start=n_before))
        n_before += batch.num_rows


class ParquetSource:
    """A Parquet file, read one row group or a million lines at a time; `mapped` is quicker, and keeps its pages."""

    def __init__(self, path: Path, mapped: bool = True) -> None:
        load_pyarrow()
        import pyarrow.parquet as pq

        self.path, self.mapped = path, mapped
        with naming(str(path)), pq.ParquetFile(path) as file:
            self.names: list[str] = file.schema_arrow.names
            self.n_lines: int = file.metadata.num_rows

    def feed(self, places: Sequence[int], collector: Collector) -> None:
        """Give all lines to the collector."""
        import pyarrow.parquet as pq

        wanted = [self.names[place] for place in places]
        if twice := [name for name in wanted if self.names.count(name) > 1]:
            raise ValueError(f"{self.path} has several columns {twice[0]!r}")
        # Text that lies as a dictionary in the file is never spelled out; for other types this asks for nothing.
        # What is read ahead ("pre_buffer") stays in memory until the file is closed: in the end the whole file.
        with pq.ParquetFile(self.path, read_dictionary=wanted[:2], memory_map=self.mapped, pre_buffer=False) as file:
            batches = map(partial(_checked, places=range(len(wanted))), file.iter_batches(_BATCH, columns=wanted))
            add_batches(batches, wanted, wanted, collector)


class ArrowSource:
    """An Arrow file, or a stream (IPC)."""

    def __init__(self, path: Path, mapped: bool = True) -> None:
        self.path, self.mapped = path, mapped
        with naming(str(path)), self._open() as reader:
            self.names: list[str] = reader.schema.names
            self.n_lines: int = reader.count_rows() if hasattr(reader, "count_rows") else 0

    def _open(self) -> Any:
        pa = load_pyarrow()
        source = (pa.memory_map if self.mapped else pa.OSFile)(str(self.path))
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)

    def feed(self, places: Sequence[int], collector: Collector) -> None:
        """Give all lines to the collector."""
        with self._open() as reader:
            if hasattr(reader, "num_record_batches"):
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                batches = iter(reader)
            names = [self.names[place] for place in places]
            add_batches(map(partial(_checked, places=places), batches), range(len(places)), names, collector)


def _checked(batch: Any, places: Sequence[int]) -> Any:
    """Return some columns, after a look at every offset and index: Arrow follows what a file says blindly."""
    chosen = batch.select(list(places))
    chosen.validate(full=True)
    return chosen


class FrameSource:
    """A frame of pandas, polars or any library that narwhals knows; an Arrow table."""

    def __init__(self, frame: Any) -> None:
        load_pyarrow()
        try:
            import narwhals
        except ImportError as error:
            raise ImportError("frames need narwhals: pip install 'fastfactor[io]'") from error
        try:
            known = narwhals.from_native(frame)
        except TypeError:
            raise TypeError(f"frame must be a data frame, got {type(frame).__name__}") from None
        self.frame = known.collect() if isinstance(known, narwhals.LazyFrame) else known
        self.names = [str(name) for name in self.frame.columns]
        self.n_lines = len(self.frame)

    def feed(self, places: Sequence[int], collector: Collector) -> None:
        """Give all lines to the collector."""
        chosen = self.frame[:, list(places)].to_arrow()  # by place: pandas has names that are no text
        batches = iter(chosen.to_batches(max_chunksize=_BATCH))
        add_batches(batches, range(len(places)), [self.names[place] for place in places], collector)


def describe(source: Any) -> str:
    """Return what to call a source in a message."""
    return str(getattr(source, "path", "the frame"))


def _foresee(source: Any) -> int:
    """Return for how many lines to make room at first: what a file says, but no more than its size makes credible."""
    path = getattr(source, "path", None)
    return int(source.n_lines if path is None else min(source.n_lines, _LINES_PER_BYTE * os.path.getsize(path)))


def collect(
    sources: Sequence[Any],
    columns: Columns | None,
    faults: Faults,
    make: Callable[..., Collector] = Collector,
    **options: Any,
) -> Any:
    """Read all sources into what the collector makes of them; `options` are those of `Collector`."""
    collector = None
    for source in sources:
        faults.source, faults.unit = describe(source), getattr(source, "unit", "row")
        places = choose_columns(source.names, columns, faults.source)
        if collector is None:
            names = source.names[places[0]], source.names[places[1]]
            capacity = sum(map(_foresee, sources))
            collector = make(names, faults, capacity=capacity, **options)
        with naming(faults.source):
            source.feed(places, collector)
    assert collector is not None
    faults.warn()
    return collector.finish()
