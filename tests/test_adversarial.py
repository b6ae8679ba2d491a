"""Spectra that mislead iterations: values agree with LAPACK, and what a certificate says is true, converged or not."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from campaign import run_shards, tell
from scipy.sparse.linalg import aslinearoperator
from spectra import MATRICES, in_long, judge, sparse_by_chance

import fastfactor as ff
from fastfactor.exceptions import ConvergenceWarning
from fastfactor.solvers import dispatch, triplets

K = 9
EPS = np.finfo(np.float64).eps


@pytest.fixture(autouse=True)
def no_lapack(monkeypatch):
    monkeypatch.setattr(dispatch, "LAPACK_WORK", 0)
    monkeypatch.setattr(triplets, "GRAM_LIMIT", 0)


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


@pytest.mark.parametrize("tol", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("name", MATRICES)
def test_certificates_of_loose_tolerances_are_true(name, dtype, tol):
    """Where the iteration runs in single precision, and, if it has to, once more in double."""
    A = MATRICES[name]()
    A = A if dtype.startswith("complex") else A.real
    with np.errstate(over="ignore", under="ignore"):
        A = A.astype(dtype)
    if not np.isfinite(A).all():
        pytest.skip("has no such matrix in single precision")
    if dtype.startswith("complex"):
        A *= np.exp(1j * np.arange(A.shape[1]))
    for max_passes in (None, 2, 7):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result = ff.svd(sp.csr_array(A), K, tol=tol, max_passes=max_passes)
        s, exact = judge(A, result)
        assert result.converged == (not said) == bool((result.residuals <= tol).all())
        assert all(issubclass(each.category, ConvergenceWarning) for each in said)
        if max_passes is None:
            assert result.converged
            np.testing.assert_allclose(s, exact[:K], rtol=0, atol=1.01 * tol * (exact[0] or 1.0))


@pytest.mark.parametrize("exponent", [*range(-44, 38, 2), -300, -200, -150, -100, -60, 60, 100, 150, 200, 300])
def test_single_precision_serves_values_of_any_size(exponent):
    """Passes square twice: entries of 1e10 overflowed there, and were said to be infinite."""
    A = sparse_by_chance(1.0)
    usual = ff.svd(sp.csr_array(A), K, tol=1e-3)
    for dtype in ("float32", "float64")[abs(exponent) > 44 :]:
        B = (A * 10.0**exponent).astype(dtype)
        result = ff.svd(sp.csr_array(B), K, tol=1e-3)
        judge(B, result)
        assert result.converged
        if abs(exponent) < 38:  # others lose digits by being stored
            assert result.n_passes == usual.n_passes


@pytest.mark.parametrize("count", [120, pytest.param(20_000, marks=pytest.mark.long)])
def test_random_spectra(tmp_path, count):
    """Of any kind, size, dtype and form, to any tolerance: nothing that is said of a triplet is untrue."""
    outcomes, faults = run_shards("spectra_calls.py", count, max(60, count // 20), tmp_path)
    assert not faults, tell(faults)
    assert sum(outcomes.values()) == count
    assert sum(n for name, n in outcomes.items() if name.endswith("leading")) > count / 4
    assert sum(n for name, n in outcomes.items() if name.endswith("short")) > count / 20


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
