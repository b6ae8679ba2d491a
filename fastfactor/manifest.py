"""The manifest of a saved model or grid: Python values as JSON, and the strict reading of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.ids import Ids

MANIFEST = "fastfactor.json"
CONTENT = re.compile(r"fastfactor-[0-9a-f]{32}\.npy")

_DTYPE = re.compile(r"[<>|]([biufc][0-9]{1,2}|U[0-9]{1,8})")
_MAX_MANIFEST = 1 << 26  # bytes
_MAX_BYTES = 1 << 62
_MAX_DEPTH = 100
_TAG = "$type"


@dataclass(frozen=True)
class Kind:
    """What a folder holds.

    Attributes
    ----------
    format : str
        As the manifest says it.
    version : int
        Of the format; a reader knows this one and all before it.
    word : str
        For messages.
    """

    format: str
    version: int
    word: str


MODEL = Kind("fastfactor-model", 1, "model")
GRID = Kind("fastfactor-grid", 2, "grid")
CHECKPOINT = Kind("fastfactor-checkpoint", 1, "checkpoint")


@dataclass(frozen=True)
class StoredArray:
    """What the manifest says of one array.

    Attributes
    ----------
    file : str
        Its name in the folder: "fastfactor-", the first 32 digits of `sha256`, ".npy".
    sha256 : str
        Of the whole file.
    size : int
        Of the whole file, in bytes.
    shape : tuple of int
    dtype : numpy dtype
    """

    file: str
    sha256: str
    size: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, sha256: str, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> StoredArray:
        """Describe an array whose file has that digest and size."""
        return cls(f"fastfactor-{sha256[:32]}.npy", sha256, size, shape, dtype)

    @property
    def n_bytes(self) -> int:
        """Of the array alone."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass
class Encoder:
    """Turns values into JSON, and sets their arrays aside under the name of where they were found."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def encode(self, value: Any, name: str) -> Any:
        """Return `value` in terms of JSON.

        Raises
        ------
        TypeError
            If the format has no place for it.
        """
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, Ids):
            parts = [self.encode(value.data, f"{name}.data"), self.encode(value.offsets, f"{name}.offsets")]
            return {_TAG: "ids", "kind": value.kind, "value": parts}
        if isinstance(value, np.ndarray):
            self.arrays[name] = _as_plain(value, name)
            return refer(name)
        if isinstance(value, np.generic):
            if value.dtype.kind not in "biufc":
                raise TypeError(f"{name} cannot be saved: it is a {value.dtype}")
            return {_TAG: "scalar", "dtype": value.dtype.str, "value": self.encode(value.item(), name)}
        if isinstance(value, float):
            return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
        if isinstance(value, complex):
            return {_TAG: "complex", "value": [self.encode(part, name) for part in (value.real, value.imag)]}
        if isinstance(value, list | tuple):
            items = [self.encode(item, f"{name}.{i}") for i, item in enumerate(value)]
            return items if isinstance(value, list) else {_TAG: "tuple", "value": items}
        if isinstance(value, Mapping):
            return self._encode_mapping(value, name)
        raise TypeError(f"{name} cannot be saved: it is a {type(value).__name__}")

    def _encode_mapping(self, value: Mapping[Any, Any], name: str) -> Any:
        if all(isinstance(key, str) and key != _TAG for key in value):
            return {key: self.encode(item, f"{name}.{key}") for key, item in value.items()}
        items = [
            [self.encode(key, f"{name}.{i}.key"), self.encode(item, f"{name}.{i}")]
            for i, (key, item) in enumerate(value.items())
        ]
        return {_TAG: "dict", "value": items}


def refer(name: str) -> Any:
    """Return what stands in the fields for an array, which may also be written without `Encoder`."""
    return {_TAG: "array", "name": name}


def _as_plain(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return numbers and fixed-width strings as they are, objects that are all strings as those."""
    if array.dtype.kind in "OT" and all(isinstance(item, str) for item in array.ravel()):
        array = array.astype(np.str_)
    if not _DTYPE.fullmatch(array.dtype.str):
        raise TypeError(f"{name} cannot be saved: it is an array of {array.dtype}")
    return array


