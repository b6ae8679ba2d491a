"""Hand spectra that mislead to `svd`, `svds` and `pca`, and judge the certificates: for test_adversarial.py.

As a program: `spectra_calls.py FIRST COUNT PROGRESS` (see campaign.py).
"""

import sys
import warnings

import numpy as np
import scipy.sparse as sp
from bad_matrices import pick
from campaign import work_off
from scipy.sparse.linalg import ArpackNoConvergence, aslinearoperator
from spectra import MATRICES, judge, with_spectrum

import fastfactor as ff
from fastfactor.exceptions import ConvergenceWarning
from fastfactor.matrix import centring
from fastfactor.results import SVDResult
from fastfactor.solvers import dispatch, triplets

TOLERANCES = (None, 1e-2, 1e-3, 1e-4, 1e-5, 4e-6, 1e-6, 1e-8, 1e-12)
SWITCHES = ((dispatch, "LAPACK_WORK"), (triplets, "GRAM_LIMIT"), (triplets, "SHORT"), (centring, "SMALL"))
USUAL = [getattr(module, name) for module, name in SWITCHES]


def draw_spectrum(rng, size):
    """Return singular values of some kind, their largest 1."""
    steps = np.arange(size) / size
    kind = pick(rng, ("clusters", "repeated", "graded", "gap", "flat", "rank", "powers"))
    if kind == "clusters":
        s = rng.integers(1, 5, size) + 10.0 ** rng.integers(-14, -2) * steps
    elif kind == "repeated":
        s = rng.integers(1, pick(rng, (2, 4, 12)) + 1, size).astype(float)
    elif kind == "graded":
        s = 10.0 ** (-rng.integers(1, 60) * steps)
    elif kind == "gap":
        s = np.where(np.arange(size) < rng.integers(1, 12), 10.0 ** rng.integers(1, 13), 1.0) * (1.1 - steps)
    elif kind == "flat":
        s = 1.0 + 10.0 ** -rng.integers(0, 12) * steps
    elif kind == "rank":
        s = np.where(np.arange(size) < rng.integers(0, 12), 1.0 + rng.random(size), 0.0)
    else:
        s = (1.0 + np.arange(size)) ** -pick(rng, (0.3, 1.0, 3.0))
    return np.sort(s)[::-1] / (s.max() or 1.0)


def draw_matrix(rng):
    """Return a matrix whose singular values are hard to find, of some size and dtype."""
    dtype = np.dtype(pick(rng, ("float32", "float64", "complex64", "complex128")))
    if rng.random() < 0.3:
        A = MATRICES[pick(rng, list(MATRICES))]()
        A = A / (np.abs(A).max() or 1.0)
    elif rng.random() < 0.3:
        shape = rng.integers(20, 500, 2)
        A = np.where(rng.random(shape) < 10.0 ** rng.uniform(-3, 0), rng.standard_normal(shape), 0.0)
        A *= 10.0 ** (rng.integers(0, 12) * rng.random((shape[0], 1)))
    else:
        A = with_spectrum(draw_spectrum(rng, int(rng.integers(20, 150))), dtype.kind == "c")
    room = 300 if dtype.char in "dD" else 30
    with np.errstate(under="ignore"):
        A = A * 10.0 ** pick(rng, (0, 0, *rng.integers(-room, room - 15, 2)))  # of what has entries up to 1e12
        A = A.astype(dtype) if dtype.kind == "c" else A.real.astype(dtype)
    return A if rng.random() < 0.5 else np.ascontiguousarray(A.T)


def hand_over(rng, A, folder):
    """Return the matrix in some form."""
    form = pick(rng, ("dense", "columns", "csr", "csc", "csr", "csc", "operator", "mapped"))
    if form == "mapped":
        X = sp.csr_array(A) if rng.random() < 0.5 else sp.csc_array(A)
        for name in ("data", "indices"):
            np.save(folder / f"{name}.npy", getattr(X, name))
            if X.nnz:
                setattr(X, name, np.load(folder / f"{name}.npy", mmap_mode="r"))
        return X
    makers = {"dense": np.asarray, "columns": np.asfortranarray, "operator": aslinearoperator}
    return (makers | {"csr": sp.csr_array, "csc": sp.csc_array})[form](A)


def call_svd(rng, X, A, k):
    tol, max_passes = pick(rng, TOLERANCES), pick(rng, (None, None, None, 1, 2, 5, 9))
    result = ff.svd(X, k, tol=tol, max_passes=max_passes, seed=int(rng.integers(100)))
    return judge_all(result, A, tol)


def call_pca(rng, X, A, k):
    tol = pick(rng, TOLERANCES)
    if not isinstance(X, np.ndarray) and not sp.issparse(X):
        X = A
    result = ff.pca(X, k, tol=tol, max_passes=pick(rng, (None, None, 2, 9)))
    wide = A.astype(np.result_type(A, np.float64))
    unit = float(np.abs(A).max()) or 1.0
    centred = wide / unit - (wide / unit).mean(axis=0)  # means of the largest numbers overflow
    lost = np.abs(centred).max(initial=0.0) < 1e-3
    if lost:  # what is left is rounding, of the means too
        return "constant columns"
    with np.errstate(under="ignore"):
        return judge_all(result, centred * unit, tol)


def judge_all(result, A, tol):
    tol = tol or (1e-10 if result.s.dtype == np.float64 else 1e-6)
    s, exact = judge(A, result)
    if result.converged != bool((result.residuals <= tol).all()):
        raise AssertionError(f"converged is {result.converged} with {result.residuals} for {tol}")
    if not result.converged:
        return "short"
    return "leading" if np.abs(s - exact[: len(s)]).max() <= 1.01 * max(tol, 1e-6) * exact[0] else "others"


def call_svds(rng, X, A, k):
    tol, which = pick(rng, TOLERANCES) or 0, pick(rng, ("LM", "LM", "SM"))
    k = min(k, min(A.shape) - 1)
    try:
        u, s, vh = ff.svds(X, k, tol=tol, which=which, maxiter=pick(rng, (None, None, 1, 2)))
    except ArpackNoConvergence:
        return "refused"
    bound = max(tol, 1e-10 if s.dtype == np.float64 else 1e-6)
    judge(A, SVDResult(u[:, ::-1], s[::-1], vh[::-1], np.full(k, bound), True, 0))
    return which


def try_case(number, folder):
    """Return what came of a case, and the fault if there is one."""
    rng = np.random.default_rng(number)
    for (module, name), usual in zip(SWITCHES, USUAL, strict=True):
        setattr(module, name, 0 if rng.random() < 0.8 else usual)
    A = draw_matrix(rng)
    call, k = pick(rng, (call_svd, call_svd, call_svds, call_pca)), int(rng.integers(1, 13))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            return f"{call.__name__}: {call(rng, hand_over(rng, A, folder), A, k)}", None
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return "fault", {"call": call.__name__, "fault": text[:800], "A": f"{A.dtype} {A.shape}"}


if __name__ == "__main__":
    first, count, progress = sys.argv[1:]
    work_off(try_case, int(first), int(count), progress)
