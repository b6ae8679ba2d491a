import numpy as np
import pytest
import scipy.sparse as sp

from bench import data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    sparse = sp.csr_matrix((np.array([1, 0, 3], np.float32), ([0, 1, 1], [2, 0, 1])), shape=(2, 3))
    sp.save_npz(tmp_path / "sparse.npz", sparse)
    np.savez(tmp_path / "faces.npz", dense=np.arange(6, dtype=np.uint8).reshape(2, 3))
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    return tmp_path


def test_load_reads_both_kinds(folder):
    assert data.names() == ["faces", "sparse"]
    sparse, dense = data.load("sparse"), data.load("faces")
    assert sparse.dtype == dense.dtype == np.float64
    assert sparse.nnz == 3  # the explicit zero is an entry
    np.testing.assert_array_equal(dense, [[0, 1, 2], [3, 4, 5]])


def test_what_is_missing_is_said(folder, monkeypatch):
    with pytest.raises(data.MissingDataError, match=r"no nothing\.npz"):
        data.load("nothing")
    monkeypatch.delenv(data.VARIABLE)
    assert data.names() == []
    with pytest.raises(data.MissingDataError, match="FASTFACTOR_DATA is not set"):
        data.load("sparse")


def test_split_deals_every_entry_once():
    matrix = sp.random(100, 80, 0.3, format="csr", rng=0)
    parts = data.split(matrix)
    assert [part.shape for part in parts] == [(100, 80)] * 3
    assert sum(part.nnz for part in parts) == matrix.nnz
    assert abs(parts[0].nnz - 0.8 * matrix.nnz) < 150
    assert (sum(part.tocsr() for part in parts) != matrix).nnz == 0


def test_split_follows_the_published_rule():
    matrix = sp.random(30, 20, 0.5, format="csr", rng=0)
    entries = matrix.tocoo()
    draw = np.random.default_rng(0).random(entries.nnz)
    train, validation, test = data.split(matrix)
    np.testing.assert_array_equal(test.data, entries.data[draw < 0.1])
    np.testing.assert_array_equal(validation.data, entries.data[(draw >= 0.1) & (draw < 0.2)])
    np.testing.assert_array_equal(train.data, entries.data[draw >= 0.2])
