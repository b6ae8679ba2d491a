"""`build_grid` and `open_grid`: a matrix in a folder, by row for `svd` and in blocks for `fit`.

What is larger than memory goes from the source through files without names into the folder, a piece at a time.
"""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.folders import read_folder, replace_content, write_arrays, writing, writing_array
from fastfactor.io.checking import BY_DIAGONAL, as_stored
from fastfactor.io.matrices import DAMAGE, check_archive, read_header
from fastfactor.io.reading import MATRICES, Path_, Reading, read, refuse_complex
from fastfactor.io.spilling import (
    Spilling,
    TripletFiles,
    as_float_file,
    combine_in_files,
    convert_file,
    pieces,
)
from fastfactor.io.tables import collect
from fastfactor.locks import locking
from fastfactor.manifest import GRID, Encoder, StoredArray, refer
from fastfactor.matrix.disk_grid import Plan, describe
from fastfactor.matrix.grid import Making
from fastfactor.matrix.inputs import Observations, as_observations, check_shape, inspect_csr
from fastfactor.matrix.labelled import Labelled, StoredGrid
from fastfactor.matrix.mapped import ArrayFile, Scratch, walk_rows
from fastfactor.matrix.sizes import measure
from fastfactor.matrix.structure import check_indptr
from fastfactor.options import check_memory, check_seed, refuse_beyond

# What building takes: measured from 5 to 100 million entries (docs/out_of_core.md).
_PIECES = 134e6  # 40 bytes for each entry of a piece, and 12 for those that are read meanwhile
_BATCHES = 3e8  # of a table: as Arrow has them, as they are read, and what its allocator keeps
_PER_SIDE = 100  # bytes for each row and column

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

Labels = tuple[Any, Any, int]  # ids of rows, of columns, and how many bad lines there were


def build_grid(
    source: Any,
    folder: Path_,
    *,
    seed: int = 0,
    duplicates: str = "error",
    shape: tuple[int, int] | None = None,
    format: str | None = None,
    columns: Sequence[str | int] | None = None,
    on_bad_line: str = "error",
    delimiter: str | None = None,
    header: bool | None = None,
    integer_ids: bool = False,
    dtype: Any = None,
    max_memory: float | str | None = None,
) -> StoredGrid:
    """Put a matrix into a folder, laid out for sweeps, for fits and decompositions that need little memory.

    Tables (CSV, Parquet, Arrow) and `.npz` files of scipy (CSR and COO) are never in memory as a whole: some 40 bytes
    for each of two million entries are, one batch of the file, the ids, and some 100 bytes for each row and column.
    Other matrix files, and what is handed over in memory, are.

    Parameters
    ----------
    source : path, sequence of paths, or what fit takes
        Files as `read` takes them, or a matrix in memory.
    folder : path
        Made if it does not exist. A grid in it is replaced once the new one is complete; files of other names stay.
    seed : int
        That of the fits: it decides which rows and columns come together. Fits with other seeds lay out a grid of
        their own each time.
    duplicates : {"error", "sum", "mean", "last"}
        What to do with several entries at one place.
    shape : (int, int), optional
        Of triplets in memory.
    format, columns, on_bad_line, delimiter, header, integer_ids, dtype
        As for `read`.
    max_memory : int or str, optional
        Bytes, or text like "400MB", that building may take beyond what the process has, ids not counted. How many rows
        and columns a table has is known once it has been read: it may be refused then, before a grid is laid out.

    Returns
    -------
    StoredGrid
        What `fit` and `svd` take in place of a matrix.

    Raises
    ------
    TypeError, ValueError
        If an argument or the source is bad, as `read` and `fit` say it.
    MemoryError
        If it would take more than `max_memory`; the message says how much.
    BlockingIOError
        If another process writes to the folder.
    OSError
        If the folder cannot be written, or the disk is full; nothing half-written is left.

    Examples
    --------
    >>> import tempfile, numpy as np, fastfactor as ff
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     grid = ff.io.build_grid(np.outer(np.arange(1.0, 9.0), [1.0, 2.0, 3.0]), folder)
    ...     model = ff.fit(grid, rank=1, max_epochs=5, regularization=0.1)
    >>> grid.shape, model.U.shape
    ((8, 3), (8, 1))
    """
    seed, target, limit = check_seed(seed), Path(folder), check_memory(max_memory)
    reading = Reading(
        format=format,
        columns=columns,
        on_bad_line=on_bad_line,
        delimiter=delimiter,
        header=header,
        integer_ids=integer_ids,
        dtype=dtype,
    )
    plan = None
    if _is_path(source):
        if shape is not None:
            raise ValueError(f"shape is for triplets in memory, got {shape!r} beside a file")
        plan = reading.plan(source, mapped=False)
    elif reading.chosen:
        raise ValueError(f"{reading.chosen[0]} is for files, but source is a {type(source).__name__}")
    with writing(target, wait=False):
        if plan is None:
            found = _observe_memory(source, shape, duplicates, limit)
        elif plan.kind not in MATRICES:
            _check_room(limit, (0, 0), _BATCHES)
            make = partial(Spilling, folder=target)
            triplets, ids = collect(plan.sources, plan.columns, plan.faults, make, **plan.options)
            _check_room(limit, triplets.shape, _BATCHES)
            found = _observe_triplets(triplets, duplicates, target), (*ids, plan.faults.n_skipped)
        elif plan.kind == "npz":
            found = _observe_npz(plan.paths[0], plan.options["dtype"], duplicates, target, limit)
        else:
            found = _observe_memory(read(source, format=format, dtype=dtype), None, duplicates, limit)
        _write(target, *found, seed)
    return open_grid(target)


