"""The truncated SVD of matrices in files: the same triplets, one reading a pass, pages dropped behind."""

import time

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.matrix import mapped
from fastfactor.matrix.streaming import AdjointOperand, MappedOperand, as_stream, is_stream

K = 5


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(mapped, "PIECE", 500)


@pytest.fixture(scope="module")
def matrix():
    """900 x 200, a twentieth stored, singular values that fall."""
    rng = np.random.default_rng(3)
    X = sp.random_array((900, 200), density=0.05, rng=rng, data_sampler=rng.standard_normal).tocsr()
    return sp.csr_array(sp.diags_array(0.99 ** np.arange(900)) @ X @ sp.diags_array(0.95 ** np.arange(200)))


def map_arrays(X, folder, mode="r"):
    """Return the same matrix with its arrays in files."""
    folder.mkdir(exist_ok=True)
    parts = []
    for name in ("data", "indices", "indptr"):
        np.save(folder / f"{name}.npy", getattr(X, name))
        parts.append(np.load(folder / f"{name}.npy", mmap_mode=mode))
    mapped_one = type(X)(tuple(parts), shape=X.shape)
    assert mapped_one.data.base is not None
    return mapped_one


@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_triplets_are_those_of_memory(matrix, tmp_path, form, wide, dtype):
    X = (matrix.T if wide else matrix).asformat(form).astype(dtype)
    if dtype == "complex128":
        X.data = X.data * np.exp(1j * np.arange(X.nnz))
    A = map_arrays(X, tmp_path / "arrays")
    assert is_stream(A)
    assert not is_stream(X)
    found, expected = ff.svd(A, K, tol=1e-8), ff.svd(X, K, tol=1e-8)
    np.testing.assert_allclose(found.s, expected.s, rtol=1e-6)
    np.testing.assert_allclose((found.U * found.s) @ found.Vt, (expected.U * expected.s) @ expected.Vt, atol=1e-5)
    np.testing.assert_allclose(found.frobenius_norm, expected.frobenius_norm, rtol=1e-5)
    assert found.converged
    again = ff.svd(A, K, tol=1e-8, n_threads=1)
    np.testing.assert_array_equal(found.U, again.U)


def test_products_are_those_of_the_matrix(matrix, tmp_path):
    rng = np.random.default_rng(0)
    A = map_arrays(matrix, tmp_path / "arrays")
    operand = as_stream(A, is_adjoint=False)
    assert isinstance(operand, MappedOperand)
    assert sum(1 for _ in operand.walk()) > 10
    V, U = rng.standard_normal((200, 16)), rng.standard_normal((900, 16))
    dense = matrix.toarray() * operand.scale
    np.testing.assert_allclose(operand.multiply(V), dense @ V, atol=1e-12)
    np.testing.assert_allclose(operand.adjoint(U), dense.T @ U, atol=1e-12)
    s = np.linspace(1, 2, 16)
    for found, expected in zip(operand.triplets(V, s), (dense @ V / s, dense.T @ (dense @ V / s)), strict=True):
        np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-12)
        assert not found[len(expected) :].any()
    norms = np.linalg.norm(dense @ V - U * s, axis=0), np.linalg.norm(dense.T @ U - V * s, axis=0)
    np.testing.assert_allclose(operand.certify(V, U, s), norms, rtol=1e-12)
    turned = as_stream(map_arrays(sp.csr_array(matrix.T), tmp_path / "turned"), is_adjoint=True)
    assert isinstance(turned, AdjointOperand)
    np.testing.assert_allclose(turned.multiply(V), dense @ V, atol=1e-12)


def test_each_piece_is_read_and_dropped(matrix, tmp_path, monkeypatch):
    asked, dropped = [], []
    monkeypatch.setattr(mapped, "touch_pages", lambda array, start, stop: asked.append((start, stop)))
    monkeypatch.setattr(mapped, "drop_pages", lambda array, start, stop: dropped.append((start, stop)))
    A = map_arrays(matrix, tmp_path / "arrays")
    as_stream(A, is_adjoint=False).multiply(np.ones((200, 8)))
    assert sorted(set(dropped))[0][0] == 0
    assert sorted(set(dropped))[-1][1] == matrix.nnz
    assert asked
    assert set(asked) <= set(dropped)  # what is dropped before its turn came is not read


