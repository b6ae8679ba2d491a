"""Whether what a grid's folder holds can be a grid: kernels follow positions blindly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.ids import Ids
from fastfactor.kernels.sweep import AHEAD, Blocks
from fastfactor.manifest import MANIFEST
from fastfactor.matrix.disk_grid import DiskGrid, Stored, number_blocks, place_blocks
from fastfactor.matrix.grid import Deal, Held
from fastfactor.matrix.inputs import check_shape
from fastfactor.matrix.mapped import as_pages

# Of the blocks in the file. Those of version 1 say nothing: there they have the order of their numbers.
BY_DIAGONAL, BY_NUMBER = "by diagonal", "by number"
_FIELDS = {
    "shape": tuple,
    "mean": int | float | complex,
    "std": int | float,
    "n_skipped": int,
    "made_with": dict,
    "row_labels": Ids | None,
    "col_labels": Ids | None,
}
_ARRAYS = {
    "indptr": ("int64",),
    "indices": ("int32", "int64"),
    "data": ("float32", "float64", "complex64", "complex128"),
    "offsets": ("uint64",),
    "row_order": ("int64",),
    "row_starts": ("int64",),
    "col_order": ("int64",),
    "col_starts": ("int64",),
    "entries": ("uint8",),
}


def as_stored(fields: Mapping[str, Any], folder: Path) -> Stored:
    """Return the entries that a folder holds, and their grid.

    Raises
    ------
    ValueError
        If something is missing, or the parts do not fit together; the message names the manifest.
    """
    manifest = folder / MANIFEST
    try:
        _check_types(fields)
        shape = check_shape(fields["shape"], "shape")
        arrays = {name: as_pages(fields[name]) for name in _ARRAYS}
        n = len(arrays["indices"])
        if len(arrays["data"]) != n:
            raise ValueError(f"{n} places and {len(arrays['data'])} values")
        _check_ascent(arrays["indptr"], shape[0] + 1, n, "indptr")
        deal = Deal(*(arrays[name] for name in ("row_order", "row_starts", "col_order", "col_starts")))
        _check_deal(deal, shape)
        _check_ascent(arrays["offsets"], deal.n_stripes**2 + 1, n, "offsets")
        order = _find_order(fields.get("order", BY_NUMBER), deal.n_stripes)
        for labels, size in zip((fields["row_labels"], fields["col_labels"]), shape, strict=True):
            if labels is not None and len(labels) != size:
                raise ValueError(f"{len(labels)} ids for a side of {size}")
        made_with = fields["made_with"]
        entry_dtype = deal.entry_dtype(np.dtype(str(made_with["dtype"])), weighted=False)
        if len(arrays["entries"]) != (n + int(AHEAD)) * entry_dtype.itemsize:
            raise ValueError(f"{len(arrays['entries'])} bytes for {n} entries of {entry_dtype.itemsize} bytes")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{manifest} describes no grid: {error}") from None
    entries = arrays["entries"].view(entry_dtype)
    blocks = Blocks(entries, *place_blocks(arrays["offsets"], order), deal.row_starts, deal.col_starts)
    none = np.empty(0, np.int64)
    grid = DiskGrid(blocks, deal.row_order, deal.col_order, Held(none, none, np.empty(0, entries["value"].dtype)), n)
    indptr, indices, data = (arrays[name] for name in ("indptr", "indices", "data"))
    return Stored(shape, indptr, indices, data, fields["mean"], fields["std"], folder, grid, dict(made_with))


def _find_order(name: Any, n_stripes: int) -> NDArray[np.int64]:
    """Return the numbers of the blocks in the order in which they lie in the file."""
    if name not in (BY_DIAGONAL, BY_NUMBER):
        raise ValueError(f"its blocks are in an unknown order, {name!r}")
    return number_blocks(n_stripes).ravel() if name == BY_DIAGONAL else np.arange(n_stripes**2)


def _check_types(fields: Mapping[str, Any]) -> None:
    missing = sorted((_FIELDS.keys() | _ARRAYS.keys()) - fields.keys())
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, kind in _FIELDS.items():
        if not isinstance(fields[name], kind):
            raise ValueError(f"{name} is a {type(fields[name]).__name__}")
    for name, dtypes in _ARRAYS.items():
        array = fields[name]
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.name not in dtypes:
            raise ValueError(f"{name} is not a 1-D array of {' or '.join(dtypes)}")


def _check_ascent(starts: NDArray[Any], size: int, last: int, name: str) -> None:
    if len(starts) != size or starts[0] != 0 or starts[-1] != last or (starts[1:] < starts[:-1]).any():
        raise ValueError(f"{name} does not ascend from 0 to {last} in {size} steps")


def _check_deal(deal: Deal, shape: tuple[int, int]) -> None:
    sides = ((deal.row_order, deal.row_starts, "row"), (deal.col_order, deal.col_starts, "column"))
    for (order, starts, name), size in zip(sides, shape, strict=True):
        inside = len(order) == size and order.min() >= 0 and order.max() < size
        if not inside or np.bincount(order, minlength=size).max() > 1:
            raise ValueError(f"the order of its {name}s does not hold each of {size} once")
        _check_ascent(starts, deal.n_stripes + 1, size, f"{name} starts")
