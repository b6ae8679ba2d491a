"""The arguments and errors of ``scipy.sparse.linalg.svds``, in scipy's words: callers may match on them."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, aslinearoperator

from fastfactor.exceptions import ConvergenceWarning, warn_caller
from fastfactor.solvers.dispatch import Decomposition

Array = NDArray[Any]


def check_sizes(A: Any, k: Any, ncv: Any, solver: str) -> int:
    """Return k as an integer; errors in scipy's words."""
    kmax = min(A.shape) if solver == "propack" else min(A.shape) - 1
    if int(k) != k or not (0 < k <= kmax):
        raise ValueError("`k` must be an integer satisfying `0 < k < min(A.shape)`.")
    if solver == "arpack" and ncv is not None and (int(ncv) != ncv or not (k < ncv < min(A.shape))):
        raise ValueError("`ncv` must be an integer satisfying `k < ncv < min(A.shape)`.")
    return int(k)


def check_options(tol: Any, which: Any, maxiter: Any, return_singular_vectors: Any) -> str:
    """Return `which` in capitals; errors in scipy's words."""
    if tol < 0 or not np.isfinite(tol):
        raise ValueError("`tol` must be a non-negative floating point value.")
    which = str(which).upper()
    if which not in ("LM", "SM"):
        raise ValueError("`which` must be in {'LM', 'SM'}.")
    if maxiter is not None and (int(maxiter) != maxiter or maxiter <= 0):
        raise ValueError("`maxiter` must be a positive integer.")
    if return_singular_vectors not in (True, False, "u", "vh"):
        raise ValueError("`return_singular_vectors` must be in {True, False, 'vh', 'u'}.")
    return str(which)


def check_solver(solver: Any) -> str:
    """Return the solver's name in small letters."""
    name = str(solver).lower()
    solvers = {"arpack", "lobpcg", "propack"}
    if name not in solvers:
        raise ValueError(f"solver must be one of {solvers}.")
    return name


def check_start(v0: Any, A: Any, solver: str) -> Array | None:
    """Return the starting vector for the shorter side, if any."""
    if v0 is None:
        return None
    v0 = np.atleast_1d(v0)
    if not np.issubdtype(v0.dtype, np.inexact):
        raise ValueError("`v0` must be of floating or complex floating data type.")
    shape = (A.shape[0],) if solver == "propack" else (min(A.shape),)
    if v0.shape != shape:
        raise ValueError(f"`v0` must have shape {shape}.")
    if len(v0) == min(A.shape):
        return np.asarray(v0)
    return np.asarray(aslinearoperator(A).rmatvec(v0))


def as_generator(rng: Any, random_state: Any) -> np.random.Generator:
    """Return the generator that is meant; None means seed 0."""
    if rng is not None and random_state is not None:
        raise TypeError("svds() got both `rng` and `random_state`: give one of them")
    rng = random_state if rng is None else rng
    if rng is None:
        return np.random.default_rng(0)
    if isinstance(rng, numbers.Integral):
        return np.random.default_rng(int(rng))
    if isinstance(rng, np.random.RandomState):
        return np.random.default_rng(rng.randint(2**31, size=4))
    if isinstance(rng, np.random.Generator):
        return rng
    raise ValueError(f"'{rng}' is neither a NumPy Generator nor an integer seed to instantiate one.")


def report_failure(found: Decomposition, bound: float, solver: str) -> None:
    """Raise, or warn, as scipy does for this solver."""
    good = found.residuals <= bound
    k = len(good)
    text = f"{int(good.sum())} of {k} triplets converged after {found.n_passes} passes"
    if solver == "propack":
        raise np.linalg.LinAlgError(f"k={k} singular triplets did not converge within {found.n_passes} passes: {text}")
    if solver == "lobpcg":
        warn_caller(f"Exited at iteration {found.n_passes}: {text}", ConvergenceWarning)
        return
    raise ArpackNoConvergence(f"No convergence: {text}", found.s[good], found.Vh[good].conj().T)
