"""On a Dask cluster: the kinds of input, the same bits for any number of workers, and a worker that is killed."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import run_python

import fastfactor as ff

distributed = pytest.importorskip("distributed", reason="Dask needs the extra dask")
dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

nest = pytest.importorskip("fastfactor.dask.grid").nest

PLAIN = {"rank": 8, "max_epochs": 3, "regularization": 0.1, "validation": False}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sending large graph"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of clusters that are going
]


@pytest.fixture(scope="module")
def client():
    """Two workers in this process: what they compute does not depend on where they are."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster) as own,
    ):
        yield own


@pytest.fixture(scope="module")
def dense():
    rng = np.random.default_rng(7)
    A = rng.standard_normal((120, 3)) @ rng.standard_normal((3, 60)) + 3.0
    A += 0.1 * rng.standard_normal(A.shape)
    return np.where(rng.random(A.shape) < 0.4, A, np.nan).astype(np.float32)


def as_sparse(dense):
    rows, cols = np.nonzero(~np.isnan(dense))
    return sp.csr_array((dense[rows, cols], (rows, cols)), shape=dense.shape)


def chunk(matrix, height):
    """Return a Dask array with chunks of scipy.sparse."""
    blocks = [
        da.from_delayed(dask.delayed(matrix[i : i + height]), (height, matrix.shape[1]), dtype=matrix.dtype)
        for i in range(0, matrix.shape[0], height)
    ]
    return da.concatenate(blocks, axis=0)


def make_inputs(dense, folder):
    """Return the same entries in each form, in eight parts of 15 rows."""
    pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    rows, cols = np.nonzero(~np.isnan(dense))
    order = np.random.default_rng(0).permutation(len(rows))
    frame = pd.DataFrame({"row": rows[order], "col": cols[order], "value": dense[rows, cols][order]})
    return {
        "dense": da.from_array(dense, chunks=(15, 40)),
        "sparse": chunk(as_sparse(dense), 15),
        "frame": dd.from_pandas(frame, npartitions=3),
        "grid": ff.io.build_grid(dense, folder),
    }


def test_every_form_gives_the_same_model(dense, client, tmp_path):
    models = {form: ff.dask.fit(X, client=client, **PLAIN) for form, X in make_inputs(dense, tmp_path).items()}
    assert {model.shape for model in models.values()} == {dense.shape}
    for name in ("U", "V", "row_bias", "col_bias"):
        np.testing.assert_array_equal(getattr(models["dense"], name), getattr(models["sparse"], name))
    for form in ("frame", "grid"):  # other orders of the entries, other cuts of the rows
        np.testing.assert_allclose(models[form].mean, models["dense"].mean, rtol=1e-6)
        ours, theirs = models[form].history["train_loss"], models["dense"].history["train_loss"]
        np.testing.assert_allclose(ours, theirs, rtol=0.05)
    np.testing.assert_array_equal(ff.fit(da.from_array(dense, chunks=(15, 40)), **PLAIN).U, models["dense"].U)


def test_the_model_is_about_that_of_memory(dense, client):
    options = PLAIN | {"max_epochs": 60}
    memory = ff.fit(dense, **options)
    model = ff.dask.fit(da.from_array(dense, chunks=(15, 60)), client=client, n_parts=3, **options)
    where = np.nonzero(np.isnan(dense))
    difference = model.predict(*where) - memory.predict(*where)
    assert np.sqrt(np.mean(difference**2)) < 0.1 * np.nanstd(dense)


