"""The ids that a user knows rows and columns by, beside the positions that everything else works with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

KINDS = ("text", "bytes", "integers")
_SHOWN = 3  # unknown ids that a message names


@dataclass(frozen=True, eq=False)
class Ids:
    """Distinct ids, one per row (or column), in the order of the positions.

    Text lies as its UTF-8 bytes, one id after the other: what a file maps, without a Python object per id.

    Attributes
    ----------
    kind : {"text", "bytes", "integers"}
    data : (n_bytes,) uint8 array, or (n,) int64 or uint64 array for integers
    offsets : (n + 1,) int64 array or None
        Where each id starts in `data`; None for integers.
    """

    kind: str
    data: NDArray[Any]
    offsets: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Compare what can be compared without reading all of it: a mapped file may hold anything."""
        if self.kind not in KINDS:
            raise ValueError(f"ids are {', '.join(KINDS)}, not {self.kind!r}")
        dtypes = ("int64", "uint64") if self.kind == "integers" else ("uint8",)
        if not isinstance(self.data, np.ndarray) or self.data.ndim != 1 or self.data.dtype.name not in dtypes:
            raise ValueError(f"ids of kind {self.kind!r} need a 1-D array of {' or '.join(dtypes)}")
        if self.kind == "integers":
            if self.offsets is not None:
                raise ValueError("ids that are integers have no offsets")
            return
        offsets = self.offsets
        if not isinstance(offsets, np.ndarray) or offsets.ndim != 1 or offsets.dtype != np.int64 or not len(offsets):
            raise ValueError(f"ids of kind {self.kind!r} need a 1-D array of int64 offsets")
        if offsets[0] != 0 or offsets[-1] != len(self.data):
            raise ValueError(f"offsets of {len(self.data)} bytes of ids go from {offsets[0]} to {offsets[-1]}")

    @classmethod
    def of(cls, values: Iterable[Any]) -> Ids:
        """Return the ids that `values` are: all integers, all bytes, or all strings (UUIDs count as strings).

        Raises
        ------
        TypeError
            If they are of other types, or mixed.
        ValueError
            If one occurs twice, or does not fit into 64 bits.
        """
        if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
            data = values.astype(np.uint64 if values.dtype == np.uint64 else np.int64)
            return _distinct(cls("integers", np.ascontiguousarray(data.ravel())))
        plain: list[Any] = [as_plain(value) for value in values]
        kinds = {type(value) for value in plain}
        if len(kinds) > 1:
            raise TypeError(f"ids must be of one type, got {' and '.join(sorted(kind.__name__ for kind in kinds))}")
        if kinds == {int}:
            try:
                data = np.array(plain, np.int64 if max(plain) < 1 << 63 else np.uint64)
            except OverflowError:
                raise ValueError(f"ids must fit into 64 bits, got {min(plain)} to {max(plain)}") from None
            return _distinct(cls("integers", data))
        parts = [value.encode() if isinstance(value, str) else value for value in plain]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        data = np.frombuffer(b"".join(parts), np.uint8)
        return _distinct(cls("bytes" if kinds == {bytes} else "text", data, offsets))

    def __len__(self) -> int:
        return len(self.data) if self.offsets is None else len(self.offsets) - 1

    @cached_property
    def values(self) -> NDArray[Any]:
        """The ids themselves: int64 or uint64, NumPy's StringDType, or bytes objects."""
        return self.take(np.arange(len(self)))

    def take(self, positions: NDArray[Any]) -> NDArray[Any]:
        """Return the ids at some positions, none of them negative."""
        if self.offsets is None:
            return np.asarray(self.data[positions])
        offsets = self.checked_offsets
        starts, stops = offsets[positions].tolist(), offsets[positions + 1].tolist()
        parts = [self.data[start:stop].tobytes() for start, stop in zip(starts, stops, strict=True)]
        if self.kind == "text":
            return np.array([_decode(part) for part in parts], np.dtypes.StringDType())
        out = np.empty(len(parts), object)
        out[:] = parts
        return out

    @cached_property
    def checked_offsets(self) -> NDArray[np.int64]:
        """The offsets, after a look at all of them.

        Raises
        ------
        ValueError
            If one is smaller than the one before.
        """
        assert self.offsets is not None
        if (np.diff(self.offsets) < 0).any():
            raise ValueError("ids are damaged: their offsets decrease")
        return self.offsets

    @cached_property
    def _places(self) -> dict[Any, int]:
        places: dict[Any, int] = dict(zip(self.values.tolist(), range(len(self)), strict=True))
        if len(places) != len(self):
            raise ValueError(f"ids are damaged: {len(self) - len(places)} of them occur more than once")
        return places

    def find(self, ids: Iterable[Any], name: str) -> NDArray[np.int64]:
        """Return the position of each id. The first call makes a table of all ids, some 100 bytes each.

        Raises
        ------
        TypeError
            If one is of another type than these are: 7 is not "7".
        KeyError
            If one is not among them; `name` says what they are ids of.
        """
        wanted = [self._as_own(value, name) for value in (ids.tolist() if isinstance(ids, np.ndarray) else ids)]
        found = [self._places.get(value, -1) for value in wanted]
        unknown = [value for value, place in zip(wanted, found, strict=True) if place < 0]
        if unknown:
            shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
            raise KeyError(f"{len(unknown)} of {len(wanted)} {name} are not in the model: {shown}")
        return np.array(found, np.int64)

    def _as_own(self, value: Any, name: str) -> Any:
        plain = as_plain(value)
        if {"text": str, "bytes": bytes, "integers": int}[self.kind] is not type(plain):
            raise TypeError(f"{name} of this model are {self.kind}, got {value!r}")
        return plain

    def begins_with(self, other: Ids) -> bool:
        """Whether the first ids are those of `other`, in the same order."""
        n = len(other)
        if self.kind != other.kind or len(self) < n:
            return False
        if self.offsets is None or other.offsets is None:
            return bool((self.data[:n] == other.data).all())
        same = np.array_equal(self.offsets[: n + 1], other.offsets)
        return same and np.array_equal(self.data[: len(other.data)], other.data)


def as_plain(value: Any) -> str | bytes | int:
    """Return an id as a str, bytes or int; UUIDs in their usual spelling.

    Raises
    ------
    TypeError
        If it is something else: 1.0 and 1 would be one id or two, depending on who is asked.
    """
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, str | bytes | int):
        raise TypeError(f"an id must be a string, bytes, a UUID or an integer, got {value!r}")
    return value


class WithIds:
    """What has ids of rows and columns, or none: `row_ids` and `col_ids`, the labels as arrays."""

    row_labels: Ids | None
    col_labels: Ids | None

    @property
    def row_ids(self) -> NDArray[Any] | None:
        """The id of each row, (n_rows,): integers, strings (NumPy's StringDType) or bytes; None if X came without."""
        return None if self.row_labels is None else self.row_labels.values

    @property
    def col_ids(self) -> NDArray[Any] | None:
        """The id of each column, (n_cols,), as `row_ids`."""
        return None if self.col_labels is None else self.col_labels.values


def _decode(part: bytes) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise ValueError(f"ids are damaged: {part[:40]!r} is not UTF-8") from None


def _distinct(ids: Ids) -> Ids:
    values = ids.values.tolist()
    if len(set(values)) < len(values):
        twice = Counter(values).most_common(1)[0][0]
        raise ValueError(f"ids must be distinct, but {twice!r} occurs more than once")
    return ids
