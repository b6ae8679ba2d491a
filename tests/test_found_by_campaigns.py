"""What the campaigns found, each as the least that shows it: crashes, silent nonsense, errors that say nothing."""

import json
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp
import spectra_calls
from hostile_files import write_npy
from test_bad_input import coo, csc, csr
from test_storage import forge, make_model

import fastfactor as ff
from fastfactor import folders
from fastfactor.exceptions import DivergenceError
from fastfactor.manifest import MANIFEST
from fastfactor.model import Factorization
from fastfactor.solvers import dispatch, journal

PLAIN = {"max_epochs": 2, "regularization": 0.1, "validation": False}
FAR = 1 << 20
CORRUPT = {
    "csr": (lambda: csr(indices=(0, FAR, 1)), r": column index\[1\] is 1048576, outside 0..2"),
    "csc": (lambda: csc(indices=(0, 1, FAR)), r": row index\[2\] is 1048576, outside 0..1"),
    "indptr": (lambda: csr(indptr=(0, 2, FAR)), r".indptr ends at 1048576"),
    "coo": (lambda: coo(rows=(0, FAR, 1)), r": rows\[1\] is 1048576"),
}


@pytest.mark.parametrize("small", [True, False], ids=["LAPACK", "Krylov"])
@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt_matrices_do_not_end_the_process(name, small, monkeypatch):
    """Each of these was a look outside memory, in scipy's conversions or in ours."""
    monkeypatch.setattr(dispatch, "LAPACK_WORK", 10**9 if small else 0)
    make, message = CORRUPT[name]
    model = ff.fit(np.ones((2, 3)) + np.eye(2, 3), 1, unobserved="zero", max_epochs=1)
    good = sp.csr_array(np.ones((2, 3)) + np.eye(2, 3))
    for call, who in (
        (lambda X: ff.svds(X, 1), "A"),
        (lambda X: ff.svd(X, 1), "A"),
        (lambda X: ff.pca(X, 1), "X"),
        (model.transform, "X_new"),
        (lambda X: ff.fit(good, 1, sample_weight=X, **PLAIN), "sample_weight"),
    ):
        with pytest.raises(ValueError, match=who + message):
            call(make())


def test_corrupt_matrices_in_estimators():
    sklearn = pytest.importorskip("fastfactor.sklearn")
    for estimator in (sklearn.TruncatedSVD(1), sklearn.PCA(1), sklearn.MatrixFactorization(1)):
        with pytest.raises(ValueError, match=r"X: rows\[1\] is 1048576"):
            estimator.fit(CORRUPT["coo"][0]())


def test_a_list_of_lists_whose_column_is_outside():
    X = sp.lil_array(np.eye(3))
    X.rows[1][-1] = FAR
    for call in (lambda: ff.fit(X, 1, unobserved="zero"), lambda: ff.svd(X, 1)):
        with pytest.raises(ValueError, match=r"row 1: column index\[0\] is 1048576"):
            call()


@pytest.mark.parametrize("format", ["lil", "dok"])
def test_components_of_every_format(format):
    A = np.arange(12.0).reshape(4, 3) ** 2
    np.testing.assert_allclose(ff.pca(sp.csr_array(A).asformat(format), 2).s, ff.pca(A, 2).s)


def test_masks_are_not_dropped_in_silence():
    X = np.ma.masked_array(np.arange(6.0).reshape(2, 3), np.eye(2, 3))
    for call in (ff.fit, ff.svd, ff.svds, ff.pca):
        with pytest.raises(TypeError, match="masked array"):
            call(X, 1)
    assert ff.svd(np.ma.masked_array(np.eye(3)), 2).s.tolist() == [1.0, 1.0]


def test_triplets_are_no_matrix_of_three_rows():
    triplets = np.array([0, 1, 1]), np.array([0, 1, 2]), np.ones(3)
    for call in (ff.svd, ff.svds, ff.pca):
        with pytest.raises(TypeError, match="not triplets"):
            call(triplets, 1)


@pytest.mark.parametrize("bad", [complex(0, np.nan), complex(np.nan, 0), complex(0, np.inf)])
def test_nan_in_an_imaginary_part(bad):
    A = np.ones((200, 200), complex)
    A[3, 4] = bad
    for call in (ff.svd, ff.pca):
        with pytest.raises(ValueError, match="infinities or NaNs"):
            call(A, 1)