def test_steps_that_share_leading_bits_follow_each_other():
    order = nest(np.random.default_rng(3).permutation(16).tolist())
    assert sorted(order) == list(range(16))
    for size in (2, 4, 8):
        runs = [{d // size for d in order[start : start + size]} for start in range(0, 16, size)]
        assert all(len(run) == 1 for run in runs)
    assert nest([2, 0, 1, 3]) == [2, 3, 0, 1]


@pytest.mark.parametrize("options", [{}, {"regularization": "auto", "learning_rate": (np.full(120, 0.05), 0.02)}])
def test_how_parts_are_grouped_does_not_matter(dense, client, monkeypatch, options):
    monkeypatch.setattr("fastfactor.dask.running.choose_stripes", lambda shape, n: 16)
    X, found = da.from_array(dense, chunks=(15, 60)), []
    for n_groups in (1, 2, 8):
        worker = next(iter(client.scheduler_info()["workers"]))
        monkeypatch.setattr("fastfactor.dask.sources.spread", lambda client, n, g=n_groups, w=worker: ([w] * n, g))
        model = ff.dask.fit(X, client=client, **PLAIN | options)
        found.append((model.U.tobytes(), model.V.tobytes(), model.history["train_loss"].tolist()))
    assert found[0] == found[1] == found[2]


def test_each_entry_is_visited_once_an_epoch(dense, client):
    """The loss that is added up before the first epochs have an effect is that of the matrix."""
    options = PLAIN | {"learning_rate": 1e-9, "max_epochs": 2}
    model = ff.dask.fit(da.from_array(dense, chunks=(15, 60)), client=client, **options)
    np.testing.assert_allclose(model.history["train_loss"], ff.fit(dense, **options).history["train_loss"], rtol=0.03)
    n = np.isfinite(dense).sum()
    residuals = dense - model.reconstruct()
    np.testing.assert_allclose(model.history["train_loss"][-1], np.nansum(residuals**2) / n, rtol=1e-4)


def test_validation_and_choices(dense, client):
    X = da.from_array(dense, chunks=(30, 60))
    model = ff.dask.fit(X, client=client, rank=8, max_epochs=2, validation=0.2)
    assert np.isfinite(model.history["validation_loss"]).all()
    chosen = ff.dask.fit(X, client=client, rank=8, max_epochs=2)
    assert chosen.selection["regularization"][0] > 0
    assert len(chosen.selection["trials"]) > 1


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_svd(client, wide, form):
    rng = np.random.default_rng(1)
    A = sp.random_array((160, 60), density=0.2, rng=rng).tocsr()
    A = sp.csr_array(A.T) if wide else A
    height = 10 if wide else 20
    X = chunk(A, height) if form == "sparse" else da.from_array(A.toarray(), chunks=(height, 30))
    found, expected = ff.dask.svd(X, 4, client=client), ff.svd(A, 4)
    np.testing.assert_allclose(found.s, expected.s, rtol=1e-9)
    np.testing.assert_allclose((found.U * found.s) @ found.Vt, (expected.U * expected.s) @ expected.Vt, atol=1e-8)
    np.testing.assert_allclose(found.frobenius_norm, expected.frobenius_norm, rtol=1e-12)
    assert found.converged
    np.testing.assert_array_equal(ff.svd(X, 4).s, found.s)
    u, s, vt = ff.svds(X, 4)
    np.testing.assert_allclose(s, expected.s[::-1], rtol=1e-9)
    np.testing.assert_allclose((u * s) @ vt, (expected.U * expected.s) @ expected.Vt, atol=1e-8)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("form", ["sparse", "dense"])
@pytest.mark.parametrize("options", [{}, {"scale": True}, {"center": False, "scale": True}], ids=str)
def test_pca(client, wide, form, options):
    rng = np.random.default_rng(1)
    A = sp.random_array((160, 60), density=0.2, rng=rng).tocsr()
    A = sp.csr_array(A.T) if wide else A
    height = 10 if wide else 20
    X = chunk(A, height) if form == "sparse" else da.from_array(A.toarray(), chunks=(height, 30))
    found, expected = ff.pca(X, 4, **options), ff.pca(A.toarray(), 4, **options)
    np.testing.assert_allclose((found.U * found.s) @ found.Vt, (expected.U * expected.s) @ expected.Vt, atol=1e-8)
    for name in ("s", "mean", "scale", "frobenius_norm"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("size", [1e200, 1e-200])
@pytest.mark.parametrize("wide", [False, True])
def test_squares_neither_overflow_nor_vanish(client, wide, size):
    A = np.random.default_rng(1).standard_normal((60, 160) if wide else (160, 60))
    X = da.from_array(A * size, chunks=(20, 60))
    found, expected = ff.svd(X, 4), ff.svd(A, 4)
    np.testing.assert_allclose(found.s / size, expected.s, rtol=1e-9)
    np.testing.assert_allclose(found.frobenius_norm / size, expected.frobenius_norm, rtol=1e-12)
    for options in ({}, {"scale": True}):
        found, expected = ff.pca(X, 4, **options), ff.pca(A * size, 4, **options)
        for name in ("s", "mean", "scale", "frobenius_norm"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-14 * size)


def test_moments_neither_cancel_nor_overflow(client):
    """Values far from zero, all but equal, are those of a fit in memory: their squares hold nothing of what varies."""
    A = np.random.default_rng(2).standard_normal((120, 60))
    for X in (A + 1e9, A * 1e200, (A + 1e9j)):
        found, expected = (ff.fit(Y, **PLAIN | {"dtype": "float64"}) for Y in (da.from_array(X, chunks=(15, 60)), X))
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
        np.testing.assert_allclose(found.recipe["scale"], expected.recipe["scale"], rtol=1e-9)


def test_entries_of_one_value_are_warned_of(client):
    with pytest.warns(UserWarning, match=r"all stored values of X equal 3\.3.*unobserved='weak'") as caught:
        model = ff.dask.fit(da.full((60, 20), 3.3, chunks=(7, 20)), client=client, **PLAIN)
    assert caught[0].filename == __file__
    assert model.mean == np.float32(3.3)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (ff.svd, {"n_threads": 1}, "n_threads is not available where A is a Dask collection, got 1"),
        (ff.pca, {"n_threads": 1}, "n_threads is not available where X is a Dask collection, got 1"),
        (ff.svds, {"which": "SM"}, "which must be 'LM' where A is a Dask array, got 'SM'"),
        (ff.svds, {"v0": np.ones(60)}, "v0 must be None where A is a Dask array"),
        (ff.svds, {"k": 60}, "`k` must be an integer satisfying"),
    ],
)
def test_what_decompositions_on_a_cluster_cannot_do_is_refused(client, function, options, message):
    with pytest.raises(ValueError, match=message):
        function(da.ones((120, 60), chunks=(30, 60)), **{"k": 3} | options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": np.ones((3, 3))}, TypeError, "X must be a Dask array, a Dask DataFrame or a grid on disk, got ndarray"),
        ({"n_parts": 0}, ValueError, "n_parts must be at least 1, got 0"),
        ({"rank": 0}, ValueError, "rank must be at least 1"),
        ({"validation": 1.5}, ValueError, "validation must be a share below 1, got 1.5"),
        ({"shape": (5, 5)}, ValueError, r"shape is \(5, 5\), but X has shape \(120, 60\)"),
        ({"X": da.full((20, 10), np.nan, chunks=(5, 10))}, ValueError, "X has no observed entry"),
        ({"X": da.full((20, 10), np.inf, chunks=(5, 10))}, ValueError, r"is inf: infinity is not a value"),
        ({"X": da.ones((20,), chunks=5)}, ValueError, "X must be a 2-D Dask array"),
    ],
)
def test_bad_input_is_named(dense, client, change, error, message):
    arguments = {"X": da.from_array(dense, chunks=(30, 60)), "client": client} | PLAIN | change
    with pytest.raises(error, match=message):
        ff.dask.fit(**arguments)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (["ann", "bob"], TypeError, "X: rows must hold integers, got dtype"),
        ([0.0, np.nan], TypeError, "X: rows must hold integers, got dtype float64"),
        ([0, 5], ValueError, r"X: rows go from 0 to 5, outside 0\.\.3"),
    ],
)
@pytest.mark.parametrize("shape", [None, (4, 4)])
def test_bad_places_of_a_frame_are_named(client, rows, error, message, shape):
    pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(pd.DataFrame({"row": rows, "col": [0, 1], "value": [1.0, 2.0]}), npartitions=1)
    if rows == [0, 5] and shape is None:
        assert ff.dask.fit(frame, client=client, **PLAIN).shape == (6, 2)
        return
    with pytest.raises(error, match=message):
        ff.dask.fit(frame, client=client, shape=shape, **PLAIN)


