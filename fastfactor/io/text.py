"""CSV and its relatives, with the number of the line for whatever is wrong."""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.io.arrow import load_pyarrow, naming
from fastfactor.io.collecting import Collector, Faults

_BLOCK = 1 << 22  # bytes read at a time; pyarrow reads up to 32 of them ahead
_HEAD = 1 << 16  # bytes that the first line is looked for in
_SHOWN = 60  # of a bad field in a message


def is_number(text: str) -> bool:
    """Whether a field is a finite number as files spell it (Python itself would also take 1_000)."""
    try:
        return "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def _show(field: bytes) -> str:
    return repr(_spell(field[:_SHOWN]))


class TextSource:
    """A delimited text file, compressed or not, read block by block.

    Parameters
    ----------
    path : Path
    delimiter : str
    header : bool or None
        Whether the first line holds names. None: it does if `columns` has names, or its third field is no number.
    columns : tuple or None
        What the user asked for.
    integer_ids : bool
        Whether ids are to become integers.
    faults : Faults
    """

    unit = "line"

    def __init__(
        self, path: Path, delimiter: str, header: bool | None, columns: Any, integer_ids: bool, faults: Faults
    ) -> None:
        self.path, self.delimiter, self.integer_ids, self.faults = path, delimiter, integer_ids, faults
        with naming(str(path)):
            first = self._read_first_line()
        if header is None:
            header = self._guess_header(first, columns)
        self.has_header = header
        self.names = [name.strip() for name in first] if header else [f"column {i}" for i in range(len(first))]
        self.n_lines = 1 << 16

    def _read_first_line(self) -> list[str]:
        with self._open() as stream:
            line = stream.read(_HEAD).splitlines()[:1]
        text = [part.decode("utf-8-sig", "replace") for part in line]
        first = next(csv.reader(text, delimiter=self.delimiter), None)
        if not first:
            raise ValueError(f"{self.path} is empty, or its first line is")
        return first

    def _open(self) -> Any:
        pa = load_pyarrow()
        return pa.input_stream(str(self.path), compression="detect")

    def _guess_header(self, first: list[str], columns: Any) -> bool:
        if columns is not None and any(isinstance(column, str) for column in columns):
            return True
        place = 2 if columns is None or len(columns) < 3 else columns[2]
        if columns is not None and len(columns) > 2 and len(first) <= place:
            return False  # there is no such column, which is for others to say
        if len(first) <= place or (columns is not None and len(columns) < 3):
            raise ValueError(f"{self.path} has no column of values to tell a header by: pass header=True or False")
        return not is_number(first[place])

    def feed(self, places: Sequence[int], collector: Collector) -> None:
        """Give all lines to the collector."""
        pa = load_pyarrow()
        odd: list[int] = []  # lines with too few or too many fields, which are not in the batches
        first_fault: list[ValueError] = []

        def refuse(row: Any) -> str:
            odd.append(row.number)
            try:
                if row.text.strip():
                    reason = f"{row.actual_columns} fields where {row.expected_columns} are expected"
                    self.faults.report(row.number, reason)
            except ValueError as error:  # pyarrow would swallow it
                first_fault.append(error)
                return "error"
            return "skip"

        n_before = int(self.has_header)
        try:
            for batch in self._open_batches(places, refuse):
                self._add(batch, places, collector, partial(_find_line, start=n_before, odd=odd))
                n_before += batch.num_rows
        except pa.ArrowInvalid:
            if first_fault:
                raise first_fault[0] from None
            raise

    def _open_batches(self, places: Sequence[int], refuse: Any) -> Iterator[Any]:
        pa = load_pyarrow()
        import pyarrow.csv

        fields = [f"f{place}" for place in places]
        coded = pa.dictionary(pa.int32(), pa.binary())
        # Bytes, not text and numbers: what is wrong with them is found out here, where the line is known.
        types = dict(zip(fields, (coded, coded, pa.binary()), strict=False))
        reading = pyarrow.csv.ReadOptions(
            use_threads=False,  # else lines have no numbers
            autogenerate_column_names=True,
            skip_rows=int(self.has_header),
            block_size=_BLOCK,
        )
        parsing = pyarrow.csv.ParseOptions(
            delimiter=self.delimiter, ignore_empty_lines=False, invalid_row_handler=refuse
        )
        converting = pyarrow.csv.ConvertOptions(column_types=types, include_columns=fields, check_utf8=False)
        with self._open() as stream:
            yield from pyarrow.csv.open_csv(stream, reading, parsing, converting)

    def _add(self, batch: Any, places: Sequence[int], collector: Collector, locate: Callable[[int], int]) -> None:
        """Report the bad lines of a batch, in their order, and give the others to the collector."""
        pa = load_pyarrow()
        reasons: dict[int, str] = {}
        values = None
        if len(places) > 2:
            values, wrong = _parse_values(batch.column(2))
            reasons = {i: f"{self.names[places[2]]}: {why}" for i, why in wrong.items()}
        ids = []
        for place, column in zip(places[:2], batch.columns[:2], strict=True):
            converted, wrong = self._parse_ids(column.dictionary)
            codes = column.indices.to_numpy(zero_copy_only=False)
            for i in np.flatnonzero(np.isin(codes, list(wrong))).tolist() if wrong else ():
                reasons[i] = f"{self.names[place]}: {wrong[int(codes[i])]}"
            ids.append(pa.DictionaryArray.from_arrays(column.indices, converted))
        for i in sorted(reasons):
            if any(column[i].as_py() for column in batch.columns):  # else the line is blank
                self.faults.report(locate(i), reasons[i])
        if reasons:
            good = np.setdiff1d(np.arange(batch.num_rows), list(reasons))
            ids = [column.take(pa.array(good)) for column in ids]
            values = None if values is None else values[good]
        collector.add((ids[0], ids[1]), values, locate)

    def _parse_ids(self, values: Any) -> tuple[Any, dict[int, str]]:
        """Return ids as text or integers, and what is wrong with those that are none, by their place."""
        pa = load_pyarrow()
        kind = pa.int64() if self.integer_ids else pa.string()
        if values.index(pa.scalar(b"", values.type)).as_py() < 0:
            try:
                return values.cast(pa.string()).cast(kind), {}
            except pa.ArrowInvalid:  # some of them; which ones takes longer to tell
                pass
        parsed, wrong = [], {}
        for i, value in enumerate(values.to_pylist()):
            try:
                parsed.append(self._parse_id(value))
            except ValueError as error:
                parsed.append(0 if self.integer_ids else "")
                wrong[i] = str(error)
        return pa.array(parsed, kind), wrong

    def _parse_id(self, value: bytes) -> str | int:
        if not value:
            raise ValueError("no id")
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{_show(value)} is not UTF-8") from None
        if not self.integer_ids:
            return text
        if not re.fullmatch("-?[0-9]{1,19}", text) or not -(1 << 63) <= int(text) < 1 << 63:
            raise ValueError(f"{_show(value)} is no integer of 64 bits")
        return int(text)


def _parse_values(column: Any) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return numbers, and what is wrong with those fields that are none, by their place."""
    pa = load_pyarrow()
    try:
        values = column.cast(pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
        if np.isfinite(values).all():
            return values, {}
    except pa.ArrowInvalid:  # some of them; which ones takes longer to tell
        pass
    fields = column.to_pylist()
    wrong = {i: f"{_show(field)} is no finite number" for i, field in enumerate(fields) if not is_number(_spell(field))}
    return np.array([0.0 if i in wrong else float(field) for i, field in enumerate(fields)]), wrong


def _spell(field: bytes) -> str:
    return field.decode(errors="replace")


def _find_line(i: int, start: int, odd: list[int]) -> int:
    """Return the line that has `start + i` lines before it, odd ones not counted."""
    line = start + i + 1
    while (below := bisect_right(odd, line)) + start + i + 1 != line:
        line = below + start + i + 1
    return line