@pytest.mark.parametrize("small", [True, False])
def test_integers_that_are_stored_twice_do_not_wrap_around(small, monkeypatch):
    monkeypatch.setattr(dispatch, "LAPACK_WORK", 10**9 if small else 0)
    A = csr(data=(200, 100, 7), indices=(0, 0, 1), shape=(2, 3))
    A.data = A.data.astype(np.uint8)
    for each in (A, sp.coo_array((A.data, ([0, 0, 1], [0, 0, 1])), shape=(2, 3))):
        result = ff.svd(each, 1)
        assert result.s[0] == pytest.approx(300)
        assert result.frobenius_norm == pytest.approx(np.hypot(300, 7))
        assert ff.pca(each, 1, center=False).s[0] == pytest.approx(300)
    assert ff.fit(A, 1, unobserved="zero", max_epochs=1).history["train_loss"][0] > 100


def test_the_ends_of_the_range():
    """Squares overflow or vanish, the answer does not."""
    A = np.diag([3.0, 2.0, 1.0]) + 0.5
    exact = np.linalg.svd(A, compute_uv=False)
    centred = np.linalg.svd(A - A.mean(axis=0), compute_uv=False)
    for scale, dtype in (
        (1e25, "f4"),
        (1e-30, "f4"),
        (1e300, "f8"),
        (1e-300, "f8"),
        (2.0**-1060, "f8"),
        (1e300, "c16"),
    ):
        X = (A * np.float64(scale)).astype(dtype)
        result, components = ff.svd(X, 2), ff.pca(X, 2)
        tol = 1e-3 if scale < 1e-300 else 1e-6
        np.testing.assert_allclose(result.s / scale, exact[:2], rtol=tol)
        np.testing.assert_allclose(result.frobenius_norm / scale, np.linalg.norm(A), rtol=tol)
        np.testing.assert_allclose(components.s / scale, centred[:2], rtol=tol)
        np.testing.assert_allclose(components.mean / scale, A.mean(axis=0), rtol=tol)
        np.testing.assert_allclose(ff.pca(X, 2, scale=True).scale / scale, A.std(axis=0), rtol=tol)
    for scale, dtype in ((3e38, "f4"), (1.5e308, "f8")):
        with pytest.raises(ValueError, match="singular values out of the range"):
            ff.svd(np.full((3, 3), scale, dtype), 2)


def test_swapped_bytes():
    A = np.random.default_rng(0).standard_normal((9, 7))
    for dtype in (">f4", ">f8", ">c16"):
        np.testing.assert_allclose(ff.svd(A.astype(dtype), 2).s, ff.svd(A, 2).s, rtol=1e-6)


def test_fits_at_the_ends_of_the_range():
    A = np.arange(20.0).reshape(5, 4)
    model = ff.fit(A * 1e300, 1, dtype="float64", **PLAIN)  # its loss is beyond 1e600
    assert np.isfinite(model.U).all()
    assert np.isinf(model.history["train_loss"]).any()
    largest = np.finfo(np.float64).max
    for X in (np.full((3, 3), complex(largest, largest)), np.full((3, 3), largest) * [-1, 1, 1]):
        for unobserved in ("missing", "zero"):
            with pytest.raises(ValueError, match="out of the range of dtype"):
                ff.fit(X, 1, unobserved=unobserved, dtype="float64")
    with pytest.raises(ValueError, match="out of the range of dtype float32"):
        ff.fit((A * 1e-45).astype("f4"), 1, dtype="float64", **PLAIN)
    for scale in (1e-310, 1e307):
        with pytest.raises(ValueError, match="out of the range of dtype"):
            ff.fit((A - 9) * scale, 1, loss="absolute", dtype="float64", **PLAIN)


def test_entries_to_validate_with_are_like_those_of_the_matrix():
    A = np.arange(20.0).reshape(5, 4)
    for bad, error, message in (
        (A + 1j, TypeError, "validation is complex"),
        (A * 1e300, ValueError, "validation holds"),
    ):
        with pytest.raises(error, match=message):
            ff.fit(A, 1, max_epochs=2, regularization=0.1, validation=bad)


def test_new_rows_out_of_range():
    model = ff.fit(np.arange(20.0).reshape(5, 4), 1, **PLAIN)
    with pytest.raises(ValueError, match="X_new has values whose factors are out of the range"):
        model.fold_in(np.full((2, 4), 1e300))


def test_labels_for_lists():
    assert ff.io.label([[1.0, 2.0]], ["a"], ["b", "c"]).row_ids.tolist() == ["a"]
    with pytest.raises(ValueError, match="2-D"):
        ff.io.label([1.0])


