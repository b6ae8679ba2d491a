"""From batches of a table to triplets: ids become positions as they arrive, in arrays that are filled in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.exceptions import warn_caller
from fastfactor.ids import Ids
from fastfactor.io.arrow import check_id_type, from_arrow, load_pyarrow, normalise_ids, to_arrow
from fastfactor.matrix.labelled import Labelled

_MIN_PENDING = 1 << 20  # ids of batches that are worth a merge
_GROWTH = 1.5
_PART = 1 << 20  # codes looked up at a time: NumPy widens what it takes as an index

UNKNOWN = ("add", "error", "skip")


@dataclass
class Faults:
    """Bad lines: an error that says where, or a count.

    Attributes
    ----------
    skip : bool
    source : str
        The file, for messages.
    unit : {"line", "row"}
        What is counted in it.
    n_skipped : int
        Bad lines.
    n_unknown : int
        Entries left out since an id of theirs is not in the model.
    first : str
        The first bad line.
    """

    skip: bool
    source: str = ""
    unit: str = "row"
    n_skipped: int = 0
    n_unknown: int = 0
    first: str = ""

    def report(self, line: int, reason: str) -> None:
        """Take note of a bad line, counted from 1, or raise a ValueError that names it."""
        text = f"{self.source}, {self.unit} {line}: {reason}"
        if not self.skip:
            raise ValueError(text)
        self.n_skipped += 1
        self.first = self.first or text

    def warn(self) -> None:
        """Say once how many were skipped, if any."""
        if self.n_skipped:
            lines = "line was" if self.n_skipped == 1 else "lines were"
            warn_caller(f"{self.n_skipped} bad {lines} skipped; the first: {self.first}")


class Buffer:
    """An array that grows in place; it widens to hold other numbers, unless its dtype is fixed."""

    def __init__(self, dtype: Any, capacity: int, *, is_fixed: bool = True) -> None:
        self.array, self.is_fixed = np.empty(capacity, dtype), is_fixed
        self.n = 0

    def extend(self, values: NDArray[Any]) -> None:
        """Append values."""
        stop = self.n + len(values)
        if not self.is_fixed and not np.can_cast(values.dtype, self.array.dtype):
            self.array = self.array.astype(np.result_type(self.array.dtype, values.dtype))
        if stop > len(self.array):
            self.array.resize(max(stop, int(len(self.array) * _GROWTH)), refcheck=False)
        self.array[self.n : stop] = values
        self.n = stop

    @property
    def filled(self) -> NDArray[Any]:
        """What was appended, as a view."""
        return self.array[: self.n]

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Drop all but the chosen ones."""
        kept = self.filled[chosen]
        self.n = len(kept)
        self.filled[:] = kept

    def finish(self) -> NDArray[Any]:
        """Return what was appended; the room left over goes back to the system."""
        self.array.resize(self.n, refcheck=False)
        return self.array


@dataclass
class Side:
    """One column of ids. Each batch has a dictionary of its own; every so often these are merged into the common one.

    Codes of batches since the last merge are positions in their own dictionaries, and are rewritten by the merge. The
    merge is put off until these dictionaries hold as many ids as the common one, so that all merges together cost no
    more than the last.
    """

    name: str
    codes: Buffer
    known: Any = None  # Arrow array: the common dictionary
    pending: list[tuple[int, Any]] = field(default_factory=list)
    n_pending: int = 0

    def add(self, column: Any, chosen: NDArray[Any] | None) -> None:
        """Append one batch of ids, a DictionaryArray without null; of those, the chosen ones."""
        codes = column.indices.to_numpy(zero_copy_only=False)
        values = normalise_ids(column.dictionary)
        if self.known is not None and values.type != self.known.type:
            raise TypeError(
                f"{self.name} holds ids of type {values.type}, those before it (or of the model) are {self.known.type}"
            )
        if self.known is None:
            self.known = values.slice(0, 0)
        self.pending.append((self.codes.n, values))
        self.n_pending += len(values)
        self.codes.extend(codes if chosen is None else codes[chosen])
        if self.n_pending > max(_MIN_PENDING, len(self.known)):
            self.merge()

    def merge(self) -> None:
        """Bring the codes of pending batches into terms of the common dictionary."""
        if not self.pending:
            return
        pa = load_pyarrow()
        dictionaries = [self.known, *(values for _, values in self.pending)]
        chunks = [pa.DictionaryArray.from_arrays(np.arange(len(d), dtype=np.int32), d) for d in dictionaries]
        unified = pa.chunked_array(chunks).unify_dictionaries()
        stops = [start for start, _ in self.pending[1:]] + [self.codes.n]
        for (start, _), stop, chunk in zip(self.pending, stops, unified.chunks[1:], strict=True):
            place = chunk.indices.to_numpy(zero_copy_only=False)
            part = self.codes.array[start:stop]
            part[:] = place[part]
        self.known = unified.chunk(0).dictionary
        self.pending, self.n_pending = [], 0

    def finish(self, n_kept: int) -> tuple[NDArray[np.int32], Ids]:
        """Return positions and ids. Ids after the first `n_kept` that no entry has are left out."""
        self.merge()
        codes = self.codes.finish()
        used = np.zeros(len(self.known), np.bool_)
        used[:n_kept] = True
        parts = [codes[start : start + _PART] for start in range(0, len(codes), _PART)]
        for part in parts:
            used[part] = True
        if not used.all():  # categories of a frame that was filtered, ids of lines that were skipped
            place = np.cumsum(used, dtype=np.int32) - np.int32(1)
            for part in parts:
                part[:] = place[part]
            self.known = self.known.take(load_pyarrow().array(np.flatnonzero(used)))
        return codes, from_arrow(self.known)


