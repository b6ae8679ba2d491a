"""The door to pyarrow, which is an extra; and ids on their way between it and NumPy."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np

from fastfactor.ids import Ids


def load_pyarrow() -> Any:
    """Return the module pyarrow.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("tables need pyarrow: pip install 'fastfactor[io]'") from error
    return pyarrow


_READABLE = ("string", "large_string", "string_view", "temporal", "decimal", "boolean")
_BYTES = ("binary", "large_binary", "binary_view", "fixed_size_binary")


def _is(kind: Any, names: tuple[str, ...]) -> bool:
    types = load_pyarrow().types
    return any(getattr(types, f"is_{name}")(kind) for name in names)


def check_id_type(kind: Any, name: str) -> None:
    """Raise a TypeError for an Arrow type that ids cannot have; `name` says whose they are."""
    if not isinstance(kind, load_pyarrow().UuidType) and not _is(kind, ("integer", *_READABLE, *_BYTES)):
        raise TypeError(f"{name} holds {kind}: ids must be strings, integers, UUIDs, bytes, dates or decimals")


def normalise_ids(values: Any) -> Any:
    """Return an Arrow array of ids as large_string, large_binary, int64 or uint64.

    UUIDs, dates, times, decimals and booleans become text, in the spelling that Arrow gives them.
    """
    pa = load_pyarrow()
    kind = values.type
    if isinstance(kind, pa.UuidType):
        return pa.array([str(UUID(bytes=value)) for value in values.storage.to_pylist()], pa.large_string())
    if pa.types.is_uint64(kind):
        return values
    if pa.types.is_integer(kind):
        return values.cast(pa.int64())
    if _is(kind, _BYTES):
        return values.cast(pa.large_binary())
    return values if pa.types.is_large_string(kind) else values.cast(pa.string()).cast(pa.large_string())


def from_arrow(values: Any) -> Ids:
    """Return normalised, distinct ids of an Arrow array, without a Python object each."""
    pa = load_pyarrow()
    if pa.types.is_integer(values.type):
        return Ids("integers", np.array(values.to_numpy(zero_copy_only=False)))
    _, offsets, data = values.buffers()
    where = np.frombuffer(offsets, np.int64, len(values) + 1, 8 * values.offset) if offsets else np.zeros(1, np.int64)
    content = np.frombuffer(data, np.uint8)[where[0] : where[-1]] if data else np.empty(0, np.uint8)
    kind = "text" if pa.types.is_large_string(values.type) else "bytes"
    return Ids(kind, content.copy(), where - where[0])


def to_arrow(ids: Ids) -> Any:
    """Return ids as an Arrow array over the same memory.

    Raises
    ------
    ValueError
        If they are damaged: Arrow follows offsets blindly.
    """
    pa = load_pyarrow()
    if ids.offsets is None:
        return pa.array(ids.data)
    kind = pa.large_string() if ids.kind == "text" else pa.large_binary()
    buffers = [None, *(pa.py_buffer(np.ascontiguousarray(part)) for part in (ids.checked_offsets, ids.data))]
    array = pa.Array.from_buffers(kind, len(ids), buffers)
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(f"ids are damaged: {error}") from None
    return array