def _check_room(limit: float, shape: tuple[int, int], batches: float = 0.0, matrix: float = 0.0) -> None:
    """Raise a MemoryError if building would take more than `limit` bytes."""
    needed = {
        "pieces of the entries": _PIECES,
        "batches of the table": batches,
        "the matrix": matrix,
        "numbers for each row and column": _PER_SIDE * sum(shape),
    }
    refuse_beyond(limit, needed, what="building this grid")


def open_grid(folder: Path_, *, verify: bool = False) -> StoredGrid:
    """Open what `build_grid` wrote. Its arrays are mapped, read-only.

    Parameters
    ----------
    folder : path
    verify : bool
        Also read every array and compare it with its checksum. Damage inside the entries is noticed this way only.

    Returns
    -------
    StoredGrid

    Raises
    ------
    FileNotFoundError
        If there is no grid, or none yet.
    BlockingIOError
        If another process is writing it.
    ValueError
        If a file is truncated, damaged, of another format or version, or not what the manifest says; the message names
        it.

    Examples
    --------
    >>> import tempfile, numpy as np, fastfactor as ff
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = ff.io.build_grid(np.eye(3) + 1, folder)
    ...     grid = ff.io.open_grid(folder, verify=True)
    >>> grid.shape, grid.n_entries
    ((3, 3), 9)
    """
    target = Path(folder)
    if not target.is_dir():
        raise FileNotFoundError(2, "there is no saved grid: no such folder", str(target))
    with locking(target, wait=False, shared=True):
        fields = read_folder(target, GRID, verify)
    X = as_stored(fields, target)
    return StoredGrid(
        _as_csr(X),
        X.shape,
        fields["row_labels"],
        fields["col_labels"],
        fields["n_skipped"],
        folder=target,
        observations=X,
    )


def _as_csr(X: Observations) -> Any:
    """Return a scipy array over the same memory: its constructor would copy where index types differ."""
    matrix: Any = sp.csr_array(X.shape, dtype=X.data.dtype)
    small = X.n_entries < 1 << 31 and X.indices.dtype == np.int32
    matrix.indptr = X.indptr.astype(np.int32) if small else X.indptr
    matrix.indices, matrix.data = X.indices, X.data
    return matrix


def _is_path(source: Any) -> bool:
    if isinstance(source, str | os.PathLike):
        return True
    return (
        isinstance(source, list | tuple) and len(source) > 0 and all(isinstance(e, str | os.PathLike) for e in source)
    )


def _observe_memory(source: Any, shape: Any, duplicates: str, limit: float) -> tuple[Observations, Labels]:
    size = measure(source, shape) if limit < np.inf else None
    if size is not None:
        _check_room(limit, size.shape, 0.0, size.peak)
    X = as_observations(source, shape=shape, duplicates=duplicates, name="source")
    if isinstance(source, Labelled):
        return X, (source.row_labels, source.col_labels, source.n_skipped)
    return X, (None, None, 0)


def _observe_csr(csr: tuple[Any, Any, Any], shape: tuple[int, int], duplicates: str, folder: Path) -> Observations:
    combine = partial(combine_in_files, folder=folder)
    return inspect_csr(*csr, shape, duplicates, "source", combine)


def _observe_triplets(triplets: TripletFiles, duplicates: str, folder: Path) -> Observations:
    return _observe_csr(triplets.sort(folder), triplets.shape, duplicates, folder)


