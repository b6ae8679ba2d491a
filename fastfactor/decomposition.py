"""Truncated SVD and what is built on it: `svds` (scipy's signature), `svd` (with a certificate), `pca`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastfactor.exceptions import ConvergenceWarning, warn_caller
from fastfactor.handing import call_on_cluster, decompose_on_cluster, is_dask
from fastfactor.matrix.centring import Centred, centre_columns
from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.labelled import as_stored
from fastfactor.matrix.operand import BLOCK
from fastfactor.matrix.operators import check_matrix, frobenius_norm, is_dense
from fastfactor.matrix.streaming import is_stream, measure_stream
from fastfactor.matrix.structure import as_array, check_structure
from fastfactor.options import check_flag, check_integer, check_real, check_seed, is_same
from fastfactor.results import PCAResult, SVDResult
from fastfactor.solvers.dispatch import Decomposition, decompose, decompose_operand
from fastfactor.solvers.triplets import Search, basis_size
from fastfactor.svds_arguments import (
    as_generator,
    check_options,
    check_sizes,
    check_solver,
    check_start,
    report_failure,
)
from fastfactor.threads import count_threads

__all__ = ["PCAResult", "SVDResult", "pca", "svd", "svds"]

Array = NDArray[Any]

DEFAULT_TOL = {"f": 1e-6, "d": 1e-10}  # by the precision of the result
LOOSEST_TOL = 1e-2
MAX_PASSES = 2000


def svds(
    A: Any,
    k: int = 6,
    ncv: int | None = None,
    tol: float = 0,
    which: str = "LM",
    v0: Any = None,
    maxiter: int | None = None,
    return_singular_vectors: bool | str = True,
    solver: str = "arpack",
    rng: Any = None,
    options: Mapping[str, Any] | None = None,
    *,
    random_state: Any = None,
    n_threads: int | None = None,
) -> Any:
    """Compute the k largest or smallest singular values of a matrix, and their vectors, as scipy's `svds` does.

    The arguments, the order of the values (ascending) and the exceptions are those of ``scipy.sparse.linalg.svds``;
    what computes them is a block Krylov method (see ``docs/svd.md``), whatever `solver` says.

    Parameters
    ----------
    A : array_like, sparse matrix or array, LinearOperator, or Dask array, of shape (M, N)
        float32, float64, complex64 or complex128; integers are cast to float64. Of a Dask array the largest values are
        computed (`fastfactor.dask.svd`), and `v0` is refused.
    k : int
        Number of values, ``1 <= k < min(M, N)``; ``min(M, N)`` too with ``solver="propack"``.
    ncv : int or None
        Checked for ``solver="arpack"``, otherwise unused: the size of the basis is the method's own choice.
    tol : float
        Bound on the residuals ``max(||A v - s u||, ||A^H u - s v||) / s_1``. Zero means 1e-10, or 1e-6 in single
        precision; errors of singular values are of the order of its square.
    which : {"LM", "SM"}
        Largest or smallest.
    v0 : array or None
        Starts the iteration, with random vectors beside it: (min(M, N),), or (M,) with ``solver="propack"``.
    maxiter : int or None
        Bound on the number of restarts.
    return_singular_vectors : {True, False, "u", "vh"}
        False: return `s` only; "u", "vh": return None for the other.
    solver : {"arpack", "lobpcg", "propack"}
        Accepted for compatibility: it decides what is checked, and what is raised when the method does not converge.
    rng, random_state : None, int, Generator or RandomState
        Where the random start comes from; None means seed 0, so that equal calls give equal results.
    options : dict or None
        Unused, as in scipy.
    n_threads : int or None
        Threads; None: all that the process may use. The result does not depend on it.

    Returns
    -------
    u : (M, k) array
    s : (k,) array
    vh : (k, N) array

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, or A contains infinities or NaNs.
    ArpackNoConvergence, numpy.linalg.LinAlgError
        If the method does not converge; the latter with ``solver="propack"``.

    References
    ----------
    See ``docs/svd.md``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastfactor.decomposition as ff
    >>> u, s, vh = ff.svds(np.diag([1.0, 2.0, 3.0, 4.0]), k=2)
    >>> s.round(6).tolist()
    [3.0, 4.0]
    """
    solver = check_solver(solver)
    A = A if is_dask(A) else _as_matrix(A)
    k = check_sizes(A, k, ncv, solver)
    which = check_options(tol, which, maxiter, return_singular_vectors)
    if is_dask(A):
        _check_on_cluster(which, v0, n_threads)
    first = check_start(v0, A, solver)
    generator = as_generator(rng, random_state)
    real = choose_precision(A.dtype, None)
    bound = min(max(float(tol), DEFAULT_TOL[real.char]), LOOSEST_TOL)
    passes = MAX_PASSES if maxiter is None else int(maxiter) * (basis_size(k) // BLOCK)
    search = Search(k, bound, passes, which == "LM", count_threads(n_threads))
    found = decompose_on_cluster(A, search, generator) if is_dask(A) else decompose(A, search, generator, first)
    if np.any(found.residuals > bound):
        report_failure(found, bound, solver)
    return _as_scipy_returns(found, return_singular_vectors, real)


def _check_on_cluster(which: str, v0: Any, n_threads: Any) -> None:
    """Refuse what is not available where A is a Dask array."""
    for name, value, usual in (("which", which, "LM"), ("v0", v0, None), ("n_threads", n_threads, None)):
        if not is_same(value, usual):
            raise ValueError(f"{name} must be {usual!r} where A is a Dask array, got {value!r}")


def _as_matrix(A: Any, name: str = "A") -> Any:
    """Return A, lists and ``numpy.matrix`` as arrays, once it is known to be a matrix of numbers."""
    A = as_stored(A)
    if isinstance(A, tuple) and any(isinstance(part, np.ndarray) for part in A):
        raise TypeError(f"{name} must be a matrix, not triplets: make one of them with scipy.sparse.coo_array")
    if isinstance(A, list | tuple) or hasattr(A, "__array__"):
        A = as_array(A, name)
    check_matrix(A, name)
    if len(A.shape) != 2:
        raise ValueError(f"{name} must be 2-D, got shape {A.shape}")
    return check_structure(A, name) if is_sparse(A) else A


def _as_scipy_returns(found: Decomposition, which_vectors: bool | str, real: np.dtype[Any]) -> Any:
    """Ascending, in the precision of A, and only what was asked for."""
    U, s, Vt = _cast(found, real)
    if which_vectors is False:
        return s[::-1].copy()
    u = U[:, ::-1] if which_vectors in (True, "u") else None
    return u, s[::-1].copy(), Vt[::-1] if which_vectors in (True, "vh") else None


def choose_precision(own: np.dtype[Any], dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return float32 or float64: what `dtype` names, else what the matrix has.

    Raises
    ------
    ValueError
        If `dtype` names another type.
    """
    if dtype is None:
        return np.dtype(np.float32 if own.char in "fF" else np.float64)
    with contextlib.suppress(TypeError):
        if (real := np.dtype(dtype)).char in "fd":
            return real
    raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")


