"""`svds` against dense LAPACK, over formats, dtypes, orientations and hard spectra."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, aslinearoperator
from spectra import with_spectrum

from fastfactor.decomposition import svd, svds
from fastfactor.solvers import dispatch, triplets

FORMATS = ["csr", "csc", "coo", "lil", "dok", "dia", "bsr"]
pytestmark = pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


@pytest.fixture
def no_lapack(monkeypatch):
    """Send small problems through the Krylov solver too."""
    monkeypatch.setattr(dispatch, "LAPACK_WORK", 0)
    monkeypatch.setattr(dispatch, "LAPACK_SIZE", 0)
    monkeypatch.setattr(triplets, "GRAM_LIMIT", 0)


def random_sparse(m, n, dtype=np.float64, density=0.1, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((m, n)) * (rng.random((m, n)) < density) * 0.97 ** np.arange(n)
    if np.dtype(dtype).kind == "c":
        values = values * np.exp(2j * np.pi * rng.random((m, n)))
    return values.astype(dtype)


def residual(A, u, s, vh):
    left = np.linalg.norm(A @ vh.conj().T - u * s, axis=0)
    right = np.linalg.norm(A.conj().T @ u - vh.conj().T * s, axis=0)
    return max(left.max(), right.max()) / (s.max() or 1.0)


def assert_svd(A, u, s, vh, tol=1e-10):
    """Ascending values, orthonormal vectors, small residuals, and no larger value left out."""
    k = len(s)
    assert np.all(np.diff(s) >= 0)
    assert residual(A.astype(np.result_type(A.dtype, np.float64)), u, s, vh) <= tol
    np.testing.assert_allclose(u.conj().T @ u, np.eye(k), atol=10 * tol)
    np.testing.assert_allclose(vh @ vh.conj().T, np.eye(k), atol=10 * tol)
    reference = scipy.linalg.svdvals(A.astype(np.result_type(A.dtype, np.float64)))[:k][::-1]
    np.testing.assert_allclose(s, reference, atol=tol * reference.max())


@pytest.mark.parametrize("shape", [(300, 180), (180, 300), (220, 220)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_formats_agree_with_lapack(shape, dtype):
    A = random_sparse(*shape, dtype)
    tol = 3e-6 if np.dtype(dtype).char in "fF" else 1e-10
    for operand in [A, np.asfortranarray(A), aslinearoperator(A), *(sp.coo_array(A).asformat(f) for f in FORMATS)]:
        u, s, vh = svds(operand, k=7)
        assert u.dtype == vh.dtype == dtype
        assert s.dtype == np.real(A).dtype
        assert_svd(A, u, s, vh, tol)


def test_spmatrix_and_integers():
    A = sp.random(300, 200, 0.1, format="csr", random_state=0)
    A.data = np.round(10 * A.data).astype(np.int64)
    A = A.astype(np.int64)
    u, s, vh = svds(A, k=5)
    assert s.dtype == np.float64
    assert_svd(A.toarray(), u, s, vh)


def test_unsorted_duplicates_are_summed():
    rng = np.random.default_rng(0)
    rows, cols, values = rng.integers(0, 300, 4000), rng.integers(0, 200, 4000), rng.standard_normal(4000)
    A = sp.coo_array((values, (rows, cols)), shape=(300, 200))
    assert_svd(A.toarray(), *svds(A, k=5))
    csr = sp.csr_array(
        (np.ones(600), np.zeros(600, int) + rng.integers(0, 200, 600), 2 * np.arange(301)), shape=(300, 200)
    )
    assert_svd(csr.toarray(), *svds(csr, k=5))


@pytest.mark.usefixtures("no_lapack")
@pytest.mark.parametrize("k", [1, 6, 20, 50])
@pytest.mark.parametrize("dense", [True, False])
def test_numbers_of_triplets(k, dense):
    A = random_sparse(402, 301, density=0.2)
    assert_svd(A, *svds(A if dense else sp.csr_array(A), k=k))


@pytest.mark.usefixtures("no_lapack")
@pytest.mark.parametrize("copies", [3, 8, 20, 40])
def test_repeated_values(copies):
    s = np.concatenate([[3.0], np.full(copies, 2.0), np.linspace(1.0, 0.01, 200)])
    A = with_spectrum(s, shape=(400, 300))
    assert_svd(A, *svds(A, k=min(copies, 20) + 1))


@pytest.mark.usefixtures("no_lapack")
@pytest.mark.parametrize("rank", [0, 1, 5, 12])
@pytest.mark.parametrize("sparse", [True, False])
def test_rank_below_k(rank, sparse):
    A = with_spectrum(np.linspace(2.0, 1.0, rank), shape=(300, 200)) if rank else np.zeros((300, 200))
    u, s, vh = svds(sp.csr_array(A) if sparse else A, k=12)
    assert_svd(A, u, s, vh)
    assert np.all(s[: 12 - rank] <= 1e-12)


@pytest.mark.usefixtures("no_lapack")
def test_identity():
    u, s, vh = svds(sp.eye_array(400, format="csr"), k=20)
    assert_svd(np.eye(400), u, s, vh)


@pytest.mark.usefixtures("no_lapack")
@pytest.mark.parametrize("smallest", [1e-4, 1e-8, 1e-12])
def test_graded_spectrum(smallest):
    """A^H A alone would lose the values below 1e-8."""
    s = np.concatenate([np.geomspace(1.0, smallest, 20), smallest * 0.3 ** np.arange(1, 10)])
    A = with_spectrum(s, shape=(400, 300))
    u, found, vh = svds(A, k=20)
    assert_svd(A, u, found, vh)
    u, found, vt = svd(sp.csr_array(A), k=20, tol=1e-13)
    assert_svd(A, u[:, ::-1], found[::-1], vt[::-1], 1e-13)
    np.testing.assert_allclose(found, s[:20], rtol=1e-3 if smallest < 1e-10 else 1e-6)


@pytest.mark.parametrize("scale", [1e-200, 1e-150, 1e150, 1e200])
@pytest.mark.parametrize("kind", ["dense", "sparse", "operator"])
def test_extreme_scales(scale, kind):
    A = random_sparse(300, 200)
    scaled = {"dense": A * scale, "sparse": sp.csr_array(A * scale), "operator": aslinearoperator(A * scale)}[kind]
    u, s, vh = svds(scaled, k=4)
    assert_svd(A, u, s / scale, vh)


@pytest.mark.parametrize("shape", [(1, 30), (30, 1), (1, 1), (2, 300_000)])
def test_thin_shapes(shape):
    A = np.random.default_rng(0).standard_normal(shape)
    assert_svd(A, *svds(A, k=1, solver="propack"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [10, 300])
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array, sp.csc_array, aslinearoperator])
def test_not_finite(bad, size, kind):
    A = random_sparse(size, size, density=0.5)
    A[3, 4] = bad
    with pytest.raises(ValueError, match="infinities or NaNs"), np.errstate(invalid="ignore"):
        svds(kind(A), k=3)


def test_smallest():
    A = random_sparse(300, 120, density=0.4) + 5 * np.eye(300, 120)
    reference = scipy.linalg.svdvals(A)[::-1][:4]
    for operand in (A, sp.csr_array(A), sp.csr_array(A.T), aslinearoperator(A)):
        u, s, vh = svds(operand, k=4, which="SM")
        np.testing.assert_allclose(s, reference, rtol=1e-10)
        assert residual(A if u.shape[0] == 300 else A.T, u, s, vh) <= 1e-9


@pytest.mark.usefixtures("no_lapack")
def test_smallest_by_krylov():
    A = with_spectrum(np.linspace(2.0, 1.0, 300) ** 3, shape=(500, 300))
    u, s, vh = svds(sp.csr_array(A), k=3, which="SM")
    np.testing.assert_allclose(s, scipy.linalg.svdvals(A)[::-1][:3], rtol=1e-9)
    assert residual(A, u, s, vh) <= 1e-9


def test_thread_count_changes_no_bit():
    A = sp.csr_array(random_sparse(900, 400))
    results = [svds(A, k=10, n_threads=n) for n in (1, 2)]
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_equal_calls_give_equal_bits_and_start_matters_only_to_rounding():
    A = sp.csr_array(random_sparse(900, 400))
    first, second = svds(A, k=5), svds(A, k=5)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    for other in (svds(A, k=5, rng=3), svds(A, k=5, random_state=3), svds(A, k=5, v0=np.ones(400))):
        np.testing.assert_allclose(other[1], first[1], rtol=1e-12)
        np.testing.assert_allclose(other[2], first[2], atol=1e-7)
    with pytest.raises(TypeError, match="both"):
        svds(A, k=5, rng=1, random_state=2)


def test_propack_start_is_for_the_rows():
    A = sp.csr_array(random_sparse(900, 400))
    np.testing.assert_allclose(svds(A, k=3, v0=np.ones(900), solver="propack")[1], svds(A, k=3)[1], rtol=1e-12)


def test_signs_are_fixed():
    _, _, vh = svds(sp.csr_array(random_sparse(900, 400, np.complex128)), k=5)
    pivots = vh[np.arange(5), np.abs(vh).argmax(axis=1)]
    assert np.all(np.abs(pivots.imag) < 1e-14)
    assert np.all(pivots.real > 0)


def test_inputs_are_left_alone():
    dense = random_sparse(300, 200)
    A = sp.csr_array(dense)
    before = A.data.copy(), A.indices.copy(), dense.copy()
    svds(A, k=3)
    svds(dense, k=3)
    np.testing.assert_array_equal(A.data, before[0])
    np.testing.assert_array_equal(A.indices, before[1])
    np.testing.assert_array_equal(dense, before[2])


def flat_matrix():
    return sp.csr_array(np.random.default_rng(0).standard_normal((900, 700)))


def test_failure_is_reported():
    A = flat_matrix()
    with pytest.raises(ArpackNoConvergence, match="No convergence"):
        svds(A, k=10, maxiter=1)
    with pytest.raises(np.linalg.LinAlgError, match="did not converge within"):
        svds(A, k=10, maxiter=1, solver="propack")
    with pytest.warns(UserWarning, match="Exited at iteration"):
        svds(A, k=10, maxiter=1, solver="lobpcg")


def test_operator_with_matvec_only():
    A = random_sparse(300, 200)
    operator = LinearOperator(A.shape, matvec=lambda x: A @ x, rmatvec=lambda x: A.T @ x, dtype=A.dtype)
    assert_svd(A, *svds(operator, k=4))


@pytest.mark.parametrize("rng", [np.random.RandomState(0), np.random.default_rng(0), np.int64(3)])
def test_kinds_of_rng(rng):
    svds(sp.csr_array(random_sparse(300, 200)), k=2, rng=rng)


def test_wrong_rng():
    with pytest.raises(ValueError, match="neither a NumPy Generator"):
        svds(np.eye(5), k=2, rng="zero")
