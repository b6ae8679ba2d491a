"""Files in and out: matrices with ids from tables and matrix files, factors and recommendations to tables.

Tables (CSV, Parquet, Arrow) and frames need the extra `io`; `.npz`, `.npy` and Matrix Market need nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastfactor.io.reading import from_frame, label, read
from fastfactor.io.writing import (
    exclude_from,
    write_factors,
    write_neighbours,
    write_predictions,
    write_recommendations,
    write_svd,
)
from fastfactor.matrix.labelled import Labelled, StoredGrid

if TYPE_CHECKING:
    from fastfactor.io.building import build_grid, open_grid

__all__ = [
    "Labelled",
    "StoredGrid",
    "build_grid",
    "exclude_from",
    "from_frame",
    "label",
    "open_grid",
    "read",
    "write_factors",
    "write_neighbours",
    "write_predictions",
    "write_recommendations",
    "write_svd",
]


def __getattr__(name: str) -> Any:
    if name not in ("build_grid", "open_grid"):  # these need kernels, which take a second to import
        raise AttributeError(f"module 'fastfactor.io' has no attribute {name!r}")
    from fastfactor.io import building

    return getattr(building, name)
