"""`pca` against the SVD of the centred dense matrix."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator
from test_svds import random_sparse

from fastfactor.decomposition import pca
from fastfactor.exceptions import ConvergenceWarning


def reference(X, center, scale):
    mean = X.mean(axis=0) if center else np.zeros(X.shape[1])
    deviation = X.std(axis=0) if scale else np.ones(X.shape[1])
    deviation[deviation == 0.0] = 1.0
    return (X - mean) / deviation


@pytest.mark.parametrize("shape", [(900, 300), (300, 900), (40, 30)])
@pytest.mark.parametrize(("center", "scale"), [(True, False), (False, False), (True, True), (False, True)])
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array, sp.csc_matrix, sp.coo_array])
def test_equals_dense_svd(shape, center, scale, kind):
    X = random_sparse(*shape) + 0.5 * (random_sparse(*shape, seed=1) != 0)
    X[:, 3] = 0.0
    Z = reference(X, center, scale)
    result = pca(kind(X), 5, center=center, scale=scale)
    U, s, Vt = result
    np.testing.assert_allclose(s, np.linalg.svd(Z, compute_uv=False)[:5], rtol=1e-9)
    np.testing.assert_allclose(Z @ Vt.T, U * s, atol=1e-8 * s[0])
    np.testing.assert_allclose(result.mean, X.mean(axis=0) if center else 0.0, atol=1e-14)
    np.testing.assert_allclose(result.explained_variance_ratio, s**2 / np.linalg.norm(Z) ** 2, rtol=1e-8)
    np.testing.assert_allclose(result.transform(kind(X)), U * s, atol=1e-8 * s[0])
    assert result.converged


def test_complex():
    X = random_sparse(500, 300, np.complex128) + 0.2
    Z = X - X.mean(axis=0)
    for kind in (np.asarray, sp.csr_array):
        for matrix, centred in ((X, Z), (X.T, X.T - X.T.mean(axis=0))):
            result = pca(kind(matrix), 4)
            np.testing.assert_allclose(result.s, np.linalg.svd(centred, compute_uv=False)[:4], rtol=1e-9)


def test_a_large_mean_does_not_drown_the_rest():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 300)) * 0.97 ** np.arange(300) + 1e4
    Z = X - X.mean(axis=0)
    for kind in (np.asarray, sp.csr_array):
        np.testing.assert_allclose(pca(kind(X), 5, tol=1e-6).s, np.linalg.svd(Z, compute_uv=False)[:5], rtol=1e-7)


def test_repeated_entries_count_as_their_sum():
    rng = np.random.default_rng(0)
    rows, cols, values = rng.integers(0, 900, 9000), rng.integers(0, 300, 9000), rng.standard_normal(9000)
    X = sp.coo_array((values, (rows, cols)), shape=(900, 300))
    Z = reference(X.toarray(), True, True)
    np.testing.assert_allclose(pca(X, 4, scale=True).s, np.linalg.svd(Z, compute_uv=False)[:4], rtol=1e-9)


def test_full_rank_and_words():
    X = random_sparse(50, 10, density=0.8)
    result = pca(X, 10)
    assert result.explained_variance_ratio.sum() == pytest.approx(1.0)
    assert result.components is result.Vt
    assert result.explained_variance.sum() == pytest.approx(X.var(axis=0, ddof=1).sum())


def test_wrong_arguments():
    with pytest.raises(TypeError, match="X must be an array or a sparse matrix"):
        pca(aslinearoperator(np.eye(5)), 2)
    with pytest.raises(ValueError, match="infinities or NaNs"):
        pca(np.full((5, 5), np.nan), 2)
    with pytest.raises(ValueError, match="k must be between"):
        pca(np.eye(5), 6)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_means_of_sparse_columns_are_summed_in_double(dtype):
    """In single precision 200,000 numbers around 1.5 are added with an error of 1e-5."""
    rng = np.random.default_rng(0)
    X = sp.csr_array((rng.random((200_000, 8)) < 0.3).astype(dtype))
    X.data[:] = 1 + rng.random(X.nnz) + (1j * rng.random(X.nnz) if dtype == "complex64" else 0)
    expected = X.astype("complex128" if dtype == "complex64" else "float64").mean(axis=0)
    assert np.abs(pca(X, 2).mean - expected).max() < 1e-7


def test_a_short_result_warns_the_caller():
    X = sp.csr_array(np.random.default_rng(0).standard_normal((900, 700)))
    with pytest.warns(ConvergenceWarning, match="triplets reached the residual") as caught:
        pca(X, 10, max_passes=8)
    assert caught[0].filename == __file__


def test_new_rows_that_do_not_fit_are_named():
    result = pca(random_sparse(40, 30), 2)
    for X in (np.ones(30), np.ones((3, 5)), sp.csr_array((3, 5))):
        with pytest.raises(ValueError, match=r"X has shape .*, the components are of 30 columns"):
            result.transform(X)
    bad = sp.csr_array(random_sparse(40, 30))
    bad.indices[0] = 1 << 20
    with pytest.raises(ValueError, match=r"X: column index\[0\] is 1048576, outside 0\.\.29"):
        result.transform(bad)