def as_search(
    A: Any, k: int, real: np.dtype[Any], tol: float | None, max_passes: int | None, n_threads: int | None
) -> Search:
    """Check what `svd` and `pca` are asked.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of its range.
    """
    if not 1 <= (k := check_integer(k, "k", -np.iinfo(np.int64).max)) <= min(A.shape):
        raise ValueError(f"k must be between 1 and min(A.shape) = {min(A.shape)}, got {k}")
    tol = DEFAULT_TOL[real.char] if tol is None else check_real(tol, "tol", strict=True)
    max_passes = MAX_PASSES if max_passes is None else check_integer(max_passes, "max_passes", 1)
    return Search(k, tol, max_passes, True, count_threads(n_threads))


def _warn_when_short(found: Decomposition, search: Search) -> bool:
    """Return whether all triplets met the tolerance, having warned if not."""
    good = found.residuals <= search.tol
    if not good.all():
        warn_caller(
            f"{int(good.sum())} of {search.k} singular triplets reached the residual {search.tol:.1e} in "
            f"{found.n_passes} passes; the largest residual is {found.residuals.max():.1e}",
            ConvergenceWarning,
        )
    return bool(good.all())


def svd(
    A: Any,
    k: int,
    *,
    tol: float | None = None,
    max_passes: int | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    dtype: DTypeLike | None = None,
) -> SVDResult:
    """Compute the k leading singular triplets of a matrix, with a certificate for each.

    ``(U * s) @ Vt`` is the best approximation of A by a matrix of rank k: the minimum of ``||A - U V^H||_F`` over all
    entries, what is not stored being 0.

    Parameters
    ----------
    A : array_like, sparse, LinearOperator, what fastfactor.io reads, or Dask array or DataFrame; (n_rows, n_cols)
        float32, float64, complex64 or complex128; integers are cast to float64. CSR and CSC arrays that are mapped
        from files (`numpy.memmap`) are read piece by piece, once a pass. Dask's go to `fastfactor.dask.svd`.
    k : int
        Number of triplets, at most ``min(A.shape)``.
    tol : float or None
        Bound on the residuals, relative to s_1; None: 1e-10, or 1e-6 in single precision.
    max_passes : int or None
        Bound on the number of passes over A; None: 2000.
    seed : int
        Of the random start.
    n_threads : int or None
        Threads; None: all that the process may use. The result does not depend on it.
    dtype : float32, float64 or None
        Precision of the result; None: A's own.

    Returns
    -------
    SVDResult
        Unpacks as ``U, s, Vt``, descending.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or A contains infinities or NaNs.

    Warns
    -----
    ConvergenceWarning
        If a residual is larger than `tol`.

    References
    ----------
    See ``docs/svd.md``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastfactor.decomposition as ff
    >>> result = ff.svd(np.diag([1.0, 2.0, 3.0, 4.0]), k=2)
    >>> result.s.round(6).tolist(), result.converged
    ([4.0, 3.0], True)
    """
    if is_dask(A):
        result: SVDResult = call_on_cluster(svd, locals())
        return result
    A = _as_matrix(A)
    real = choose_precision(A.dtype, dtype)
    search = as_search(A, k, real, tol, max_passes, n_threads)
    found = decompose(A, search, np.random.default_rng(check_seed(seed)))
    norm = measure_stream(A) if is_stream(A) else frobenius_norm(A)
    return SVDResult(**certify(found, search, real), frobenius_norm=norm)


