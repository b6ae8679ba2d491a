"""From batches of a table to CSR arrays in files: what `collecting` does in memory, in bounded memory.

Triplets go to files as they arrive. A stable sort by row then takes two steps: each entry to the bucket of its rows,
each bucket to its place. A bucket fits into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.ids import Ids
from fastfactor.io.arrow import from_arrow, load_pyarrow
from fastfactor.io.collecting import Collector, Faults
from fastfactor.kernels.layout import sort_by_row
from fastfactor.matrix.inputs import choose_float, combine_rows
from fastfactor.matrix.mapped import ArrayFile, Scratch, walk_rows

PIECE = 1 << 21  # entries handled at a time: about 40 bytes of memory each

Csr = tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]


def pieces(n: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of pieces of `n` entries."""
    return ((start, min(start + PIECE, n)) for start in range(0, n, PIECE))


def convert_file(file: ArrayFile, dtype: Any, folder: Path) -> ArrayFile:
    """Return the same numbers in a file of another type."""
    if file.dtype == dtype:
        return file
    converted = Scratch(folder, dtype, file.n)
    for start, stop in pieces(file.n):
        converted.write(start, file.read(start, stop - start).astype(dtype))
    return converted


def as_float_file(file: ArrayFile, folder: Path) -> ArrayFile:
    """Return the values of a file in the type that `as_values` has for them."""
    low = high = 0
    if file.dtype.kind in "iu" and file.dtype.itemsize > 2:
        bounds = [(part.min(), part.max()) for part in (file.read(a, b - a) for a, b in pieces(file.n))]
        low, high = min(int(pair[0]) for pair in bounds), max(int(pair[1]) for pair in bounds)
    return convert_file(file, np.dtype(choose_float(file.dtype, low, high)), folder)


