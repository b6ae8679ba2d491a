"""The best columns for each row, and the most similar rows: exact, in parallel, in bounded memory (solvers/top.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from fastfactor.kernels.topn import Seen
from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.labelled import Labelled, mark_stored
from fastfactor.matrix.structure import check_structure
from fastfactor.options import MOST_COLUMNS, check_integer
from fastfactor.solvers.top import Ranked, select_top

if TYPE_CHECKING:
    from fastfactor.model import Factorization

Array = NDArray[Any]


def recommend(
    model: Factorization, rows: ArrayLike, n: int = 10, exclude: Any = None, n_threads: int | None = None
) -> Ranked:
    """Return the n columns of highest prediction for each row, best first; see `Factorization.recommend`."""
    positions, n = model._positions(rows, 0, "rows"), check_integer(n, "n", 1, MOST_COLUMNS)
    if model.U.dtype.kind == "c":
        raise TypeError(f"the predictions of a model of dtype {model.U.dtype} are complex and have no order")
    if isinstance(exclude, Labelled):
        _check_ids(exclude, model)
        exclude = mark_stored(exclude, model.shape)
    seen = _as_seen(exclude, positions, model.shape)
    left, right = model.U, model.V
    if model.col_bias.any():
        right = np.column_stack([right, model.col_bias])
    cols, scores = select_top(left, right, positions, seen, n, n_threads)
    scores += (model.row_bias[positions] + model.mean)[:, None]
    there = cols >= 0
    with np.errstate(over="ignore"):
        scores[there] = model._link(scores[there])
    return cols, scores


def find_similar(M: Array, positions: NDArray[np.int64], n: int, n_threads: int | None = None) -> Ranked:
    """Return the n rows of M of highest cosine with each of the given ones, themselves left out.

    For complex M it is the real part of the inner product that is compared; rows of zeros have cosine 0 with all.
    """
    n = check_integer(n, "n", 1, MOST_COLUMNS)
    units = _as_units(M)
    own = np.arange(len(positions) + 1, dtype=np.int64)
    cols, scores = select_top(units, units, positions, Seen(positions, own[:-1], own[1:]), n, n_threads)
    return cols, np.clip(scores, -1, 1)


def _as_units(M: Array) -> Array:
    """Return the rows of M, complex numbers as pairs of real ones, scaled to length 1."""
    real = np.ascontiguousarray(M).view(M.real.dtype)
    largest = np.abs(real).max(axis=1, keepdims=True, initial=0)
    units: Array = real / np.where(largest > 0, largest, 1)  # so that squares neither overflow nor vanish
    lengths = np.sqrt(np.einsum("rq,rq->r", units, units))[:, None]
    units /= np.where(lengths > 0, lengths, 1)
    return units


def _check_ids(exclude: Labelled, model: Factorization) -> None:
    """Refuse what was read with ids that stand at other positions than the model's."""
    for side in ("row", "col"):
        theirs, own = getattr(exclude, f"{side}_labels"), getattr(model, f"{side}_labels")
        if theirs is not None and own is not None and not (theirs.begins_with(own) or own.begins_with(theirs)):
            raise ValueError(
                f"exclude has other {side} ids than the model, or in another order: read it with like=model"
            )


def _as_seen(exclude: Any, positions: NDArray[np.int64], shape: tuple[int, int]) -> Seen:
    if exclude is None:
        none = np.zeros(len(positions), np.int64)
        return Seen(np.zeros(0, np.int32), none, none)
    if not is_sparse(exclude):
        raise TypeError(f"exclude must be a scipy.sparse matrix, what was read, or None, got {type(exclude).__name__}")
    if exclude.shape != shape:
        raise ValueError(f"exclude has shape {exclude.shape}, the model has {shape}")
    matrix = sp.csr_array(check_structure(exclude, "exclude"))
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()  # a copy: the user's own stays as it is
    indptr = matrix.indptr.astype(np.int64, copy=False)
    return Seen(matrix.indices, indptr[positions], indptr[positions + 1])
