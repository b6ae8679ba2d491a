"""Matrix files; what they claim is compared with their size before memory is taken."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastfactor.io.market import read_market
from fastfactor.matrix.labelled import Labelled
from fastfactor.matrix.mapped import refuse_beyond_memory

# What a damaged file of these formats can end in, in the readers of scipy, NumPy and Python.
DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OSError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    SyntaxError,
)
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of the array that a .npy stream holds.

    Raises
    ------
    ValueError
        If it is none, or one of Python objects.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _READ_HEADER:
        raise ValueError(f"version {version} of .npy is not known")
    shape, _, dtype = _READ_HEADER[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    return shape, dtype


def check_archive(archive: zipfile.ZipFile) -> int:
    """Return how many bytes the arrays of a .npz file take, having compared what each claims with what is there.

    Raises
    ------
    ValueError
        If an array claims another size than its part of the archive has, or holds Python objects.
    """
    total = 0
    for info in archive.infolist():
        if info.filename.endswith(".npy"):
            with archive.open(info) as stream:
                shape, dtype = read_header(stream)
                claimed = stream.tell() + math.prod(shape) * dtype.itemsize
            if claimed != info.file_size:
                raise ValueError(f"{info.filename} has {info.file_size} bytes, but says that it has {claimed}")
            total += info.file_size
    return total


def read_matrix(path: Path, kind: str) -> Labelled:
    """Read a matrix of a format in "npz", "npy", "mtx".

    Raises
    ------
    ValueError
        If the file is damaged, or holds no matrix; the message names it.
    MemoryError
        If what it holds takes more memory than there is.
    """
    try:
        matrix = {"npz": _read_npz, "npy": _read_npy, "mtx": read_market}[kind](path)
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged or no {kind} file: {error}") from None
    if matrix.ndim != 2:
        raise ValueError(f"{path} holds an array of shape {matrix.shape}, not a matrix")
    return Labelled(matrix, matrix.shape)


def _read_npz(path: Path) -> Any:
    with open(path, "rb") as file:
        with zipfile.ZipFile(file) as archive:
            refuse_beyond_memory(path, check_archive(archive))
        file.seek(0)
        return sp.load_npz(file)


def _read_npy(path: Path) -> Any:
    return np.lib.format.open_memmap(path, mode="r")
