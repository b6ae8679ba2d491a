"""Matrices of given singular values, spectra that mislead iterations, and the judge of singular triplets."""

import numpy as np
import scipy.linalg
import scipy.sparse as sp

M, N = 190, 150


def with_spectrum(s, is_complex=False, shape=(M, N)):
    """Return a matrix of that shape with these singular values, and vectors drawn at random."""
    rng = np.random.default_rng(1)
    shapes = (shape[0], len(s)), (shape[1], len(s))
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


def in_long(A):
    """A over its largest entry, in the precision that certificates are judged by, and that entry."""
    scale = float(np.abs(A).max()) or 1.0
    return A.astype(np.clongdouble if A.dtype.kind == "c" else np.longdouble) / scale, scale


def judge(A, result):
    """What is said of each triplet is true, and vectors are orthonormal whatever was reached.

    Returned are the values found and all values by LAPACK, both over the largest entry of A.
    """
    U, s, Vt = result
    grain = np.finfo(s.dtype).smallest_subnormal
    eps = float(np.finfo(s.dtype).eps)
    U, Vt = (side.astype(np.result_type(side, np.float64), copy=False) for side in (U, Vt))
    B, scale = in_long(A)
    values = s.astype(np.longdouble) / scale
    left = np.linalg.norm((B @ Vt.conj().T - U * values).astype(U.dtype), axis=0)
    right = np.linalg.norm((B.conj().T @ U - Vt.conj().T * values).astype(U.dtype), axis=0)
    exact = np.linalg.svd(B.astype(U.dtype), compute_uv=False)
    measured, said = np.maximum(left, right) / (exact[0] or 1.0), result.residuals
    assert np.isfinite(said).all()
    # Of double precision: what LAPACK and these products round. Of single: triplets are rounded after they were judged.
    slack = (100 if s.dtype == np.float64 else 2) * eps + grain / scale / (exact[0] or 1.0)
    # Over s_1 as it was found, which is not above the true one, so what is said may be more.
    assert (measured <= said * 1.01 + slack).all(), f"said {said}, is {measured}"
    loss = 1e-11 if s.dtype == np.float64 else 1e-6
    for side in (U, Vt.conj().T):
        np.testing.assert_allclose(side.conj().T @ side, np.eye(len(s)), rtol=0, atol=loss)
    assert (np.diff(s) <= 0).all()
    values = values.astype(np.float64)
    # Each value lies within its residual of some singular value.
    distance = np.abs(values[:, None] - exact).min(axis=1) / (exact[0] or 1.0)
    assert (distance <= said + slack).all(), f"values are off by {distance}, said {said}"
    return values, exact
