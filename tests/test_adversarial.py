"""Spectra that mislead iterations: values agree with LAPACK, and what a certificate says is true, converged or not."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

import fastfactor as ff
from fastfactor.exceptions import ConvergenceWarning
from fastfactor.solvers import dispatch, triplets

M, N, K = 190, 150, 9
EPS = np.finfo(np.float64).eps


@pytest.fixture(autouse=True)
def no_lapack(monkeypatch):
    monkeypatch.setattr(dispatch, "LAPACK_WORK", 0)
    monkeypatch.setattr(triplets, "GRAM_LIMIT", 0)


def with_spectrum(s, is_complex=False):
    rng = np.random.default_rng(1)
    shapes = (M, len(s)), (N, len(s))
    Q, P = (rng.standard_normal(shape) + is_complex * 1j * rng.standard_normal(shape) for shape in shapes)
    Q, P = (np.linalg.qr(side if is_complex else side.real)[0] for side in (Q, P))
    return (Q * s) @ P.conj().T


def kahan(n, theta=1.2):
    s, c = np.sin(theta), np.cos(theta)
    return s ** np.arange(n)[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def laplacian(edges, n):
    rows, cols = np.array(edges).T
    W = sp.coo_array((np.ones(len(rows)), (rows, cols)), shape=(n, n)).toarray()
    W = W + W.T
    return np.diag(W.sum(axis=0)) - W


def grid_edges(side):
    at = np.arange(side * side).reshape(side, side)
    across, down = (at[:, :-1], at[:, 1:]), (at[:-1], at[1:])
    return [pair for a, b in (across, down) for pair in zip(a.ravel(), b.ravel(), strict=True)]


def wilkinson(n):
    beside = np.ones(n - 1)
    return np.diag(np.abs(np.arange(n) - n // 2).astype(float)) + np.diag(beside, 1) + np.diag(beside, -1)


def sparse_by_chance(scale):
    rng = np.random.default_rng(2)
    return np.where(rng.random((M, N)) < 0.05, rng.standard_normal((M, N)), 0.0) * scale


MATRICES = {
    "clustered": lambda: with_spectrum(1 + 1e-9 * np.arange(N)[::-1]),
    "clusters": lambda: with_spectrum(np.repeat([3.0, 2.0, 1.0], 50) + 1e-7 * np.linspace(1, 0, N)),
    "repeated across k": lambda: with_spectrum(np.concatenate([[5, 4], np.full(40, 3.0), np.linspace(1, 0.1, 99)])),
    "identity": lambda: np.eye(M, N),
    "graded": lambda: with_spectrum(np.logspace(0, -15, N)),
    "steep": lambda: with_spectrum(np.logspace(0, -120, N)),
    "one far above": lambda: with_spectrum(np.concatenate([[1e9], np.linspace(1, 0.5, 100)])),
    "nearly flat": lambda: with_spectrum(np.linspace(1.0, 1.0 - 1e-4, N)),
    "complex clusters": lambda: with_spectrum(np.repeat([2.0, 1.0], 75) + 1e-8 * np.linspace(1, 0, N), True),
    "rank one": lambda: np.outer(np.arange(1.0, M + 1), np.linspace(-1, 1, N)),
    "rank one, tiny": lambda: np.outer(np.full(M, 1e-160), np.full(N, 1e-140)),
    "zero": lambda: np.zeros((M, N)),
    "one entry": lambda: np.eye(1, M * N, 777).reshape(M, N) * 1e-3,
    "tiny": lambda: with_spectrum(np.linspace(2, 1, N)) * 1e-250,
    "subnormal": lambda: with_spectrum(np.linspace(2, 1, N)) * 1e-306,
    "huge": lambda: with_spectrum(np.linspace(2, 1, N)) * 1e300,
    "sparse, tiny": lambda: sparse_by_chance(1e-280),
    "sparse, huge": lambda: sparse_by_chance(1e290),
    "hilbert": lambda: scipy.linalg.hilbert(N),
    "kahan": lambda: kahan(N),
    "path": lambda: laplacian([(i, i + 1) for i in range(N - 1)], N),
    "grid": lambda: laplacian(grid_edges(12), 144),
    "star": lambda: laplacian([(0, i) for i in range(1, N)], N),
    "complete": lambda: laplacian([(i, j) for i in range(N) for j in range(i)], N),
    "wilkinson": lambda: wilkinson(N - 1),
    "jordan": lambda: np.diag(np.ones(N - 1), 1),
    "vandermonde": lambda: np.vander(np.linspace(0, 1, M), N, increasing=True),
    "ones and a dent": lambda: np.ones((M, N)) - np.eye(M, N),
}
FORMS = {
    "dense": lambda A: A,
    "wide": lambda A: np.ascontiguousarray(A.T),
    "sparse": sp.csr_array,
    "operator": aslinearoperator,
}
IN_RANGE = [name for name in MATRICES if name not in ("huge", "sparse, huge")]
TOO_CLOSE = (
    "clusters",
)  # 50 values within 1e-7, more than the basis holds: 1e-10 may stay out of reach, and is said to


def in_long(A):
    """A over its largest entry, in the precision that certificates are judged by, and that entry."""
    scale = np.abs(A).max() or 1.0
    return (A / scale).astype(np.clongdouble if A.dtype.kind == "c" else np.longdouble), scale


def judge(A, result):
    """What is said of each triplet is true, and vectors are orthonormal whatever was reached."""
    U, s, Vt = result
    B, scale = in_long(A)
    left = np.linalg.norm((B @ Vt.conj().T - U * (s / scale)).astype(U.dtype), axis=0)
    right = np.linalg.norm((B.conj().T @ U - Vt.conj().T * (s / scale)).astype(U.dtype), axis=0)
    exact = np.linalg.svd(np.asarray(B, U.dtype), compute_uv=False)
    measured = np.maximum(left, right) / (exact[0] or 1.0)
    said = result.residuals
    assert np.isfinite(said).all()
    slack = 100 * EPS
    # Over s_1 as it was found, which is not above the true one, so what is said may be more.
    assert (measured <= said * 1.01 + slack).all(), f"said {said}, is {measured}"
    np.testing.assert_allclose(U.conj().T @ U, np.eye(len(s)), atol=1e-11)
    np.testing.assert_allclose(Vt @ Vt.conj().T, np.eye(len(s)), atol=1e-11)
    assert (np.diff(s) <= 0).all()
    # Each value lies within its residual of some singular value.
    distance = np.abs((s / scale)[:, None] - exact).min(axis=1) / (exact[0] or 1.0)
    assert (distance <= said + slack).all()
    return s / scale, exact


def view(A, form):
    """As the function gets it, and as an array."""
    handed = FORMS[form](A)
    return handed, (A.T if form == "wide" else A)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MATRICES)
def test_triplets_and_certificates(name, form):
    handed, A = view(MATRICES[name](), form)
    with np.errstate(all="raise", under="ignore"):
        result = ff.svd(handed, K)
    assert result.converged
    s, exact = judge(A, result)
    np.testing.assert_allclose(s, exact[:K], rtol=0, atol=1e-10 * (exact[0] or 1.0))


@pytest.mark.parametrize("max_passes", [1, 2, 5])
@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("name", MATRICES)
def test_certificates_are_true_before_convergence(name, form, max_passes):
    handed, A = view(MATRICES[name](), form)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = ff.svd(handed, K, max_passes=max_passes, tol=1e-13)
    judge(A, result)
    assert result.converged == (not said)
    assert result.converged == bool((result.residuals <= 1e-13).all())
    assert all(issubclass(each.category, ConvergenceWarning) for each in said)


@pytest.mark.parametrize("name", IN_RANGE)
def test_smallest_values(name):
    A = MATRICES[name]()
    u, s, vh = ff.svds(A, K, which="SM")
    B, scale = in_long(A)
    exact = np.linalg.svd(np.asarray(B, u.dtype), compute_uv=False)
    np.testing.assert_allclose(s / scale, exact[-K:][::-1], rtol=0, atol=1e-10 * (exact[0] or 1.0))
    np.testing.assert_allclose(u.conj().T @ u, np.eye(K), atol=1e-9)
    np.testing.assert_allclose(vh @ vh.conj().T, np.eye(K), atol=1e-9)


@pytest.mark.parametrize("name", IN_RANGE)
def test_centred(name):
    A = MATRICES[name]()
    centred = A - A.mean(axis=0)
    with warnings.catch_warnings():
        if name in TOO_CLOSE:
            warnings.simplefilter("ignore", ConvergenceWarning)
        result = ff.pca(A, K)
    exact = np.linalg.svd(in_long(centred)[0].astype(centred.dtype), compute_uv=False) * in_long(centred)[1]
    size = np.abs(A).max() * np.sqrt(A.size)
    bound = 1e-10 if result.converged else 2 * result.residuals.max()
    np.testing.assert_allclose(result.s, exact[:K], rtol=0, atol=max(bound * exact[0], 50 * EPS * size))