def decode(value: Any, arrays: Mapping[str, NDArray[Any]], manifest: Path) -> Any:
    """Return the value that `Encoder.encode` was given.

    Raises
    ------
    ValueError
        If it is nothing that the encoder writes.
    """
    if isinstance(value, list):
        return [decode(item, arrays, manifest) for item in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: decode(item, arrays, manifest) for key, item in value.items()}
    try:
        if value[_TAG] == "array":
            return arrays[value["name"]]
        if value[_TAG] == "float" and value["value"] in ("nan", "inf", "-inf"):
            return float(value["value"])
        inner = decode(value["value"], arrays, manifest)
        if value[_TAG] == "complex":
            real, imag = inner
            return complex(float(real), float(imag))
        if value[_TAG] == "tuple":
            return tuple(inner)
        if value[_TAG] == "ids":
            return Ids(value["kind"], *inner)
        if value[_TAG] == "dict":
            return dict(inner)
        if value[_TAG] == "scalar":
            return _parse_dtype(value["dtype"]).type(inner)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{manifest} holds a value that cannot be read: {str(value)[:200]}")


def dump_manifest(fields: Mapping[str, Any], stored: Mapping[str, StoredArray], kind: Kind) -> bytes:
    """Return the manifest as bytes, with a checksum of its own."""
    body = {
        "fields": fields,
        "arrays": {
            name: {
                "file": entry.file,
                "sha256": entry.sha256,
                "size": entry.size,
                "shape": list(entry.shape),
                "dtype": entry.dtype.str,
            }
            for name, entry in stored.items()
        },
    }
    head = {"format": kind.format, "format_version": kind.version, "checksum": _checksum(body)}
    return (json.dumps({**head, **body}, indent=1, allow_nan=False) + "\n").encode()


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(manifest: Path, kind: Kind) -> bytes:
    """Return the bytes of a manifest that is no larger than one can be.

    Raises
    ------
    FileNotFoundError, ValueError
    """
    try:
        with open(manifest, "rb") as file:
            content = file.read(_MAX_MANIFEST + 1)
    except FileNotFoundError:
        raise FileNotFoundError(2, f"there is no saved {kind.word}: no such file", str(manifest)) from None
    if len(content) > _MAX_MANIFEST:
        raise ValueError(f"{manifest} has more than {_MAX_MANIFEST} bytes: it is no manifest")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"the constant {name}")


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"values nested more than {_MAX_DEPTH} deep")
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)


def parse_manifest(content: bytes, manifest: Path, kind: Kind) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    """Return the encoded fields, and what is said of each array.

    Raises
    ------
    ValueError
        If it is not a manifest of a known version, or was changed; the message names the file.
    """
    try:
        record = json.loads(content, parse_constant=_refuse_constant)
        _check_depth(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{manifest} is truncated or no JSON: {error}") from None
    if not isinstance(record, dict) or record.get("format") != kind.format:
        raise ValueError(f"{manifest} is not the manifest of a fastfactor {kind.word}")
    version = record.get("format_version")
    if type(version) is not int or not 1 <= version <= kind.version:
        raise ValueError(
            f"{manifest} has format version {version!r}; this version of fastfactor reads 1 to {kind.version}"
        )
    body: dict[str, dict[str, Any]] = {name: record.get(name) or {} for name in ("fields", "arrays")}
    if not all(isinstance(part, dict) for part in body.values()) or record.get("checksum") != _checksum(body):
        raise ValueError(f"{manifest} does not have the checksum it says: it was changed or damaged")
    try:
        return body["fields"], {name: _parse_entry(entry) for name, entry in body["arrays"].items()}
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{manifest} describes an array that cannot be: {error}") from None


def _parse_entry(entry: Any) -> StoredArray:
    file, sha256, size, shape = entry["file"], entry["sha256"], entry["size"], entry["shape"]
    if not isinstance(file, str) or not CONTENT.fullmatch(file):
        raise ValueError(f"{file!r} is not a name that fastfactor gives to files")
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256) or sha256[:32] not in file:
        raise ValueError(f"the checksum {sha256!r} does not belong to {file}")
    numbers = [size, *shape]
    if not isinstance(shape, list) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"size {size!r} and shape {shape!r} of {file}")
    stored = StoredArray(file, sha256, size, tuple(shape), _parse_dtype(entry["dtype"]))
    if stored.n_bytes > size or size > _MAX_BYTES:
        raise ValueError(f"{file} cannot hold {stored.shape} of {stored.dtype} in {size} bytes")
    return stored


def _parse_dtype(text: Any) -> np.dtype[Any]:
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise ValueError(f"the dtype {text!r}")
    return np.dtype(text)
