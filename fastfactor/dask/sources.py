"""From what the user has to parts on workers: Dask arrays, Dask DataFrames of triplets, grids in a shared folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.dask.cluster import spread
from fastfactor.dask.parts import Part, make_part
from fastfactor.matrix.inputs import check_shape, is_sparse
from fastfactor.matrix.labelled import StoredGrid
from fastfactor.matrix.structure import as_index, check_structure

Parts = tuple[list[Any], NDArray[np.int64], int, int]


def as_parts(X: Any, client: Any, n_parts: int, shape: Any = None, *, missing_is_zero: bool = False) -> Parts:
    """Return futures of the parts, the first row of each, the number of columns, and that of groups of parts.

    There are as many parts as the largest power of two that is at most `n_parts`, the rows, the columns, and the chunks
    of rows.

    Raises
    ------
    TypeError, ValueError
        If X is nothing of what can be cut, or has no shape.
    """
    if isinstance(X, StoredGrid):
        return _from_grid(X, client, n_parts)
    if hasattr(X, "chunks") and hasattr(X, "to_delayed"):
        if shape is not None and check_shape(shape, "shape") != X.shape:
            raise ValueError(f"shape is {tuple(shape)}, but X has shape {X.shape}")
        return _from_array(X, client, n_parts, missing_is_zero)
    if hasattr(X, "npartitions") and hasattr(X, "to_delayed"):
        return _from_frame(X, client, n_parts, shape)
    raise TypeError(f"X must be a Dask array, a Dask DataFrame or a grid on disk, got {type(X).__name__}")


def _count_parts(*limits: int) -> int:
    return 1 << (min(limits).bit_length() - 1)


def _submit(client: Any, function: Any, arguments: list[tuple[Any, ...]]) -> tuple[list[Any], int]:
    """Return futures of the parts, and how many groups of them there are, each with a worker of its own."""
    workers, n_groups = spread(client, len(arguments))
    parts = [
        client.submit(function, *each, workers=[worker], allow_other_workers=True, pure=False)
        for each, worker in zip(arguments, workers, strict=True)
    ]
    return parts, n_groups


def _from_array(X: Any, client: Any, n_parts: int, missing_is_zero: bool) -> Parts:
    if X.ndim != 2 or any(np.isnan(size) for size in X.shape):
        raise ValueError(f"X must be a 2-D Dask array whose chunks have known sizes, got shape {X.shape}")
    check_shape(X.shape, "X")
    blocks = client.compute(X.to_delayed().ravel().tolist())
    n_across = len(X.chunks[1])
    bands = [blocks[i : i + n_across] for i in range(0, len(blocks), n_across)]
    groups = np.array_split(np.arange(len(bands)), _count_parts(n_parts, len(bands), X.shape[1]))
    heights = np.array(X.chunks[0])
    sizes = [int(heights[group].sum()) for group in groups]
    arguments = [
        (number, [bands[i] for i in group], size, X.shape[1], missing_is_zero)
        for number, (group, size) in enumerate(zip(groups, sizes, strict=True))
    ]
    parts, n_groups = _submit(client, _join_bands, arguments)
    return parts, np.concatenate(([0], np.cumsum(sizes))), int(X.shape[1]), n_groups


def _join_bands(number: int, bands: list[list[Any]], n_rows: int, n_cols: int, missing_is_zero: bool) -> Part:
    rows = []
    for blocks in bands:
        band = [check_structure(block, "X") if is_sparse(block) else block for block in blocks]
        if len(band) == 1:
            rows.append(band[0])
        elif all(is_sparse(block) for block in band):
            rows.append(sp.hstack(band, format="csr"))
        else:
            rows.append(np.hstack([block.toarray() if is_sparse(block) else block for block in band]))
    return make_part(number, rows, n_rows, n_cols, missing_is_zero)


def _from_frame(X: Any, client: Any, n_parts: int, shape: Any) -> Parts:
    if len(X.columns) < 3:
        raise ValueError(f"X must have columns of rows, columns and values, got {list(X.columns)}")
    partitions = client.compute(X.to_delayed())
    if shape is None:
        largest = client.gather([client.submit(_find_largest, each, pure=False) for each in partitions])
        shape = tuple(int(size) + 1 for size in np.max(largest, axis=0))
    shape = check_shape(shape, "shape")
    starts = np.linspace(0, shape[0], _count_parts(n_parts, *shape) + 1).astype(np.int64)
    split = [client.submit(_split_frame, each, starts, shape, pure=False) for each in partitions]
    arguments = [
        (number, split, int(starts[number + 1] - starts[number]), shape[1]) for number in range(len(starts) - 1)
    ]
    parts, n_groups = _submit(client, _join_triplets, arguments)
    return parts, starts, shape[1], n_groups


def _read_places(frame: Any) -> list[NDArray[np.int64]]:
    """Return the rows and columns of a frame's entries.

    Raises
    ------
    TypeError, ValueError
        If they are no positions; see `as_index`.
    """
    names = ("X: rows", "X: columns")
    return [as_index(frame.iloc[:, i], name).astype(np.int64, copy=False) for i, name in enumerate(names)]


def _find_largest(frame: Any) -> tuple[int, int]:
    rows, cols = _read_places(frame)
    return (int(rows.max()), int(cols.max())) if len(rows) else (-1, -1)


def _split_frame(frame: Any, starts: NDArray[np.int64], shape: tuple[int, int]) -> list[tuple[Any, Any, Any]]:
    (rows, cols), values = _read_places(frame), np.asarray(frame.iloc[:, 2])
    for name, index, size in zip(("rows", "columns"), (rows, cols), shape, strict=True):
        if len(index) and (index.min() < 0 or index.max() >= size):
            raise ValueError(f"X: {name} go from {index.min()} to {index.max()}, outside 0..{size - 1}")
    part = np.searchsorted(starts, rows, side="right") - 1
    chosen = [np.flatnonzero(part == number) for number in range(len(starts) - 1)]
    return [(rows[own] - starts[number], cols[own], values[own]) for number, own in enumerate(chosen)]


def _join_triplets(number: int, split: list[list[tuple[Any, Any, Any]]], n_rows: int, n_cols: int) -> Part:
    return make_part(number, [pieces[number] for pieces in split], n_rows, n_cols, False)


def _from_grid(X: StoredGrid, client: Any, n_parts: int) -> Parts:
    n_parts, indptr = _count_parts(n_parts, *X.shape), X.observations.indptr
    turn = np.arange(n_parts + 1)
    starts = np.searchsorted(indptr, np.linspace(0, int(indptr[-1]), n_parts + 1)).astype(np.int64)
    starts[0], starts[-1] = 0, X.shape[0]
    starts = np.maximum.accumulate(starts - turn) + turn  # no part without a row
    starts = np.minimum(starts, X.shape[0] - n_parts + turn)
    folder = Path(X.folder).resolve()
    arguments = [(i, folder, int(starts[i]), int(starts[i + 1])) for i in range(len(starts) - 1)]
    parts, n_groups = _submit(client, _read_rows, arguments)
    return parts, starts, X.shape[1], n_groups


def _read_rows(number: int, folder: Path, start: int, stop: int) -> Part:
    from fastfactor.io import open_grid

    X = open_grid(folder).observations
    indptr = np.array(X.indptr[start : stop + 1])
    part = slice(int(indptr[0]), int(indptr[-1]))
    parts = np.array(X.data[part]), np.array(X.indices[part]), indptr - indptr[0]
    return Part(number, sp.csr_array(parts, shape=(stop - start, X.shape[1])))
