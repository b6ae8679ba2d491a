"""Files in and out: matrices with ids from tables and matrix files, factors and recommendations to tables.

Tables (CSV, Parquet, Arrow) and frames need the extra `io`; `.npz`, `.npy` and Matrix Market need nothing more.
"""

from fastfactor.io.building import build_grid, open_grid
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
