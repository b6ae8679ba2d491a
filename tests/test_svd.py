"""`svd` and its result: certificates, warnings, eigh, pinv, errors, and the SVD of given factors."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator
from spectra import with_spectrum
from test_svds import assert_svd, random_sparse, residual

from fastfactor.decomposition import SVDResult, svd
from fastfactor.exceptions import ConvergenceWarning
from fastfactor.solvers import triplets


def test_unpacks_descending_with_a_certificate():
    A = sp.csr_array(random_sparse(900, 400))
    result = svd(A, 12)
    U, s, Vt = result
    assert np.all(np.diff(s) <= 0)
    assert_svd(A.toarray(), U[:, ::-1], s[::-1], Vt[::-1])
    assert result.converged is True
    assert result.n_passes > 1
    left = np.linalg.norm(A @ Vt.T - U * s, axis=0)
    right = np.linalg.norm(A.T @ U - Vt.T * s, axis=0)
    np.testing.assert_allclose(result.residuals, np.maximum(left, right) / s[0], atol=1e-14)


@pytest.mark.parametrize("short", [1, 20, 150])
def test_all_triplets(short):
    A = random_sparse(300, short, density=0.5)
    for operand in (A, sp.csr_array(A), sp.csr_array(A.T).T, aslinearoperator(A)):
        U, s, Vt = svd(operand, short)
        np.testing.assert_allclose((U * s) @ Vt, A, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_names_the_precision(dtype):
    for A in (random_sparse(300, 200), random_sparse(300, 200, np.complex64), np.arange(60000).reshape(300, 200)):
        U, s, Vt = svd(A, 3, dtype=dtype)
        assert s.dtype == dtype
        assert U.dtype == Vt.dtype == (np.result_type(dtype, np.complex64) if A.dtype.kind == "c" else dtype)


def test_short_result_warns():
    A = sp.csr_array(np.random.default_rng(0).standard_normal((900, 700)))
    message = r"0 of 10 singular triplets reached the residual 1\.0e-10 in 8 passes"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        result = svd(A, 10, max_passes=8)
    assert caught[0].filename == __file__
    assert not result.converged
    assert result.residuals.max() == pytest.approx(residual(A.toarray(), *result), rel=1e-6)


def with_noise(s, shape, dtype):
    """A matrix with these leading singular values, and about a hundredth of the least in noise."""
    rng = np.random.default_rng(0)
    A = with_spectrum(s, shape=shape) + 1e-2 * s[-1] * rng.standard_normal(shape) / sum(shape) ** 0.5
    return sp.csr_array(A.astype(dtype) if np.dtype(dtype).kind == "f" else A + 1j * A[::-1])


@pytest.mark.parametrize("shape", [(3000, 400), (400, 3000)])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("ratio", [6.0, 1.002, 0.998])
def test_left_vectors_are_orthonormal_on_both_sides_of_flat(ratio, dtype, shape, monkeypatch):
    calls = []
    monkeypatch.setattr(triplets, "_finish_flat", lambda *args, f=triplets._finish_flat: calls.append(1) or f(*args))
    least = ratio * triplets.FLAT
    A = with_noise(np.concatenate([np.geomspace(1.0, least, 20), np.full(20, least / 2)]), shape, dtype)
    for tol in (1e-10, 1e-5):
        result = svd(A, 20, tol=tol, dtype=np.float64)
        for Q in (result.U, result.Vt.conj().T):
            assert np.abs(Q.conj().T @ Q - np.eye(20)).max() <= triplets.ORTHONORMAL
        exact = residual(A.toarray(), *result)
        assert exact <= tol
        assert result.residuals.max() == pytest.approx(exact, rel=1e-6, abs=1e-14)
    assert len(calls) == (2 if ratio > 1.0 else 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("least", [0.2, 1e-3, 1e-7])
def test_single_precision_is_only_a_way_to_the_answer(dtype, least, monkeypatch):
    """Loose tolerances are met from an iteration in single precision, or by another in double where that cannot be."""
    seen = []

    class Seen(triplets.Basis):
        def __post_init__(self):
            seen.append(self.dtype.itemsize // (2 if self.dtype.kind == "c" else 1))
            super().__post_init__()

    monkeypatch.setattr(triplets, "Basis", Seen)
    A = with_noise(np.geomspace(1.0, least, 40), (700, 500), dtype)
    result = svd(A, 10, tol=1e-5, dtype=np.float64)
    dense = A.toarray().astype(np.result_type(A.dtype, np.float64))
    assert seen[0] == 4
    assert residual(dense, *result) <= 1e-5
    assert result.residuals.max() == pytest.approx(residual(dense, *result), rel=1e-6, abs=1e-14)
    exact = scipy.linalg.svdvals(dense)
    distances = np.abs(result.s[:, None] - exact)
    np.fill_diagonal(distances, np.inf)  # from a value to the others
    allowed = (result.residuals * exact[0]) ** 2 / distances.min(axis=1) + 1e-14 * exact[0]  # Kato and Temple
    assert np.all(np.abs(result.s - exact[:10]) <= allowed)
    for Q in (result.U, result.Vt.conj().T):
        np.testing.assert_allclose(Q.conj().T @ Q, np.eye(10), atol=1e-12)
    seen.clear()
    svd(A, 10, tol=1e-7, dtype=np.float64)
    assert seen[0] == 8


def test_tolerance_is_kept_and_cheaper_when_loose():
    A = sp.csr_array(random_sparse(900, 600))
    loose, tight = svd(A, 10, tol=1e-3), svd(A, 10, tol=1e-12)
    assert loose.residuals.max() <= 1e-3
    assert tight.residuals.max() <= 1e-12
    assert loose.n_passes < tight.n_passes


def test_seed_changes_the_start_only():
    A = sp.csr_array(random_sparse(900, 400))
    np.testing.assert_allclose(svd(A, 5, seed=1).s, svd(A, 5, seed=2).s, rtol=1e-12)
    np.testing.assert_array_equal(svd(A, 5, seed=1).U, svd(A, 5, seed=1).U)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be between 1 and"),
        ({"k": 6}, ValueError, "k must be between 1 and"),
        ({"k": 2.0}, TypeError, "k must be an integer"),
        ({"k": True}, TypeError, "k must be an integer"),
        ({"tol": 0.0}, ValueError, "tol must be"),
        ({"tol": np.nan}, ValueError, "tol must be"),
        ({"max_passes": 0}, ValueError, "max_passes must be"),
        ({"max_passes": 1.5}, TypeError, "max_passes must be"),
        ({"dtype": np.int32}, ValueError, "dtype must be float32 or float64"),
        ({"n_threads": 0}, ValueError, "n_threads must be"),
        ({"A": "text"}, TypeError, "type not understood"),
        ({"A": np.zeros((0, 3))}, ValueError, "must not be empty"),
        ({"A": np.array([[None]])}, ValueError, "numeric"),
    ],
)
def test_wrong_arguments(changes, error, message):
    arguments = {"A": np.eye(5), "k": 2} | changes
    with pytest.raises(error, match=message):
        svd(**arguments)


def test_eigh():
    A = random_sparse(300, 200, np.complex128)
    result = svd(A, 5)
    for side, square in (("left", A @ A.conj().T), ("right", A.conj().T @ A)):
        w, Q = result.eigh(side=side)
        np.testing.assert_allclose(square @ Q, Q * w, atol=1e-9 * w[0])
        np.testing.assert_allclose(w, np.linalg.eigvalsh(square)[::-1][:5], rtol=1e-10)
    with pytest.raises(ValueError, match="side must be"):
        result.eigh(side="both")


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_pinv(dtype):
    rng = np.random.default_rng(0)
    A = random_sparse(300, 6, dtype, density=0.9) @ rng.standard_normal((6, 200))
    inverse = svd(A, 10).pinv(rcond=1e-10)
    reference = np.linalg.pinv(A, rcond=1e-10)
    assert inverse.shape == (200, 300)
    np.testing.assert_allclose(inverse @ np.eye(300), reference, atol=1e-11)
    np.testing.assert_allclose(inverse.matvec(A[:, 0]), reference @ A[:, 0], atol=1e-11)
    np.testing.assert_allclose(inverse.H @ np.eye(200), reference.conj().T, atol=1e-11)
    np.testing.assert_allclose(svd(A, 6).pinv() @ np.eye(300), reference, atol=1e-9)
    with pytest.raises(ValueError, match="rcond must be"):
        svd(A, 6).pinv(rcond=-1.0)


def test_pinv_of_zero():
    assert np.all(svd(np.zeros((5, 4)), 2).pinv() @ np.ones(5) == 0)


def test_approximation_error():
    A = random_sparse(300, 200)
    for operand in (A, sp.csr_array(A), sp.coo_array(A)):
        U, s, Vt = result = svd(operand, 7)
        assert result.approximation_error() == pytest.approx(np.linalg.norm(A - (U * s) @ Vt), rel=1e-10)
    assert svd(A * 1e-200, 7).approximation_error() == pytest.approx(1e-200 * result.approximation_error(), rel=1e-10)
    with pytest.raises(ValueError, match="LinearOperator"):
        svd(aslinearoperator(A), 7).approximation_error()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_from_factors(dtype):
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((n, 5)).astype(dtype) for n in (40, 30))
    result = SVDResult.from_factors(left, right)
    X = left @ right.conj().T
    np.testing.assert_allclose((result.U * result.s) @ result.Vt, X, atol=1e-4 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(result.s, scipy.linalg.svdvals(X)[:5], rtol=1e-5)
    assert result.U.dtype == dtype
    assert result.residuals.max() < 1e-5
    assert result.approximation_error() < 1e-2
    with pytest.raises(ValueError, match="same number of columns"):
        SVDResult.from_factors(left, right[:, :3])


def test_no_warning_leaks():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svd(np.zeros((300, 200)), 3)
        svd(sp.csr_array((300, 200)), 3)


def test_the_largest_number_is_found_in_the_other_byte_order():
    """It decides about the scale with which squares do not overflow."""
    A = np.random.default_rng(0).standard_normal((300, 200))
    A[7, 5] = 1e200
    assert svd(A.astype(A.dtype.newbyteorder()), 1).frobenius_norm == pytest.approx(1e200, rel=1e-12)
