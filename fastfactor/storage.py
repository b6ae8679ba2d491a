"""Models on disk: a folder with a JSON manifest and plain .npy arrays. Nothing that is read is ever executed.

Arrays lie in files named by their content. The manifest is written last, by an atomic replace: whoever opens the folder
finds the old model or the new one. `docs/storage.md` states the format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.ids import Ids
from fastfactor.manifest import (
    CONTENT,
    MANIFEST,
    Encoder,
    StoredArray,
    decode,
    dump_manifest,
    parse_manifest,
    read_manifest,
)
from fastfactor.model import Factorization

_TEMPORARY = ".fastfactor-"
_CHUNK = 1 << 22  # bytes hashed at a time
_MAX_HEADER = 1 << 16  # bytes of a .npy header
_RETRIES = 20  # of a reader that met writers


def save_model(model: Factorization, path: str | os.PathLike[str]) -> None:
    """Write a model to the folder `path`, which then holds this model or, if anything fails, what it held before.

    Parameters
    ----------
    model : Factorization
    path : str or path
        A folder; made if it does not exist. A model in it is replaced; files of other names stay.

    Raises
    ------
    OSError
        If the folder cannot be written, or the disk is full; nothing half-written is left.
    TypeError
        If the model holds something that the format has no place for.

    Examples
    --------
    >>> import tempfile, numpy as np, fastfactor as ff
    >>> model = ff.fit(np.outer([1.0, 2.0, 3.0], [1.0, 2.0]), rank=1, unobserved="zero", max_epochs=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     ff.load(folder, verify=True)
    Factorization(3 x 2, rank=1, dtype=float64)
    """
    folder, encoder = Path(path), Encoder()
    fields = {field.name: encoder.encode(getattr(model, field.name), field.name) for field in dataclasses.fields(model)}
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            _write_all(folder, fields, encoder.arrays)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write_all(folder: Path, fields: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    present = {name for name in os.listdir(folder) if CONTENT.fullmatch(name)}
    stored: dict[str, StoredArray] = {}
    replaced = False
    try:
        for name, array in arrays.items():
            stored[name] = _write_array(folder, array)
        _replace_file(folder, MANIFEST, dump_manifest(fields, stored))
        replaced = True
    finally:
        # Readers may have the old files open, or mapped, and keep what they have; those who come too late try again.
        kept = {entry.file for entry in stored.values()} if replaced else present
        for name in os.listdir(folder):
            if (CONTENT.fullmatch(name) and name not in kept) or name.startswith(_TEMPORARY):
                with contextlib.suppress(OSError):  # Windows removes no file that is mapped; the next save will
                    (folder / name).unlink()


class _HashingFile:
    """What `np.lib.format.write_array` writes to: a file, and the digest of what went into it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, block: bytes) -> int:
        self.digest.update(block)
        return int(self.file.write(block))


def _write_array(folder: Path, array: NDArray[Any]) -> StoredArray:
    with _temporary(folder) as (file, temporary):
        hashing = _HashingFile(file)
        np.lib.format.write_array(hashing, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
        size = file.tell()
        digest = hashing.digest.hexdigest()
        entry = StoredArray.of(array, digest, size)
        _settle(file)
        os.replace(temporary, folder / entry.file)
    return entry


def _replace_file(folder: Path, name: str, content: bytes) -> None:
    with _temporary(folder) as (file, temporary):
        file.write(content)
        _settle(file)
        _settle_folder(folder)  # the arrays' names reach the disk before the manifest that names them
        os.replace(temporary, folder / name)
    _settle_folder(folder)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Any, str]]:
    descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    try:
        with open(descriptor, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), 0o666 & ~_umask())  # mkstemp's files are for their owner only
            yield file, name
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o022)  # the only way to read it is to set it
    os.umask(mask)
    return mask


