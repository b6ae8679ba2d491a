"""Arrays that lie in files: read piece by piece, pages dropped behind, so that what is resident stays small.

Dropping a page takes it out of this process's memory. The system may keep it in its cache as long as nobody else needs
the room, so that the next pass need not go to the disk again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 22  # entries read at a time; fixed, since sums are kept per piece
PIECES_AHEAD = 1  # pieces that are read while one is worked on
LARGE_PAGE = 1 << 21  # bytes
_STEP = 1 << 20  # entries that are waited for in one call
_CAN_ADVISE = hasattr(mmap.mmap, "madvise") and hasattr(mmap, "MADV_DONTNEED")


def available_memory() -> float:
    """Return how many bytes of memory the system could hand out now; infinity where it does not say."""
    try:
        with open("/proc/meminfo") as lines:
            amounts = dict(line.split(":", 1) for line in lines)
        return float(amounts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return float("inf")


def refuse_beyond_memory(path: Path, needed: int) -> None:
    """Raise MemoryError if what a file holds takes more bytes than the system could hand out."""
    if needed > available_memory():
        there = available_memory() / 1e9
        raise MemoryError(f"{path} needs {needed / 1e9:.1f} GB of memory, {there:.1f} GB are available")


class _Pages:
    """A part of a file mapping that NumPy takes for writable.

    Kernels compile once more for arrays that are read-only, and nothing here writes: the pages themselves are
    read-only, whatever the array says.
    """

    def __init__(self, mapping: mmap.mmap, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.mapping = mapping
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (address, False)}


def find_mapping(array: NDArray[Any]) -> tuple[mmap.mmap, int] | None:
    """Return the file mapping that a contiguous array lies in, and the byte in it where the array starts; else None.

    A mapping that keeps changes to itself (mode "c" of `np.memmap`) counts as memory: with its pages they would go.
    """
    base: Any = array
    while type(base) is np.ndarray:
        base = base.base
    if isinstance(base, np.memmap):
        mapping = None if base.mode == "c" else base._mmap  # type: ignore[attr-defined]
    else:
        mapping = base.mapping if isinstance(base, _Pages) else None
    if mapping is None or not array.flags.c_contiguous:
        return None
    return mapping, array.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data


def is_mapped(*arrays: NDArray[Any]) -> bool:
    """Whether some of the arrays lie in files."""
    return any(find_mapping(array) is not None for array in arrays)


def as_pages(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same array, of the type that kernels are compiled for even where it is mapped read-only."""
    found = find_mapping(array)
    if found is None or not array.size or array.flags.writeable:
        return array
    return np.asarray(_Pages(found[0], array.ctypes.data, array.shape, array.dtype))


def _advise(array: NDArray[Any], start: int, stop: int, advice: int) -> None:
    found = find_mapping(array)
    if found is None or stop <= start:
        return
    mapping, offset = found
    row = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    begin = (offset + start * row) // mmap.PAGESIZE * mmap.PAGESIZE
    mapping.madvise(advice, begin, offset + stop * row - begin)


def drop_pages(array: NDArray[Any], start: int = 0, stop: int | None = None) -> None:
    """Take the pages of array[start:stop] out of memory, where it lies in a file."""
    if _CAN_ADVISE:
        _advise(array, start, len(array) if stop is None else stop, mmap.MADV_DONTNEED)


def use_large_pages(array: NDArray[Any]) -> None:
    """Have the array read and mapped in pages of 2 MiB, where it lies in a file and the system can do that.

    A disk's own speed then takes a tenth of the processor time that it takes with pages of 4 KiB (docs/performance.md).
    """
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # the system was built without them
            _advise(array, 0, len(array), mmap.MADV_HUGEPAGE)


def touch_pages(array: NDArray[Any], start: int, stop: int) -> None:
    """Wait until the pages of array[start:stop] are in memory, where it lies in a file.

    Where everything is read in order, the system then reads ahead in large parts: at half the work that it has with
    pages that it was asked for, which it finds one by one (docs/performance.md).
    """
    if stop > start and is_mapped(array):
        array[start:stop].view(np.uint8)[:: mmap.PAGESIZE].max()


