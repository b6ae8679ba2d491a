"""Factors of new rows against fixed columns: the ridge problem that is left when V does not move."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.matrix.inputs import is_sparse

Array = NDArray[Any]


def fold_in_rows(V: Array, X: Any, regularization: float, unobserved: str = "missing") -> Array:
    """Return the U that minimises sum 1/2 |X_rc - U_r V_c^T|^2 + 1/2 regularization |U_r|^2 over what counts.

    Parameters
    ----------
    V : (n_cols, rank) array
        Real.
    X : (n_new, n_cols) array or sparse matrix
        Where the stored entries count ("missing"), those of a dense X that are not NaN.
    regularization : float
        Per entry that counts, so n_r times for a row that has n_r of them.
    unobserved : {"missing", "zero"}
        Whether what is not stored is unknown, or 0.

    Returns
    -------
    (n_new, rank) array
        Of the dtype of V. Where the solution is not unique, the shortest one; zeros for rows without entries.

    Examples
    --------
    >>> import numpy as np
    >>> from fastfactor.folding import fold_in_rows
    >>> fold_in_rows(np.array([[1.0], [2.0]]), np.array([[3.0, np.nan], [1.0, 2.0]]), 0.0).round(6).tolist()
    [[3.0], [1.0]]
    """
    W = V.astype(np.float64)
    if unobserved == "zero":
        return _solve(W.T @ W, np.asarray(X @ W).T, regularization * len(W)).T.astype(V.dtype)
    cols: Array
    U = np.zeros((X.shape[0], W.shape[1]))
    rows = sp.csr_array(X) if is_sparse(X) else None
    for r in range(len(U)):
        if rows is not None:
            entries = slice(rows.indptr[r], rows.indptr[r + 1])
            cols, values = rows.indices[entries], rows.data[entries]
        else:
            present = ~np.isnan(X[r])
            cols, values = present.nonzero()[0], X[r, present]
        if len(cols):
            U[r] = _solve(W[cols].T @ W[cols], W[cols].T @ values, regularization * len(cols))
    return U.astype(V.dtype)


def _solve(gram: Array, right: Array, penalty: float) -> Array:
    return np.linalg.pinv(gram + penalty * np.eye(len(gram)), hermitian=True) @ right
