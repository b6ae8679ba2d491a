"""How good a model is: errors of predicted values, and how many of the right items a ranking holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from fastfactor.kernels.metrics import score_lists, sum_errors
from fastfactor.kernels.topn import Seen
from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.structure import as_array, check_structure
from fastfactor.options import check_integer
from fastfactor.threads import launch

__all__ = ["mae", "ndcg_at_k", "recall_at_k", "rmse"]


_SLICES = 64  # of the values, for sums that do not depend on the number of threads


def _average_errors(actual: ArrayLike, predicted: ArrayLike) -> tuple[float, float]:
    """Return the means of |actual - predicted| and of its square, computed in double precision."""
    actual, predicted = as_array(actual, "actual"), as_array(predicted, "predicted")
    for name, values in (("actual", actual), ("predicted", predicted)):
        if values.dtype.kind not in "biufc":
            raise TypeError(f"{name} must hold numbers, got dtype {values.dtype}")
    if actual.shape != predicted.shape:
        raise ValueError(f"actual has shape {actual.shape}, predicted has {predicted.shape}")
    if not actual.size:
        raise ValueError("actual is empty: there is no error to average")
    common = np.result_type(actual, predicted)
    wide = np.result_type(common, np.float64)
    kept = common if common.name in ("float32", "complex64") else wide  # the kernel widens these number by number
    sides = [np.ravel(values).astype(kept, copy=False) for values in (actual, predicted)]
    sums = np.empty((_SLICES, 2))
    launch(sum_errors, *sides, wide.type(0), sums)
    total, square = sums.sum(axis=0) / actual.size
    return float(total), float(square)


def rmse(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the root mean squared error, sqrt(mean |actual - predicted|^2).

    Parameters
    ----------
    actual, predicted : arrays of one shape
        Real or complex numbers; computed in double precision.

    Returns
    -------
    float
        In the units of the values; NaN where one of them is.

    Raises
    ------
    TypeError
        If they are no numbers, or have a mask.
    ValueError
        If the shapes differ or there are no values.

    Examples
    --------
    >>> import fastfactor as ff
    >>> ff.metrics.rmse([1.0, 2.0], [1.0, 4.0]).__round__(4)
    1.4142
    """
    return math.sqrt(_average_errors(actual, predicted)[1])


def mae(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean absolute error, mean |actual - predicted|.

    Parameters
    ----------
    actual, predicted : arrays of one shape
        Real or complex numbers; computed in double precision.

    Returns
    -------
    float
        In the units of the values; NaN where one of them is.

    Raises
    ------
    TypeError
        If they are no numbers, or have a mask.
    ValueError
        If the shapes differ or there are no values.

    Examples
    --------
    >>> import fastfactor as ff
    >>> ff.metrics.mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    return _average_errors(actual, predicted)[0]


def _as_relevant(relevant: Any) -> sp.csr_array:
    """Return what is stored, explicit zeros too, each place once and columns ascending."""
    truth = sp.csr_array(check_structure(relevant, "relevant") if is_sparse(relevant) else relevant)
    if not truth.has_canonical_format:
        truth = truth.copy()  # the user's own stays as it is
        truth.sum_duplicates()
    return truth


def _judge_lists(recommended: ArrayLike, relevant: Any, k: int) -> tuple[float, float]:
    """Return recall and normalised gain of the first k recommendations, averaged over rows that can have some."""
    k = check_integer(k, "k", 1)
    lists = as_array(recommended, "recommended")
    if lists.ndim != 2 or lists.dtype.kind not in "iu":
        raise ValueError(f"recommended must be a 2-D array of integers, got {lists.ndim}-D of {lists.dtype}")
    truth = _as_relevant(relevant)
    n_rows, n_cols = truth.shape
    if n_rows != len(lists):
        raise ValueError(f"recommended has {len(lists)} rows, relevant has {n_rows}")
    if not truth.nnz:
        raise ValueError("relevant stores no entry: there is nothing to find")
    if lists.size and lists.max() >= n_cols:
        raise ValueError(f"recommended holds {lists.max()}, outside the {n_cols} columns of relevant")
    lists = np.ascontiguousarray(lists[:, :k], np.int64)
    indptr, indices = (index.astype(np.int64, copy=False) for index in (truth.indptr, truth.indices))
    longest = max(lists.shape[1], min(int(k), n_cols))
    gains = 1 / np.log2(np.arange(2.0, longest + 2))
    scores, faults = np.empty((n_rows, 2)), np.empty(n_rows, np.bool_)
    launch(score_lists, lists, longest, Seen(indices, indptr[:-1], indptr[1:]), gains, scores, faults)
    if faults.any():
        raise ValueError(f"recommended holds a column twice in row {faults.argmax()}")
    recall, gain = scores[np.diff(indptr) > 0].mean(axis=0)
    return float(recall), float(gain)


def recall_at_k(recommended: ArrayLike, relevant: Any, k: int) -> float:
    """Return the share of a row's relevant columns among its first k recommendations, averaged over rows.

    For a row with the set R of relevant columns and the list L of recommendations, recall is |R and L[:k]| / |R|. Rows
    without a relevant column do not count. (Some packages divide by min(k, |R|) instead.)

    Parameters
    ----------
    recommended : (n, at least k) integer array
        Columns, best first, as `Factorization.recommend` returns them; -1 is no recommendation.
    relevant : (n, n_cols) sparse matrix
        What is stored is relevant, whatever its value.
    k : int
        At least 1.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If `k` is no such integer, the shapes do not fit, a list holds a column twice, or nothing is relevant.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, fastfactor as ff
    >>> relevant = sp.csr_array(np.array([[1, 1, 0, 0], [0, 0, 1, 0]]))
    >>> ff.metrics.recall_at_k([[0, 3], [1, 2]], relevant, k=2)
    0.75
    """
    return _judge_lists(recommended, relevant, k)[0]


def ndcg_at_k(recommended: ArrayLike, relevant: Any, k: int) -> float:
    """Return the normalised discounted cumulative gain of the first k recommendations, averaged over rows.

    A relevant column at position i = 1, 2, ... gains 1 / log2(i + 1); the sum is divided by that of the best possible
    list, which has min(k, |R|) relevant columns in front. Rows without a relevant column do not count.

    Parameters
    ----------
    recommended : (n, at least k) integer array
        Columns, best first, as `Factorization.recommend` returns them; -1 is no recommendation.
    relevant : (n, n_cols) sparse matrix
        What is stored is relevant, whatever its value: gains are binary.
    k : int
        At least 1.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If `k` is no such integer, the shapes do not fit, a list holds a column twice, or nothing is relevant.

    References
    ----------
    Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 2002.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, fastfactor as ff
    >>> relevant = sp.csr_array(np.array([[1, 1, 0, 0], [0, 0, 1, 0]]))
    >>> round(ff.metrics.ndcg_at_k([[0, 3], [1, 2]], relevant, k=2), 4)
    0.622
    """
    return _judge_lists(recommended, relevant, k)[1]
