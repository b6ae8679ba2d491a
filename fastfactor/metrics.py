"""How good a model is: errors of predicted values, and how many of the right items a ranking holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

__all__ = ["mae", "ndcg_at_k", "recall_at_k", "rmse"]


def _errors(actual: ArrayLike, predicted: ArrayLike) -> NDArray[Any]:
    actual, predicted = np.asarray(actual), np.asarray(predicted)
    if actual.shape != predicted.shape:
        raise ValueError(f"actual has shape {actual.shape}, predicted has {predicted.shape}")
    if not actual.size:
        raise ValueError("actual is empty: there is no error to average")
    return np.abs(np.subtract(actual, predicted, dtype=np.result_type(actual, predicted, np.float64)))


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
    ValueError
        If the shapes differ or there are no values.

    Examples
    --------
    >>> import fastfactor as ff
    >>> ff.metrics.rmse([1.0, 2.0], [1.0, 4.0]).__round__(4)
    1.4142
    """
    return float(np.sqrt(np.mean(_errors(actual, predicted) ** 2)))


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
    ValueError
        If the shapes differ or there are no values.

    Examples
    --------
    >>> import fastfactor as ff
    >>> ff.metrics.mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    return float(np.mean(_errors(actual, predicted)))


def _find_hits(recommended: ArrayLike, relevant: Any, k: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which of the first k recommendations are relevant, (n, k), and how many relevant items each row has."""
    if isinstance(k, bool) or not hasattr(k, "__index__") or k < 1:
        raise ValueError(f"k must be an integer of at least 1, got {k!r}")
    cols = np.asarray(recommended)
    if cols.ndim != 2 or cols.dtype.kind not in "iu":
        raise ValueError(f"recommended must be a 2-D array of integers, got {cols.ndim}-D of {cols.dtype}")
    truth: Any = sp.csr_array(relevant)
    if truth.shape[0] != len(cols):
        raise ValueError(f"recommended has {len(cols)} rows, relevant has {truth.shape[0]}")
    if cols.size and cols.max() >= truth.shape[1]:
        raise ValueError(f"recommended holds {cols.max()}, outside the {truth.shape[1]} columns of relevant")
    cols = cols[:, :k]
    rows = np.repeat(np.arange(truth.shape[0]), np.diff(truth.indptr))
    width = truth.shape[1]
    wanted = np.unique(rows * width + truth.indices)
    places = np.arange(len(cols))[:, None] * width + cols
    hits = np.isin(places, wanted) & (cols >= 0)
    ranked = np.sort(np.where(cols >= 0, places, -1 - np.arange(cols.shape[1])), axis=1)
    if (np.diff(ranked, axis=1) == 0).any():
        row = int(np.flatnonzero((np.diff(ranked, axis=1) == 0).any(axis=1))[0])
        raise ValueError(f"recommended holds a column twice in row {row}")
    return hits, np.bincount(wanted // width, minlength=len(cols))


def _average(scores: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    if not counts.any():
        raise ValueError("relevant stores no entry: there is nothing to find")
    return float(scores[counts > 0].mean())


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
    ValueError
        If the shapes do not fit, a list holds a column twice, or nothing is relevant.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, fastfactor as ff
    >>> relevant = sp.csr_array(np.array([[1, 1, 0, 0], [0, 0, 1, 0]]))
    >>> ff.metrics.recall_at_k([[0, 3], [1, 2]], relevant, k=2)
    0.75
    """
    hits, counts = _find_hits(recommended, relevant, k)
    return _average(hits.sum(axis=1) / np.maximum(counts, 1), counts)


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
    ValueError
        If the shapes do not fit, a list holds a column twice, or nothing is relevant.

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
    hits, counts = _find_hits(recommended, relevant, k)
    gains = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate(([0.0], np.cumsum(gains)))[np.minimum(counts, k)]
    return _average(hits @ gains[: hits.shape[1]] / np.where(best > 0, best, 1.0), counts)