def _settle(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _settle_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold off other writers, where the system can lock a folder; readers are never held off."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def load(path: str | os.PathLike[str], verify: bool = False) -> Factorization:
    """Open a saved model. Its arrays are mapped, read-only: a model larger than memory opens in milliseconds.

    Parameters
    ----------
    path : str or path
        The folder that `Factorization.save` wrote.
    verify : bool
        Also read every array and compare it with its checksum.

    Returns
    -------
    Factorization

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If a file is truncated, damaged, of a foreign format or version, or not what the manifest says; the message
        names it.

    Examples
    --------
    >>> import tempfile, numpy as np, fastfactor as ff
    >>> model = ff.fit(np.outer([1.0, 2.0, 3.0], [1.0, 2.0]), rank=1, unobserved="zero", max_epochs=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     bool((ff.load(folder).U == model.U).all())
    True
    """
    folder = Path(path)
    manifest = folder / MANIFEST
    content = read_manifest(manifest)
    for _ in range(_RETRIES):
        fields, stored = parse_manifest(content, manifest)
        try:
            arrays = {name: _open_array(folder, entry, verify) for name, entry in stored.items()}
            break
        except FileNotFoundError as error:  # a writer may have replaced the model in between
            before, content = content, read_manifest(manifest)
            if content == before:
                raise ValueError(f"{error.filename} is missing, but {manifest} names it") from None
    else:
        raise ValueError(f"{folder} was written anew {_RETRIES} times while it was being read")
    return _as_model({name: decode(value, arrays, manifest) for name, value in fields.items()}, manifest)


def _open_array(folder: Path, entry: StoredArray, verify: bool) -> NDArray[Any]:
    """Map one array, after everything that is claimed about it has been compared with the file."""
    path = folder / entry.file
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise ValueError(f"{path} is not a regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.size:
            raise ValueError(f"{path} has {size} bytes, the manifest says {entry.size}")
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version}")
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_MAX_HEADER)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path} is not a .npy file of version 1.0: {error}") from None
        if dtype.hasobject or is_fortran or shape != entry.shape or dtype != entry.dtype:
            raise ValueError(f"{path} holds {shape} of {dtype}, the manifest says {entry.shape} of {entry.dtype}")
        start = file.tell()
        if size != start + entry.n_bytes:
            raise ValueError(f"{path} has {size} bytes, its header asks for {start + entry.n_bytes}")
        if verify and _compute_digest(file) != entry.sha256:
            raise ValueError(f"{path} does not have the checksum that the manifest says: it was changed or damaged")
        if entry.n_bytes == 0:
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(file, dtype, "r", start, shape))


def _compute_digest(file: Any) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()


def _as_model(fields: dict[str, Any], manifest: Path) -> Factorization:
    known = {field.name for field in dataclasses.fields(Factorization)}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"{manifest} holds fields that this version does not know: {', '.join(unknown)}")
    missing = sorted({"U", "V", "mean", "row_bias", "col_bias"} - fields.keys())
    if missing:
        raise ValueError(f"{manifest} lacks {', '.join(missing)}")
    U, V = fields["U"], fields["V"]
    arrays = {name: fields[name] for name in ("U", "V", "row_bias", "col_bias")}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype not in (
            np.float32,
            np.float64,
            np.complex64,
            np.complex128,
        ):
            raise ValueError(f"{manifest}: {name} is not an array of real or complex numbers")
        if array.dtype != U.dtype or array.ndim != (2 if name in "UV" else 1):
            raise ValueError(f"{manifest}: {name} has shape {array.shape} and dtype {array.dtype}, U has {U.dtype}")
    if U.shape[1] != V.shape[1] or len(fields["row_bias"]) != len(U) or len(fields["col_bias"]) != len(V):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{manifest}: shapes do not fit: {shapes}")
    if not isinstance(fields["mean"], int | float | complex | np.number):
        raise ValueError(f"{manifest}: mean is not a number")
    for name, factors in (("row_labels", U), ("col_labels", V)):
        ids = fields.get(name)
        if ids is not None and (not isinstance(ids, Ids) or len(ids) != len(factors)):
            raise ValueError(f"{manifest}: {name} are not {len(factors)} ids")
    for name in ("history", "selection", "recipe"):
        if not isinstance(fields.get(name, {}), dict):
            raise ValueError(f"{manifest}: {name} is not a dict")
    return Factorization(**fields)