@pytest.mark.parametrize("width", [30, 60])
def test_index_arrays_of_chunks_are_looked_at(dense, client, width):
    bad = as_sparse(dense).tocsc()[:, :width]
    bad.indices[5] = 1 << 20
    chunks = [da.from_delayed(dask.delayed(bad), bad.shape, dtype=bad.dtype) for _ in range(60 // width)]
    for function in (ff.fit, ff.svd):
        with pytest.raises(ValueError, match=r"X: row index\[5\] is 1048576, outside 0\.\.119"):
            function(da.concatenate(chunks, axis=1), 3)


def test_places_of_a_frame_may_be_unsigned(dense, client, tmp_path):
    X = make_inputs(dense, tmp_path)["frame"]
    expected = ff.dask.fit(X, client=client, **PLAIN)
    found = ff.dask.fit(X.astype({"row": np.uint64, "col": np.uint8}), client=client, **PLAIN)
    np.testing.assert_array_equal(found.U, expected.U)


def test_progress_is_shown(dense, client, capfd):
    X = da.from_array(dense, chunks=(30, 60))
    ff.fit(X, **PLAIN, progress=True)
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("epoch 3/3, loss ")
    with pytest.raises(TypeError, match="progress must be True, False or None, got 'bar'"):
        ff.fit(X, **PLAIN, progress="bar")


def test_what_the_cluster_cannot_do_is_refused(dense):
    with pytest.raises(ValueError, match="loss is not available where X is a Dask collection, got 'huber'"):
        ff.fit(da.from_array(dense, chunks=(30, 60)), loss="huber")
    with pytest.raises(ValueError, match="sample_weight is not available where X is a Dask collection"):
        ff.fit(da.from_array(dense, chunks=(30, 60)), sample_weight=np.ones(dense.shape))


KILLING = """
import hashlib, json, os, signal, sys
import dask.array as da
import distributed
import numpy as np
import fastfactor.dask as ffd

def main():
    n_workers, kills = int(sys.argv[1]), sys.argv[2] == "kill"
    dense = np.load(sys.argv[3])
    epochs = []
    with distributed.LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as cluster:
        with distributed.Client(cluster) as client:
            def callback(epoch):
                epochs.append(epoch.epoch)
                if kills and epoch.epoch == 2:
                    pids = [worker.pid for worker in cluster.workers.values()]
                    os.kill(pids[0], signal.SIGKILL)
            X = da.from_array(dense, chunks=(15, 60))
            options = {"max_epochs": 4, "regularization": 0.1, "validation": False}
            model = ffd.fit(X, 8, client=client, callback=callback, **options)
            found = ffd.svd(da.from_array(np.nan_to_num(dense), chunks=(15, 60)), 4, client=client)
    print(json.dumps([hashlib.sha256(model.U.tobytes() + model.V.tobytes()).hexdigest(), found.s.tolist(), epochs]))

if __name__ == "__main__":
    main()
"""


def test_workers_do_not_matter_and_may_be_killed(dense, tmp_path):
    np.save(tmp_path / "dense.npy", dense)
    (tmp_path / "job.py").write_text(KILLING)
    code = f"import runpy; runpy.run_path({str(tmp_path / 'job.py')!r}, run_name='__main__')"
    found = []
    for arguments in ((1, "calm"), (2, "kill")):
        result = run_python(code, *arguments, tmp_path / "dense.npy")
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout.splitlines()[-1]))
    assert found[0] == found[1]
    assert found[0][2] == [1, 2, 3, 4]
