"""Fits that survive their process: what a fit has reached, on disk, with what it was fitted to and how.

The folder is written as models are (folders.py): old or new, never half of either. docs/storage.md states the format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastfactor.folders import read_folder, write_values
from fastfactor.ids import Ids
from fastfactor.kernels.compiling import DIGEST
from fastfactor.kernels.losses import Loss
from fastfactor.locks import holding
from fastfactor.manifest import CHECKPOINT, MANIFEST
from fastfactor.matrix.labelled import Labelled, StoredGrid
from fastfactor.model import Factorization
from fastfactor.solvers.journal import Journal
from fastfactor.storage import as_model

# What a fit may be called with differently when it is resumed: none of it changes the numbers of a fit that ends.
_FREE = {"n_threads", "max_seconds", "max_memory", "callback", "progress", "checkpoint"}
_SPARSE_PARTS = {"coo": ("row", "col", "data"), "dia": ("offsets", "data")}
_SHOWN = 3  # differences that a message names
_CHUNK = 1 << 26  # bytes
_DIGITS = 16  # of a checksum that a message shows


def describe(value: Any) -> str:
    """Return what tells this argument of a fit from others: itself if it is short, else a checksum of its content."""
    if isinstance(value, StoredGrid):  # its manifest has the checksums of all its arrays
        manifest = hashlib.sha256((value.folder / MANIFEST).read_bytes()).hexdigest()
        return f"grid on disk {value.shape}, checksum {manifest[:_DIGITS]}"
    if isinstance(value, Labelled | Factorization | Ids):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        for name in ("history", "selection", "n_skipped", "n_unknown"):
            parts.pop(name, None)
        return f"{type(value).__name__}({', '.join(f'{name} {describe(part)}' for name, part in parts.items())})"
    if isinstance(value, Loss):
        codes = [getattr(getattr(part, "py_func", part), "__code__", None) for part in (value.value, value.derivative)]
        digest = hashlib.sha256(b"".join(code.co_code + repr(code.co_consts).encode() for code in codes if code))
        return f"loss {value.name!r} with code {digest.hexdigest()[:_DIGITS]}"
    if bool(sp.issparse(value)):
        if value.format not in ("csr", "csc", "bsr", *_SPARSE_PARTS):
            value = value.tocsr()
        names = _SPARSE_PARTS.get(value.format, ("indptr", "indices", "data"))
        return f"{value.format} matrix {value.shape} of {_describe_arrays(*(getattr(value, name) for name in names))}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list) and (len(value) <= _SHOWN or not np.ndim(value)):
        return "(" + ", ".join(map(describe, value)) + ")"
    if isinstance(value, type | np.dtype):
        return np.dtype(value).name
    if value is None or isinstance(value, str | bool | int | float | complex):
        return repr(value)
    return repr(value.item()) if isinstance(value, np.generic) else _describe_arrays(np.asarray(value))


def _describe_arrays(*arrays: Any) -> str:
    digest, names = hashlib.sha256(), []
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        if array.dtype.hasobject:
            digest.update(repr(array.tolist()).encode())
        elif array.size:
            n_parts = 1 if array.flags.c_contiguous else -(-array.nbytes // _CHUNK)  # else a copy, a part at a time
            for part in np.array_split(np.atleast_1d(array), n_parts):
                digest.update(np.ascontiguousarray(part).view(np.uint8).data)
        names.append(f"{array.dtype} {array.shape}")
    return f"{', '.join(names)}, checksum {digest.hexdigest()[:_DIGITS]}"


@dataclass(frozen=True)
class Checkpoint:
    """A folder that keeps one fit.

    Attributes
    ----------
    folder : Path
    fingerprint : dict
        Of the fit's arguments, as `describe` has them.
    loss : str or Loss
        The argument itself: no file holds a function.
    """

    folder: Path
    fingerprint: dict[str, str]
    loss: Any

    @classmethod
    def of(cls, path: Any, arguments: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint at `path` of a fit with these arguments.

        Raises
        ------
        TypeError, NotADirectoryError
            If `path` is no path, or there is a file.
        """
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"checkpoint must be the path of a folder, got {path!r}")
        folder = Path(path)
        existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        if existing.exists() and not existing.is_dir():
            raise NotADirectoryError(20, "checkpoint must be a folder, there is a file", str(existing))
        given = {name: describe(value) for name, value in arguments.items() if name not in _FREE}
        return cls(folder, {**given, "the code of the kernels": DIGEST[:_DIGITS]}, arguments["loss"])

    def run(self, solve: Callable[[Journal], Factorization]) -> Factorization:
        """Return the model that is kept, or what `solve` makes of the journal that is; then that is kept.

        Raises
        ------
        ValueError
            If the folder keeps another fit (the message says what differs), something else, or is damaged.
        BlockingIOError
            If another process or thread runs a fit with this folder.
        OSError
            If it cannot be written.
        """
        with holding(self.folder, "checkpoint"):
            journal, model = self._open()
            if model is None:
                model = solve(journal)
                if not journal.was_stopped:
                    self._finish(model)
            return model

    def _open(self) -> tuple[Journal, Factorization | None]:
        try:
            found = read_folder(self.folder, CHECKPOINT, verify=True)
        except FileNotFoundError:
            return Journal(self._write_progress), None
        except ValueError as error:
            raise ValueError(f"checkpoint cannot be used: {error}; remove the folder to start again") from error
        self._compare(found.get("fingerprint"))
        try:
            if isinstance(found.get("model"), dict):
                return Journal(), self._read_model(found["model"])
            return Journal(self._write_progress, found["progress"]), None
        except (KeyError, TypeError) as error:
            raise ValueError(f"checkpoint cannot be used: {self.folder / MANIFEST} keeps no fit ({error!r})") from error

    def _read_model(self, fields: dict[str, Any]) -> Factorization:
        """Return the model that a folder keeps, checked as saved ones are, with the loss that no file holds."""
        model = as_model({"loss": "squared"} | _own(fields), self.folder / MANIFEST)
        return model if isinstance(self.loss, str) else dataclasses.replace(model, loss=self.loss)

    def _finish(self, model: Factorization) -> None:
        """Keep the model in place of the way to it."""
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
        left_out = {"row_labels", "col_labels"} | (set() if isinstance(model.loss, str) else {"loss"})
        self._write({"model": {name: value for name, value in fields.items() if name not in left_out}})

    def _compare(self, found: Any) -> None:
        found = found if isinstance(found, dict) else {}
        names = [name for name in self.fingerprint if not _is_same(found.get(name), self.fingerprint[name])]
        if names:
            shown = "; ".join(f"{name} was {found.get(name)}, is {self.fingerprint[name]}" for name in names[:_SHOWN])
            more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(f"checkpoint {self.folder} is of another fit: {shown}{more}")

    def _write_progress(self, progress: dict[str, Any]) -> None:
        self._write({"progress": progress})

    def _write(self, content: dict[str, Any]) -> None:
        try:
            write_values(self.folder, {"fingerprint": self.fingerprint} | content, CHECKPOINT)
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"checkpoint cannot be written, what it kept before is still there: {reason}"
            raise OSError(error.errno, message, str(self.folder)) from error


def _is_same(found: Any, own: str) -> bool:
    return isinstance(found, str) and found == own


def _own(value: Any) -> Any:
    """Return the same with arrays in memory, which can be written, as those of a fit are."""
    if isinstance(value, Mapping):
        return {key: _own(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_own, value))
    return np.array(value) if isinstance(value, np.ndarray) else value
