"""Entries set aside to judge a model with: at random, some of each row, or the latest."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from fastfactor.matrix.inputs import Observations, as_observations, is_sparse
from fastfactor.matrix.structure import as_array
from fastfactor.options import check_integer, check_seed, check_share

__all__ = ["per_row_split", "random_split", "temporal_split"]

Split = tuple[sp.csr_array, sp.csr_array]


def _read(X: Any, shape: Any, seed: Any) -> tuple[Observations, np.random.Generator]:
    """Return the entries of X, and what to draw from them with."""
    rng = np.random.default_rng(check_seed(seed))
    return as_observations(X, shape=shape), rng


def _part(X: Observations, chosen: NDArray[np.bool_]) -> sp.csr_array:
    n = X.n_entries
    indptr = np.concatenate(([0], np.cumsum(chosen)))[X.indptr]
    return sp.csr_array((X.data[:n][chosen], X.indices[:n][chosen], indptr), shape=X.shape)


def _divide(X: Observations, held: NDArray[np.bool_]) -> Split:
    if not 0 < held.sum() < len(held):
        raise ValueError(
            f"{held.sum()} of the {len(held)} entries of X would be for the test: there must be some on both sides"
        )
    return _part(X, ~held), _part(X, held)


def random_split(X: Any, test_share: float = 0.1, *, shape: tuple[int, int] | None = None, seed: int = 0) -> Split:
    """Set aside entries drawn at random from all entries.

    Rows or columns of which every entry is set aside are unknown to a model of the rest; it predicts their means.

    Parameters
    ----------
    X : array, sparse matrix, or (rows, cols, values)
        Stored entries count, explicit zeros included; in a dense matrix those that are not NaN.
    test_share : float
        Share of the entries to set aside, above 0 and below 1; their number is rounded.
    shape : (int, int), optional
        Of X, when it is triplets.
    seed : int
        Equal seeds give equal splits.

    Returns
    -------
    train, test : csr_array
        Of the shape of X; each entry is stored in one of them.

    Raises
    ------
    TypeError, ValueError
        For bad input, and where one side would be empty.

    Examples
    --------
    >>> import numpy as np, fastfactor as ff
    >>> train, test = ff.model_selection.random_split(np.ones((10, 10)), 0.2)
    >>> train.nnz, test.nnz
    (80, 20)
    """
    share = check_share(test_share, "test_share")
    observed, rng = _read(X, shape, seed)
    held = np.zeros(observed.n_entries, bool)
    held[rng.permutation(len(held))[: round(share * len(held))]] = True
    return _divide(observed, held)


def _latest(observed: Observations, keys: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which entries are among the counts[r] ones of row r with the largest keys; ties keep the stored order."""
    order = np.lexsort((keys, observed.rows))
    from_end = np.repeat(observed.indptr[1:], np.diff(observed.indptr)) - np.arange(len(keys))
    held = np.zeros(len(keys), bool)
    held[order] = from_end <= counts[observed.rows]
    return held


def per_row_split(X: Any, n_test: int = 1, *, shape: tuple[int, int] | None = None, seed: int = 0) -> Split:
    """Set aside `n_test` entries of each row, drawn at random; rows with no more than that keep all theirs.

    Parameters
    ----------
    X : array, sparse matrix, or (rows, cols, values)
        Stored entries count, explicit zeros included; in a dense matrix those that are not NaN.
    n_test : int
        Entries to set aside of each row, at least 1. With 1 this is the leave-one-out of recommender papers.
    shape : (int, int), optional
        Of X, when it is triplets.
    seed : int
        Equal seeds give equal splits.

    Returns
    -------
    train, test : csr_array
        Of the shape of X; each entry is stored in one of them.

    Raises
    ------
    TypeError, ValueError
        For bad input, and where one side would be empty.

    Examples
    --------
    >>> import numpy as np, fastfactor as ff
    >>> train, test = ff.model_selection.per_row_split(np.ones((10, 5)), 2)
    >>> np.diff(test.indptr).tolist() == [2] * 10
    True
    """
    count = check_integer(n_test, "n_test", 1)
    observed, rng = _read(X, shape, seed)
    sizes = np.diff(observed.indptr)
    counts = np.where(sizes > count, count, 0)
    return _divide(observed, _latest(observed, rng.random(observed.n_entries), counts))


def temporal_split(X: Any, times: ArrayLike, test_share: float = 0.1, *, shape: tuple[int, int] | None = None) -> Split:
    """Set aside the latest entries: what a model would have had to predict.

    All entries at or after one moment are for the test; of equal times all are on one side, so that the share is met as
    nearly as it can be from below.

    Parameters
    ----------
    X : (rows, cols, values) or sparse matrix in coordinate format
        Without duplicates.
    times : (n_entries,) array
        Of each entry, in the same order: numbers or datetime64.
    test_share : float
        Share of the entries to set aside, above 0 and below 1.
    shape : (int, int), optional
        Of X, when it is triplets.

    Returns
    -------
    train, test : csr_array
        Of the shape of X; each entry is stored in one of them.

    Raises
    ------
    TypeError, ValueError
        For bad input (NaN among the times included), and where one side would be empty.

    Examples
    --------
    >>> import numpy as np, fastfactor as ff
    >>> X = [0, 1, 2, 0], [0, 0, 1, 1], [1.0, 2.0, 3.0, 4.0]
    >>> train, test = ff.model_selection.temporal_split(tuple(X), times=[10, 40, 20, 30], test_share=0.25)
    >>> test.toarray()[1, 0]
    np.float64(2.0)
    """
    share, moments = check_share(test_share, "test_share"), as_array(times, "times")
    if not isinstance(X, tuple):
        if not is_sparse(X) or X.format != "coo":
            raise TypeError("X must be triplets or a sparse matrix in coordinate format: times follow its entries")
        X, shape = (*X.coords, X.data), X.shape
    observed = as_observations(X, shape=shape)
    if moments.shape != (observed.n_entries,):
        raise ValueError(f"times has shape {moments.shape}, X has {observed.n_entries} entries")
    if moments.dtype.kind not in "iufM" or (moments != moments).any():
        raise ValueError("times holds NaN or NaT, or no numbers")
    moments = moments[np.argsort(np.asarray(X[0]), kind="stable")]
    latest = np.sort(moments)
    first = int(np.ceil((1 - share) * len(latest) - 1e-9))
    moment = latest[min(first, len(latest) - 1)]
    held = moments > moment if latest[first - 1] == moment else moments >= moment
    return _divide(observed, held)