class Collector:
    """Takes batches of rows, columns and values; gives triplets.

    Parameters
    ----------
    names : (str, str)
        Of the columns of ids.
    faults : Faults
    like : object with row_labels and col_labels, optional
        Ids that have their positions already.
    unknown : {"add", "error", "skip"}
        What to do with ids that are not in `like`.
    capacity : int
        Lines expected.
    dtype : numpy dtype, optional
        Of the values; by default as they come.
    """

    def __init__(
        self, names: tuple[str, str], faults: Faults, like: Any, unknown: str, capacity: int, dtype: Any
    ) -> None:
        self.faults, self.unknown, self.dtype, self.capacity = faults, unknown, dtype, capacity
        self.like = None if like is None else (like.row_labels, like.col_labels)
        self.sides = [Side(name, Buffer(np.int32, capacity)) for name in names]
        for side, ids in zip(self.sides, self.like or (), strict=False):
            side.known = to_arrow(ids)
        self.values: Buffer | None = None

    def add(self, ids: tuple[Any, Any], values: NDArray[Any] | None, locate: Callable[[int], int]) -> None:
        """Append a batch.

        Parameters
        ----------
        ids : two Arrow arrays
            Of the rows and of the columns; encoded as dictionaries or not; nulls are bad lines.
        values : array or None
            NaN and infinity are bad lines; None stands for ones.
        locate : callable
            From a position in the batch to the number of the line, for messages.
        """
        n = len(ids[0])
        good = np.ones(n, np.bool_)
        encoded = []
        for side, column in zip(self.sides, ids, strict=True):
            column = _encode(column, side.name)
            if column.null_count:
                self._refuse(good, ~_is_valid(column), locate, f"no id in {side.name}")
                column = load_pyarrow().DictionaryArray.from_arrays(column.indices.fill_null(0), column.dictionary)
            encoded.append(column)
        if values is None:
            values = np.ones(n, np.float32)
        if self.dtype is not None:
            with np.errstate(over="ignore"):  # to infinity, which is found next
                values = values.astype(self.dtype, copy=False)
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            self._refuse(good, ~np.isfinite(values), locate, "a value that is no finite number")
        chosen = None if good.all() else np.flatnonzero(good)
        if self.values is None:
            self.values = Buffer(values.dtype, self.capacity, is_fixed=False)
        self.values.extend(values if chosen is None else values[chosen])
        for side, column in zip(self.sides, encoded, strict=True):
            side.add(column, chosen)

    def _refuse(self, good: NDArray[np.bool_], bad: NDArray[np.bool_], locate: Callable[[int], int], why: str) -> None:
        for i in np.flatnonzero(bad & good).tolist():
            self.faults.report(locate(i), why)
        good &= ~bad

    def finish(self) -> Labelled:
        """Return the triplets that were collected, and the ids.

        Raises
        ------
        ValueError
            If there is none, or an id is not in `like` where that is an error.
        """
        if self.values is None or not self.values.n:
            raise ValueError(f"{self.faults.source} holds no entry")
        kept = (0, 0) if self.like is None else (len(self.like[0]), len(self.like[1]))
        if self.like is not None and self.unknown != "add":
            self._drop_unknown(kept)
        (rows, row_ids), (cols, col_ids) = (side.finish(n) for side, n in zip(self.sides, kept, strict=True))
        shape = (len(row_ids), len(col_ids))
        triplets = rows, cols, self.values.finish()
        return Labelled(triplets, shape, row_ids, col_ids, self.faults.n_skipped, self.faults.n_unknown)

    def _drop_unknown(self, kept: tuple[int, int]) -> None:
        assert self.values is not None
        known = np.ones(self.values.n, np.bool_)
        for side, n in zip(self.sides, kept, strict=True):
            side.merge()
            outside = side.codes.filled >= n
            if self.unknown == "error" and outside.any():
                found = side.known[int(side.codes.filled[outside][0])].as_py()
                raise ValueError(f"{self.faults.source}: {side.name} holds {found!r}, which is not in the model")
            known &= ~outside
        if not known.any():
            raise ValueError(f"{self.faults.source}: no entry has ids that are in the model")
        for buffer in (self.values, *(side.codes for side in self.sides)):
            buffer.keep(known)
        self.faults.n_unknown = int((~known).sum())


def _encode(column: Any, name: str) -> Any:
    pa = load_pyarrow()
    check_id_type(column.type.value_type if pa.types.is_dictionary(column.type) else column.type, name)
    if isinstance(column.type, pa.UuidType):
        column = column.storage.dictionary_encode()
        values = pa.ExtensionArray.from_storage(pa.uuid(), column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, values)
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_string() if pa.types.is_string_view(column.type) else pa.large_binary())
    if not pa.types.is_dictionary(column.type):
        return column.dictionary_encode()
    if column.dictionary.null_count:  # a null that hides among the values
        return column.dictionary_decode().dictionary_encode()
    return column


def _is_valid(column: Any) -> NDArray[np.bool_]:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
