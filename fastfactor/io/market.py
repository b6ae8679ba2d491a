"""Matrix Market files, looked at line by line first: scipy's reader ends the process on files that were cut short."""

from __future__ import annotations

import bz2
import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastfactor.matrix.mapped import refuse_beyond_memory

_CHUNK = 1 << 22  # bytes of text parsed at a time
_MAX_LINE = 1 << 16
_ENTRY = 24  # bytes that an entry takes
_NUMBERS = {"real": 1, "double": 1, "integer": 1, "complex": 2, "pattern": 0}  # in the value of an entry
_KNOWN = np.zeros(256, np.bool_)  # bytes that numbers, and what is between them, are written with
_KNOWN[list(b"0123456789+-.eEdDnaifNAIFtyTY \t\r\n")] = True
_SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")


@dataclass(frozen=True)
class _Header:
    """What a file says of itself: `n` lines follow, of `width` numbers each."""

    n: int
    width: int


def read_market(path: Path) -> Any:
    """Return the matrix of a Matrix Market file, perhaps packed (.gz, .bz2): a COO array, or a dense one.

    Raises
    ------
    ValueError
        If the file is no such file, damaged, or holds less or more than it says.
    MemoryError
        If the matrix takes more memory than there is.
    """
    from scipy.io import mmread  # registers a thread pool of its own, so only where it is needed

    opener: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    with opener(path, "rb") as file:
        header = _read_header(file)
        if opener is open and header.n > os.path.getsize(path):
            raise ValueError(f"it says that {header.n} lines follow, in {os.path.getsize(path)} bytes")
        refuse_beyond_memory(path, header.n * _ENTRY)
        n_lines = sum(_count_lines(text, header.width) for text in _cut(file))
    if n_lines != header.n:
        raise ValueError(f"it says that {header.n} lines follow, there are {n_lines}")
    return mmread(path, spmatrix=False)


def _read_header(file: Any) -> _Header:
    words = file.readline(_MAX_LINE).decode("ascii").lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        raise ValueError("it does not begin with %%MatrixMarket matrix")
    layout, field, symmetry = words[2:]
    if layout not in ("coordinate", "array") or field not in _NUMBERS or symmetry not in _SYMMETRIES:
        raise ValueError(f"a matrix of kind {' '.join(words[2:])} is not known")
    is_sparse = layout == "coordinate"
    line = b"%"
    while line.startswith(b"%") or (line and not line.strip()):
        line = file.readline(_MAX_LINE)
    sizes = [int(word) for word in line.decode("ascii").split()]
    if len(sizes) != (3 if is_sparse else 2) or min(sizes) < 0 or max(sizes) >= 1 << 62:
        raise ValueError(f"its sizes are {sizes}")
    n_rows, n_cols = sizes[:2]
    if symmetry != "general" and n_rows != n_cols:
        raise ValueError(f"it is {symmetry}, of shape {(n_rows, n_cols)}")
    if field == "pattern" and not is_sparse:
        raise ValueError("an array has values")
    if is_sparse:
        return _Header(sizes[2], _NUMBERS[field] + 2)
    return _Header(n_rows * n_cols if symmetry == "general" else _count_triangle(n_rows, symmetry), _NUMBERS[field])


def _count_triangle(n: int, symmetry: str) -> int:
    """Return how many numbers of a symmetric array are written: the lower triangle, without a diagonal of zeros."""
    return n * (n - 1) // 2 if symmetry == "skew-symmetric" else n * (n + 1) // 2


def _cut(file: Any) -> Iterator[bytes]:
    """Yield the text in pieces of whole lines."""
    rest = b""
    while block := file.read(_CHUNK):
        text, newline, rest = (rest + block).rpartition(b"\n")
        if len(rest) > _MAX_LINE:
            raise ValueError("one of its lines is too long")
        yield text + newline
    if rest.strip():
        if not rest.rstrip()[-1:].isdigit():
            raise ValueError("its last line ends within a number: it is cut short")
        yield rest + b"\n"


def _count_lines(text: bytes, width: int) -> int:
    """Return how many lines hold something, having looked at each: `width` words, of letters that numbers have."""
    codes = np.frombuffer(text, np.uint8)
    if not _KNOWN[codes].all():
        raise ValueError("it holds bytes that are no part of a number")
    is_mark = codes > 32
    begins = np.flatnonzero(is_mark[1:] & ~is_mark[:-1]) + 1
    first = np.count_nonzero(is_mark[:1])
    counts = np.diff(np.searchsorted(begins, np.flatnonzero(codes == 10)) + first, prepend=0)
    bad = counts[(counts != 0) & (counts != width)]
    if bad.size:
        raise ValueError(f"a line has {bad[0]} numbers where {width} are expected")
    return int(np.count_nonzero(counts))