MARKET = "%%MatrixMarket matrix coordinate real general\n% made by hand\n3 3 3\n1 1 1.5\n2 3 -2e-1\n3 3 7.25"


def test_matrix_market_files_that_were_cut_short(tmp_path):
    """scipy's reader ends the process on some of these."""
    path = tmp_path / "X.mtx"
    path.write_text(MARKET)
    assert ff.io.read(path).to_csr().toarray()[2, 2] == 7.25
    for length in range(len(MARKET) - 3):
        path.write_text(MARKET[:length])
        with pytest.raises(ValueError, match=r"X\.mtx is damaged"):
            ff.io.read(path)
    for old, new, message in (
        ("7.25", "7.2E", "within a number"),
        ("7.25", "7.25 8", "4 numbers where 3"),
        ("2 3 -", "2 3 \0-", "no part of a number"),
        ("3 3 3", "3 3 4", "4 lines follow, there are 3"),
        ("3 3 3", "3 3 99999999999", "99999999999 lines follow, in"),
        ("real", "unreal", "is not known"),
        ("1 1 1.5", "9 1 1.5", "X.mtx"),
    ):
        path.write_text(MARKET.replace(old, new))
        with pytest.raises(ValueError, match=message):
            ff.io.read(path)


@pytest.mark.parametrize("claim", [1 << 25, 1 << 61])
@pytest.mark.parametrize("read", [ff.io.read, lambda path: ff.io.build_grid(path, path.parent / "grid")])
def test_arrays_that_claim_to_be_long(tmp_path, claim, read):
    """No memory is taken for them, nor time to look for what is not there."""
    sp.save_npz(tmp_path / "X.npz", sp.csr_array(np.eye(3)))
    with zipfile.ZipFile(tmp_path / "X.npz") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["data.npy"] = write_npy((claim,), "<f8", bytes(24))
    with zipfile.ZipFile(tmp_path / "X.npz", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"data\.npy has \d+ bytes, but says"):
        read(tmp_path / "X.npz")


def test_an_archive_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    sp.save_npz(tmp_path / "X.npz", sp.csr_array(np.eye(300)))
    monkeypatch.setattr("fastfactor.matrix.mapped.available_memory", lambda: 1000.0)
    with pytest.raises(MemoryError, match=r"X\.npz needs"):
        ff.io.read(tmp_path / "X.npz")


@pytest.mark.parametrize(("name", "value"), [("entries", 0xFF), ("indices", 0x7F)])
def test_damaged_positions_of_a_grid_do_not_end_the_process(tmp_path, name, value):
    A = np.random.default_rng(0).standard_normal((40, 30))
    grid = ff.io.build_grid(A, tmp_path)
    entry = json.loads((tmp_path / MANIFEST).read_text())["arrays"][name]
    with open(tmp_path / entry["file"], "r+b") as file:
        file.seek(200)
        file.write(bytes([value]) * 4)
    with pytest.raises(ValueError, match=r"outside their blocks|column index\[\d+\] is"):
        ff.fit(ff.io.open_grid(grid.folder), 2, **PLAIN)
    with pytest.raises(ValueError, match="checksum"):
        ff.io.open_grid(grid.folder, verify=True)


def halt(epoch):
    raise ZeroDivisionError


@pytest.mark.parametrize("unobserved", ["missing", "weak"])
def test_forged_factors_in_a_checkpoint_are_refused(tmp_path, unobserved, monkeypatch):
    """Of a checksum that fits, but of fewer rows: sweeps would leave them."""
    # What is kept must be the epoch that was halted: on a machine that stands still the last write may be another.
    monkeypatch.setattr(journal, "_PAUSE", 0.0)
    monkeypatch.setattr(journal, "_SHARE", 0.0)
    A = np.random.default_rng(0).random((40, 30)) + 0.1
    options = {"unobserved": unobserved, "max_epochs": 3, "regularization": 0.1, "checkpoint": tmp_path}
    with pytest.raises(ZeroDivisionError):
        ff.fit(A, 2, callback=halt, **options)
    entry = folders.write_array(tmp_path, np.ones((3, 8), np.float32))
    forged = []

    def change(record):
        for name in record["arrays"]:
            if ".factors." in name and len(record["arrays"][name]["shape"]) == 2:
                record["arrays"][name].update(file=entry.file, sha256=entry.sha256, size=entry.size, shape=[3, 8])
                forged.append(name)

    forge(tmp_path, change)
    assert len(forged) == 2
    with pytest.raises(ValueError, match="checkpoint cannot be used"):
        ff.fit(A, 2, **options)