def _unpack(archive: zipfile.ZipFile, name: str, folder: Path, kinds: str = "biufc") -> ArrayFile:
    """Copy an array of a .npz file, of one of these kinds of numbers, to a file without a name."""
    with archive.open(f"{name}.npy") as stream:
        shape, dtype = read_header(stream)
        if len(shape) != 1 or dtype.kind not in kinds:
            raise ValueError(f"{name}.npy holds {shape} of {dtype}")
        file = Scratch(folder, dtype)
        for start, stop in pieces(shape[0]):
            file.append(np.frombuffer(stream.read((stop - start) * dtype.itemsize), dtype))
    return file


def _unpack_index(archive: zipfile.ZipFile, name: str, folder: Path) -> ArrayFile:
    """Copy an array of positions of a .npz file, in a type that grids have them in."""
    file = _unpack(archive, name, folder, "iu")
    is_short = file.dtype.itemsize < 4 or file.dtype == np.int32
    return convert_file(file, np.dtype(np.int32 if is_short else np.int64), folder)


def _observe_npz(path: Path, dtype: Any, duplicates: str, folder: Path, limit: float) -> tuple[Observations, Labels]:
    """Read a sparse matrix: as CSR or COO piece by piece, in other formats as a whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive)
            kind = archive.read("format.npy")[-3:]
            if kind in (b"csr", b"coo"):
                with archive.open("shape.npy") as stream:
                    shape = check_shape(np.lib.format.read_array(stream, allow_pickle=False), "source")
                _check_room(limit, shape)
                names = ("indptr", "indices") if kind == b"csr" else ("row", "col")
                parts = [_unpack_index(archive, name, folder) for name in names]
                parts.append(_unpack(archive, "data", folder))
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:  # on the disk that is written to
            raise
        raise ValueError(f"{path} is damaged or no sparse matrix of scipy: {error}") from None
    if kind not in (b"csr", b"coo"):
        return _observe_memory(read(path, format="npz", dtype=dtype), None, duplicates, limit)
    refuse_complex(parts[2].dtype, dtype, path)
    if dtype is not None:
        parts[2] = convert_file(parts[2], dtype, folder)
    parts[2] = as_float_file(parts[2], folder)
    if len({parts[1].n, parts[2].n} | ({parts[0].n} if kind == b"coo" else set())) > 1:
        raise ValueError(f"{path} holds {parts[1].n} places and {parts[2].n} values")
    if kind == b"coo":
        triplets = TripletFiles(parts[0], parts[1], parts[2], (None, None), shape)
        return _observe_triplets(triplets, duplicates, folder), (None, None, 0)
    indptr = check_indptr(np.array(parts[0].map()), shape[0], parts[1].n, "source")
    return _observe_csr((indptr, parts[1].map(), parts[2].map()), shape, duplicates, folder), (None, None, 0)


def _write(folder: Path, X: Observations, labels: Labels, seed: int) -> None:
    """Write a matrix and its grid to the folder, which is locked."""
    dtype = np.dtype(np.complex64 if X.data.dtype.kind == "c" else np.float32)
    making = Making(X.mean, X.std or 1.0, dtype, seed)
    plan = Plan.of(X, making)
    deal = plan.deal
    small = {
        "shape": X.shape,
        "mean": X.mean,
        "std": X.std,
        "row_labels": labels[0],
        "col_labels": labels[1],
        "n_skipped": labels[2],
        "made_with": describe(making),
        "indptr": X.indptr,
        "order": BY_DIAGONAL,
        "offsets": plan.offsets,
        "row_order": deal.row_order,
        "row_starts": deal.row_starts,
        "col_order": deal.col_order,
        "col_starts": deal.col_starts,
    }
    encoder = Encoder()
    fields = {name: encoder.encode(value, name) for name, value in small.items()}
    fields |= {name: refer(name) for name in ("indices", "data", "entries")}

    def write_all(stored: dict[str, StoredArray]) -> None:
        write_arrays(folder, encoder, stored)
        for name, array in (("indices", X.indices), ("data", X.data)):
            with writing_array(folder, X.n_entries, array.dtype) as (file, start, entry):
                _copy(X.indptr, array, ArrayFile(file, array.dtype, X.n_entries, start))
            stored[name] = entry[0]
        n_bytes = plan.n_stored * plan.entry_dtype.itemsize
        with writing_array(folder, n_bytes, np.uint8) as (file, start, entry):
            plan.write(X, ArrayFile(file, plan.entry_dtype, plan.n_stored, start), [])
        stored["entries"] = entry[0]

    replace_content(folder, fields, write_all, GRID)


def _copy(indptr: NDArray[np.int64], array: NDArray[Any], file: ArrayFile) -> None:
    for first, last in walk_rows(indptr, (array,)):
        file.write(int(indptr[first]), array[int(indptr[first]) : int(indptr[last])])