def test_a_grid_on_disk_is_decomposed(matrix, tmp_path):
    grid = ff.io.build_grid(matrix, tmp_path / "grid")
    assert is_stream(grid.matrix)
    np.testing.assert_allclose(ff.svd(grid, K).s, ff.svd(matrix, K).s, rtol=1e-9)
    np.testing.assert_allclose(ff.svds(grid, K)[1], ff.svds(matrix, K)[1], rtol=1e-9)


@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("options", [{}, {"scale": True}, {"center": False, "scale": True}], ids=str)
def test_components_are_those_of_memory(matrix, tmp_path, monkeypatch, form, wide, options):
    X = (matrix.T if wide else matrix).asformat(form)
    X.data += 0.3
    A = map_arrays(X, tmp_path / "arrays")
    dropped = []
    monkeypatch.setattr(mapped, "drop_pages", lambda array, *part: dropped.append(part))
    found, expected = ff.pca(A, K, **options), ff.pca(X.toarray(), K, **options)
    assert dropped
    np.testing.assert_allclose(found.s, expected.s, rtol=1e-9)
    np.testing.assert_allclose((found.U * found.s) @ found.Vt, (expected.U * expected.s) @ expected.Vt, atol=1e-8)
    for name in ("mean", "scale", "frobenius_norm"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("size", [1e-200, 1e245])
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_squares_of_what_lies_in_files_neither_overflow_nor_vanish(matrix, tmp_path, size, form):
    A = map_arrays(matrix.asformat(form) * size, tmp_path / "arrays")
    for scale in (False, True):
        found, expected = ff.pca(A, K, scale=scale), ff.pca(matrix.toarray(), K, scale=scale)
        np.testing.assert_allclose(found.s / (1 if scale else size), expected.s, rtol=1e-9)
        np.testing.assert_allclose(found.mean / size, expected.mean, rtol=1e-10)
        np.testing.assert_allclose(np.abs(np.sum(found.Vt * expected.Vt, axis=1)), 1.0, rtol=1e-8)


def test_duplicates_count_as_their_sum(tmp_path):
    rng = np.random.default_rng(1)
    indices, indptr = rng.integers(0, 150, 6000).astype(np.int32), np.arange(0, 6001, 10).astype(np.int32)
    X = sp.csr_array((rng.standard_normal(6000), indices, indptr), shape=(600, 150))
    A = map_arrays(X, tmp_path / "arrays")
    expected = np.linalg.norm(X.toarray())
    np.testing.assert_allclose(ff.svd(A, K).frobenius_norm, expected, rtol=1e-12)


def test_bad_values_are_found(matrix, tmp_path):
    X = matrix.copy()
    X.data[-1] = np.nan
    with pytest.raises(ValueError, match="must not contain infinities or NaNs"):
        ff.svd(map_arrays(X, tmp_path / "arrays"), K)


def test_changes_of_a_mapping_of_its_own_are_kept(matrix, tmp_path):
    A = map_arrays(matrix, tmp_path / "arrays", mode="c")
    assert not is_stream(A)
    A.data[:] *= 2
    before = A.data.copy()
    np.testing.assert_allclose(ff.svd(A, K).s, 2 * ff.svd(matrix, K).s, rtol=1e-9)
    np.testing.assert_array_equal(A.data, before)


def test_arrays_in_memory_are_no_files():
    for array in (np.ones(3), np.ones((4, 4)).T, np.ones(5)[1:], np.empty(0)):
        assert mapped.find_mapping(array) is None
        mapped.drop_pages(array)  # does nothing
        assert mapped.as_pages(array) is array


def test_pages_that_are_read_late_are_dropped_too(matrix, tmp_path, monkeypatch):
    """The reader of the next piece may be slower than who works on it."""
    steps = []

    def touch(array, start, stop):
        time.sleep(0.01)
        steps.append(("touched", start, stop))

    monkeypatch.setattr(mapped, "touch_pages", touch)
    monkeypatch.setattr(mapped, "drop_pages", lambda array, start, stop: steps.append(("dropped", start, stop)))
    A = map_arrays(matrix, tmp_path / "arrays")
    assert len(list(mapped.walk_rows(A.indptr, (A.indices, A.data)))) > 4
    for i, (what, start, stop) in enumerate(steps):
        if what == "touched":
            assert ("dropped", start, stop) in steps[i:]
