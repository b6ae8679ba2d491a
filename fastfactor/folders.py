"""Folders that hold a JSON manifest and plain .npy arrays: written as a whole or not at all, read with mistrust.

Arrays lie in files named by their content. The manifest is written last, by an atomic replace: whoever opens the folder
finds what was there before or what is new. `docs/storage.md` states the format.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import tokenize
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.locks import locking, making
from fastfactor.manifest import (
    CONTENT,
    MANIFEST,
    Encoder,
    Kind,
    StoredArray,
    decode,
    dump_manifest,
    parse_manifest,
    read_manifest,
)

_TEMPORARY = ".fastfactor-"
_CHUNK = 1 << 22  # bytes hashed at a time
_MAX_HEADER = 1 << 16  # bytes of a .npy header
_RETRIES = 20  # of a reader that met writers


@contextlib.contextmanager
def writing(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Make the folder if there is none, and hold off other writers; what was made goes away when the block fails.

    Raises
    ------
    BlockingIOError
        If another process writes to the folder, and `wait` is False.
    """
    with making(folder), locking(folder, wait=wait):
        yield


def write_values(folder: Path, values: Mapping[str, Any], kind: Kind) -> None:
    """Write plain values and arrays to a folder, which holds these or, if anything fails, what it held before.

    Raises
    ------
    TypeError
        If the format has no place for a value.
    OSError
        If the folder cannot be written, or the disk is full; nothing half-written is left.
    """
    encoder = Encoder()
    fields = {name: encoder.encode(value, name) for name, value in values.items()}
    with writing(folder):
        replace_content(folder, fields, lambda stored: write_arrays(folder, encoder, stored), kind)


def write_arrays(folder: Path, encoder: Encoder, stored: dict[str, StoredArray]) -> None:
    """Write the arrays that an encoder set aside, and enter each into `stored`."""
    for name, array in encoder.arrays.items():
        stored[name] = write_array(folder, array)


def replace_content(
    folder: Path, fields: Mapping[str, Any], write: Callable[[dict[str, StoredArray]], None], kind: Kind
) -> None:
    """Write arrays and then the manifest that names them; on failure leave what was there, and nothing else.

    Parameters
    ----------
    folder : Path
        Inside `writing`.
    fields : mapping
        What `Encoder.encode` made.
    write : callable
        Writes the arrays, and enters each into the dict that it is given.
    kind : Kind
    """
    present = {name for name in os.listdir(folder) if CONTENT.fullmatch(name)}
    stored: dict[str, StoredArray] = {}
    manifest = b""
    try:
        write(stored)
        manifest = dump_manifest(fields, stored, kind)
        _replace_file(folder, MANIFEST, manifest)
    finally:
        # Ctrl-C may come when the manifest has just been replaced: only the folder knows.
        replaced = bool(manifest) and (folder / MANIFEST).exists() and (folder / MANIFEST).read_bytes() == manifest
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


def write_array(folder: Path, array: NDArray[Any]) -> StoredArray:
    """Write an array to a file that is named by its content."""
    with _temporary(folder) as (file, temporary):
        hashing = _HashingFile(file)
        np.lib.format.write_array(hashing, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
        entry = StoredArray.of(hashing.digest.hexdigest(), file.tell(), array.shape, array.dtype)
        _settle(file)
        os.replace(temporary, folder / entry.file)
    return entry


@contextlib.contextmanager
def writing_array(folder: Path, n: int, dtype: Any) -> Iterator[tuple[Any, int, list[StoredArray]]]:
    """Let a 1-D array of known length be written in any order.

    Yields the file (unbuffered), where in it the array starts, and a list that holds the array's description when the
    block has ended.
    """
    entry: list[StoredArray] = []
    dtype = np.dtype(dtype)
    with _temporary(folder) as (file, temporary):
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        start = file.tell()
        with open(temporary, "r+b", buffering=0) as raw:
            yield raw, start, entry
            digest = _compute_digest(raw)
            os.fsync(raw.fileno())
        entry.append(StoredArray.of(digest, os.path.getsize(temporary), (n,), dtype))
        os.replace(temporary, folder / entry[0].file)


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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[str]:
    """Give the name of a file to write, which takes the place of `path` when all went well."""
    if not path.parent.is_dir():
        raise FileNotFoundError(2, os.strerror(2), str(path.parent))  # which the name of a temporary file would hide
    with _temporary(path.parent) as (file, name):
        file.close()  # others open it by its name
        yield name
        os.replace(name, path)


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


def read_folder(folder: Path, kind: Kind, verify: bool) -> dict[str, Any]:
    """Return the decoded fields of a folder, arrays mapped read-only.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is none; if a file is truncated, damaged, or not what the manifest says. The message names it.
    """
    manifest = folder / MANIFEST
    for _ in range(_RETRIES):
        before = _identify(manifest)
        fields, stored = parse_manifest(read_manifest(manifest, kind), manifest, kind)
        try:
            arrays = {name: _open_array(folder, entry, verify) for name, entry in stored.items()}
            break
        except FileNotFoundError as error:  # a writer may have replaced all of it in between
            if before is not None and _identify(manifest) == before:
                raise ValueError(f"{error.filename} is missing, but {manifest} names it") from None
    else:
        raise ValueError(f"{folder} was written anew {_RETRIES} times while it was being read")
    return {name: decode(value, arrays, manifest) for name, value in fields.items()}


def _identify(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is replaced, by one of the same content too."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


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
        except (ValueError, OverflowError, SyntaxError, tokenize.TokenError) as error:
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