def test_a_model_of_an_unknown_loss_is_refused(tmp_path):
    make_model().save(tmp_path)
    forge(tmp_path, lambda record: record["fields"].update(loss="hinge"))
    with pytest.raises(ValueError, match="loss 'hinge' is not known"):
        ff.load(tmp_path)


@pytest.mark.parametrize(
    "content", ["{'descr': '<f8', }   3,\n  2\n ],\n  9", "{'descr': '<f8'\0(("], ids=["indented", "open"]
)
def test_headers_that_only_a_parser_of_python_would_choke_on(tmp_path, content):
    """NumPy's reader of headers raises SyntaxError or TokenError on these."""
    header = content.encode()
    raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "X.npy").write_bytes(raw)
    with pytest.raises(ValueError, match=r"X\.npy is damaged"):
        ff.io.read(tmp_path / "X.npy")
    make_model().save(tmp_path / "model")
    path = tmp_path / "model" / json.loads((tmp_path / "model" / MANIFEST).read_text())["arrays"]["U"]["file"]
    path.write_bytes(raw)

    def change(record):
        for entry in record["arrays"].values():
            if entry["file"] == path.name:
                entry["size"] = max(len(raw), 60)

    path.write_bytes(raw.ljust(60))
    forge(tmp_path / "model", change)
    with pytest.raises(ValueError, match=f"{path.name} is not a .npy file"):
        ff.load(tmp_path / "model")


def test_lines_that_a_table_only_claims_to_have():
    from fastfactor.io.tables import _foresee

    class Source:
        n_lines = 1 << 55
        path = __file__

    assert _foresee(Source()) < 1 << 24


def test_samples_of_complex_values_are_refused():
    """Their imaginary part was dropped, with a warning of NumPy's."""
    with pytest.raises(TypeError, match="posterior_samples needs real values, X is complex"):
        ff.fit(np.ones((3, 4)) + 1j * np.eye(3, 4), 1, posterior_samples=1)


@pytest.mark.parametrize(("left", "right"), [(np.inf, 0.0), (1e30, 1e30)], ids=["inf 0", "beyond float32"])
def test_scores_that_overflow_say_nothing(left, right):
    """Warnings of NumPy's came from lengths whose product is no number, and from scores that float32 does not have."""
    sides = np.full((20, 2), left, np.float32), np.full((600, 2), right, np.float32)
    model = Factorization(*sides, np.float32(0), np.zeros(20, np.float32), np.zeros(600, np.float32))
    cols, scores = model.recommend(range(20), 2)
    assert (cols == ([0, 1] if right else -1)).all()
    assert not np.isfinite(scores).any()


def test_weights_of_next_to_nothing_say_nothing():
    """Beside them a penalty is beyond float32: a warning of NumPy's came before the error."""
    with pytest.raises(DivergenceError):
        ff.fit(np.array([[1.0, 2.0]]), 3, sample_weight=[[1e-45, 7e-45]], max_epochs=2, regularization=0.1)


@pytest.mark.filterwarnings("ignore:all stored values of X equal")
def test_variances_beyond_single_precision_are_its_largest():
    """Of one entry, whose value single precision holds to 1e22 only."""
    model = ff.fit(np.array([[np.nan, -9.27830076e29]]), 3, posterior_samples=2, max_epochs=2)
    assert np.isfinite(model.posterior["row_noise"]).all()
    assert np.isfinite(model.predict(0, 0, return_std=True)).all()


@pytest.mark.parametrize(
    "number",
    [
        701129,  # means of sparse columns were summed in single precision
        702401,  # squares overflowed in pca of a matrix in files
        703806,  # LAPACK found no representation of a graded Gram matrix
        *(815980, 818643),  # and returned fewer eigenvalues than it was asked for
        *(837949, 842369),  # pca of matrices far from zero: the certificate left out what the means' products round
        *(703846, 704132, 712190, 712271, 712495),  # residuals from inner products over the smaller of two values
    ],
)
def test_spectra(number, tmp_path, monkeypatch):
    for (module, name), usual in zip(spectra_calls.SWITCHES, spectra_calls.USUAL, strict=True):
        monkeypatch.setattr(module, name, usual)  # the case sets them
    outcome, fault = spectra_calls.try_case(number, tmp_path)
    assert fault is None, outcome