def cut_rows(indptr: NDArray[Any], arrays: Sequence[NDArray[Any]]) -> list[tuple[int, int]]:
    """Return ranges of rows of about `PIECE` entries where the arrays lie in a file; all rows in one elsewhere."""
    n_rows, n = len(indptr) - 1, int(indptr[-1])
    if not is_mapped(*arrays):
        return [(0, n_rows)]
    ends = np.searchsorted(indptr, np.arange(PIECE, n, PIECE), side="left")
    edges = np.unique(np.concatenate(([0], ends, [n_rows])))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def walk_rows(indptr: NDArray[Any], arrays: Sequence[NDArray[Any]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of `cut_rows` in order; have the next ones' entries read meanwhile, and drop the last one's.

    To have pages read takes about as long as a pass over them: a thread of its own does it.
    """
    ranges = cut_rows(indptr, arrays)
    if not is_mapped(*arrays):
        yield from ranges
        return
    entries = [(int(indptr[start]), int(indptr[stop])) for start, stop in ranges]

    def read(start: int, stop: int) -> None:
        for first in range(start, stop, _STEP):
            for array in arrays:
                touch_pages(array, first, min(first + _STEP, stop))

    with ThreadPoolExecutor(1) as reader:
        reads = [reader.submit(read, *part) for part in entries[:PIECES_AHEAD]]
        for i, part in enumerate(entries):
            reads += [reader.submit(read, *part) for part in entries[i + PIECES_AHEAD : i + PIECES_AHEAD + 1]]
            yield ranges[i]
            if not reads[i].cancel():
                reads[i].result()  # pages that are touched after they were dropped would stay
            for array in arrays:
                drop_pages(array, *part)


class ArrayFile:
    """A 1-D array in a file, written piece by piece at any place, then mapped.

    Parameters
    ----------
    file : file
        Unbuffered, for writing and reading.
    dtype : dtype
    n : int
        Length.
    start : int
        Bytes before the array.
    """

    def __init__(self, file: Any, dtype: Any, n: int, start: int = 0) -> None:
        self.file, self.dtype, self.n, self.start = file, np.dtype(dtype), n, start

    def write(self, place: int, values: NDArray[Any]) -> None:
        """Write values from position `place` on.

        Raises
        ------
        OSError
            If the disk is full.
        """
        block = np.ascontiguousarray(values, self.dtype).view(np.uint8).data
        self.file.seek(self.start + place * self.dtype.itemsize)
        while len(block):
            block = block[self.file.write(block) :]

    def read(self, place: int, n: int) -> NDArray[Any]:
        """Return a copy of `n` values from position `place` on.

        Raises
        ------
        EOFError
            If the file ends before.
        """
        values = np.empty(n, self.dtype)
        block = values.view(np.uint8).data
        self.file.seek(self.start + place * self.dtype.itemsize)
        while len(block):  # the system reads no more than 2 GiB in one call
            n_read = self.file.readinto(block)
            if not n_read:
                raise EOFError(f"the file ends {len(block)} bytes before its array does")
            block = block[n_read:]
        return values

    def map(self) -> NDArray[Any]:
        """Return the array, mapped; it stays readable when the file has lost its name."""
        if self.n == 0:
            return np.empty(0, self.dtype)
        size = self.start + self.n * self.dtype.itemsize
        mapping = mmap.mmap(self.file.fileno(), size, access=mmap.ACCESS_READ)
        address = np.frombuffer(mapping, np.uint8).ctypes.data + self.start
        raw = np.asarray(_Pages(mapping, address, (size - self.start,), np.dtype(np.uint8)))
        return raw.view(self.dtype)


class Scratch(ArrayFile):
    """An array in a file without a name, which goes when nobody uses it any more, or the process ends in whatever way.

    Parameters
    ----------
    folder : Path
    dtype : dtype
    n : int
        Length; room for it is taken at once, where the system can do that, so that a full disk shows now.

    Raises
    ------
    OSError
        If the folder cannot be written, or has no room.
    """

    def __init__(self, folder: Path, dtype: Any, n: int = 0) -> None:
        file = tempfile.TemporaryFile(dir=folder, prefix=".fastfactor-", buffering=0)  # noqa: SIM115 (closed in __del__)
        super().__init__(file, dtype, n)
        n_bytes = n * self.dtype.itemsize
        if n_bytes and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self.file.fileno(), 0, n_bytes)
            except OSError as error:
                raise OSError(error.errno, f"no room for {n_bytes} bytes: {error.strerror}", str(folder)) from None

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def append(self, values: NDArray[Any]) -> None:
        """Write values after the last."""
        self.write(self.n, values)
        self.n += len(values)