def _cast(found: Decomposition, real: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Return U, s and V^H in single or double precision, as `real` says."""
    dtype = np.result_type(real, np.complex64) if found.U.dtype.kind == "c" else real
    with np.errstate(over="ignore"):
        s = found.s.astype(real, copy=False)
    if not np.isfinite(s).all():
        raise ValueError(f"A has singular values out of the range of {real}: scale it down, or pass dtype='float64'")
    return found.U.astype(dtype, copy=False), s, found.Vh.astype(dtype, copy=False)


def certify(found: Decomposition, search: Search, real: np.dtype[Any]) -> dict[str, Any]:
    """Return what `svd` and `pca` both report: the triplets and how good they are; warn where they fall short."""
    U, s, Vt = _cast(found, real)
    converged = _warn_when_short(found, search)
    return {
        "U": U,
        "s": s,
        "Vt": Vt,
        "residuals": found.residuals,
        "converged": converged,
        "n_passes": found.n_passes,
    }


def pca(
    X: Any,
    k: int,
    *,
    center: bool = True,
    scale: bool = False,
    tol: float | None = None,
    max_passes: int | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    dtype: DTypeLike | None = None,
) -> PCAResult:
    """Compute k principal components; a sparse X is centred implicitly and never made dense.

    Parameters
    ----------
    X : array_like, sparse matrix or array, what fastfactor.io reads, or Dask array, of shape (n_rows, n_cols)
        Rows are samples. What is not stored is 0. CSR and CSC arrays that are mapped from files are read piece by
        piece.
    k : int
        Number of components.
    center : bool
        Subtract each column's mean.
    scale : bool
        Divide each column by its standard deviation (with n_rows in the denominator), constant columns by 1.
    tol, max_passes, seed, n_threads, dtype
        As for `svd`.

    Returns
    -------
    PCAResult
        Unpacks as ``U, s, Vt`` of the centred matrix, descending; also `.mean`, `.scale`, `.components`,
        `.explained_variance`, `.explained_variance_ratio`, `.transform`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or X contains infinities or NaNs.

    Warns
    -----
    ConvergenceWarning
        If a residual is larger than `tol`.

    References
    ----------
    See ``docs/svd.md``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastfactor.decomposition as ff
    >>> X = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    >>> result = ff.pca(X, k=1)
    >>> result.explained_variance.round(6).tolist(), result.mean.tolist()
    ([1.0], [2.0, 5.0])
    """
    if is_dask(X):
        result: PCAResult = call_on_cluster(pca, locals())
        return result
    X = _as_matrix(X, "X")
    if not (is_sparse(X) or is_dense(X)):
        raise TypeError(f"X must be an array or a sparse matrix, got {type(X).__name__}")
    real = choose_precision(X.dtype, dtype)
    search = as_search(X, k, real, tol, max_passes, n_threads)
    center, scale = check_flag(center, "center"), check_flag(scale, "scale")
    rng = np.random.default_rng(check_seed(seed))
    centred: Centred = centre_columns(X, center, scale, search.n_threads, needs_dense=search.k == min(X.shape))
    if centred.dense is not None:
        found = decompose(centred.dense, search, rng)
    else:
        is_adjoint = X.shape[0] < X.shape[1]
        found = decompose_operand(centred.operand(rng, is_adjoint), is_adjoint, search, rng)
    return as_components(found, centred, search, real, scale)


def as_components(
    found: Decomposition, centred: Centred, search: Search, real: np.dtype[Any], is_scaled: bool
) -> PCAResult:
    """Return what `pca` reports."""
    unit = 1.0 if is_scaled else centred.unit  # of the values; columns that are divided by their deviation have none
    with np.errstate(over="ignore", under="ignore"):
        found.s = found.s / unit
        mean = centred.mean / centred.unit
        deviation = centred.scale / centred.unit if is_scaled else centred.scale
    certified = certify(found, search, real)
    mean = mean.astype(certified["U"].dtype)
    if not np.isfinite(deviation).all():
        raise ValueError("X has columns whose deviation is out of the range of float64: scale it down")
    return PCAResult(**certified, frobenius_norm=centred.norm / unit, mean=mean, scale=deviation)