@dataclass(frozen=True)
class TripletFiles:
    """Triplets in files.

    Attributes
    ----------
    rows, cols, values : ArrayFile
    places : pair of arrays or None
        What the numbers in `rows` and `cols` stand for; None: for themselves.
    shape : (int, int)
    """

    rows: ArrayFile
    cols: ArrayFile
    values: ArrayFile
    places: tuple[NDArray[Any] | None, NDArray[Any] | None]
    shape: tuple[int, int]

    def read(self) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Yield rows, columns and values, piece by piece.

        Raises
        ------
        ValueError
            If a row or a column is outside the shape.
        """
        for start, stop in pieces(self.values.n):
            found = []
            sides = zip((self.rows, self.cols), self.places, self.shape, ("rows", "cols"), strict=True)
            for file, place, size, name in sides:
                index = file.read(start, stop - start)
                index = index if place is None else place[index]
                bad = np.flatnonzero((index < 0) | (index >= size))
                if bad.size:
                    raise ValueError(f"{name}[{start + bad[0]}] is {index[bad[0]]}, outside 0..{size - 1}")
                found.append(index)
            yield found[0], found[1], self.values.read(start, stop - start)

    def sort(self, folder: Path) -> Csr:
        """Return CSR arrays, mapped from files: rows in order, entries of a row in the order in which they came."""
        n, counts = self.values.n, np.zeros(self.shape[0], np.int64)
        for rows, _, _ in self.read():
            counts += np.bincount(rows, minlength=self.shape[0])
        indptr = np.concatenate(([0], np.cumsum(counts)))
        edges = np.unique(np.searchsorted(indptr, np.arange(0, n, PIECE)))
        edges = np.unique(np.concatenate(([0], edges, [self.shape[0]])))
        files = [Scratch(folder, dtype, n) for dtype in (self.rows.dtype, self.cols.dtype, self.values.dtype)]
        cursor = indptr[edges[:-1]].copy()
        for triplets in self.read():
            bucket = (np.searchsorted(edges, triplets[0], side="right") - 1).astype(np.uint16)
            order = np.argsort(bucket, kind="stable")
            shares = np.bincount(bucket, minlength=len(cursor))
            stops = np.cumsum(shares)
            for file, part in zip(files, triplets, strict=True):
                arranged = part[order]
                for b in np.flatnonzero(shares):
                    file.write(int(cursor[b]), arranged[stops[b] - shares[b] : stops[b]])
            cursor += shares
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            start, size = int(indptr[first]), int(indptr[last] - indptr[first])
            rows, cols, values = (file.read(start, size) for file in files)
            local, order = np.zeros(last - first + 1, np.int64), np.empty(size, np.int64)
            sort_by_row(rows - first, local, order)
            files[1].write(start, cols[order])
            files[2].write(start, values[order])
        return indptr, files[1].map(), files[2].map()


def combine_in_files(
    indptr: NDArray[np.int64], cols: NDArray[Any], values: NDArray[Any], how: str, folder: Path
) -> Csr:
    """Do what `combine_rows` does, for arrays that are mapped, into files."""
    counts: list[NDArray[np.int64]] = []
    files = [Scratch(folder, array.dtype) for array in (cols, values)]
    for start, stop in walk_rows(indptr, (cols, values)):
        part = slice(int(indptr[start]), int(indptr[stop]))
        combined = combine_rows(indptr[start : stop + 1] - part.start, cols[part], values[part], how)
        counts.append(np.diff(combined[0]))
        for file, array in zip(files, combined[1:], strict=True):
            file.append(array)
    return np.concatenate(([0], np.cumsum(np.concatenate(counts)))), files[0].map(), files[1].map()


class Spilling(Collector):
    """A `Collector` that writes to files what it has collected, every so often."""

    def __init__(self, names: tuple[str, str], faults: Faults, folder: Path, capacity: int, **options: Any) -> None:
        super().__init__(names, faults, capacity=min(capacity, 2 * PIECE), **options)
        self.folder, self.spilled_values = folder, Scratch(folder, np.float32)
        self.spilled = [Scratch(folder, np.int32) for _ in self.sides]
        self.used = [np.zeros(0, np.bool_) for _ in self.sides]

    def add(self, ids: tuple[Any, Any], values: NDArray[Any] | None, locate: Any) -> None:
        """Append a batch; see `Collector.add`."""
        super().add(ids, values, locate)
        if self.values is not None and self.values.n >= PIECE:
            self.spill()

    def spill(self) -> None:
        """Write what is in memory to the files, and forget it."""
        assert self.values is not None
        for i, side in enumerate(self.sides):
            side.merge()
            used = np.zeros(len(side.known), np.bool_)
            used[: len(self.used[i])] = self.used[i]
            used[side.codes.filled] = True
            self.used[i] = used
            self.spilled[i].append(side.codes.filled)
            side.codes.n = 0
        if self.values.array.dtype != self.spilled_values.dtype:  # wider than before
            converted = Scratch(self.folder, self.values.array.dtype)
            for start, stop in pieces(self.spilled_values.n):
                converted.append(self.spilled_values.read(start, stop - start).astype(converted.dtype))
            self.spilled_values = converted
        self.spilled_values.append(self.values.filled)
        self.values.n = 0

    def finish(self) -> Any:
        """Return the triplets in files, and the ids of rows and of columns; those that no entry has are left out."""
        if self.values is None or not self.values.n + self.spilled_values.n:
            raise ValueError(f"{self.faults.source} holds no entry")
        self.spill()
        places: list[NDArray[Any] | None] = []
        labels: list[Ids] = []
        for side, used in zip(self.sides, self.used, strict=True):
            places.append(None if used.all() else np.cumsum(used, dtype=np.int32) - np.int32(1))
            known = side.known if used.all() else side.known.take(load_pyarrow().array(np.flatnonzero(used)))
            labels.append(from_arrow(known))
        shape = len(labels[0]), len(labels[1])
        values = as_float_file(self.spilled_values, self.folder)
        return TripletFiles(self.spilled[0], self.spilled[1], values, (places[0], places[1]), shape), labels
