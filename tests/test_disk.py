"""A grid on disk gives the model that memory gives, bit for bit; a bad folder or a full disk is refused, cleanly."""

import errno
import itertools
import json
import os
import zipfile
from subprocess import PIPE

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import assert_same_model, run_python, start_python

import fastfactor as ff
from fastfactor import folders
from fastfactor.io import spilling
from fastfactor.manifest import GRID, MANIFEST, _checksum
from fastfactor.matrix import mapped
from fastfactor.matrix.inputs import as_observations

PLAIN = {"rank": 8, "max_epochs": 3, "regularization": 0.1, "validation": False}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Several pieces, also of small matrices."""
    monkeypatch.setattr(mapped, "PIECE", 200)
    monkeypatch.setattr(spilling, "PIECE", 150)


@pytest.fixture
def matrix(ratings):
    return ratings.astype(np.float32)


@pytest.fixture
def grid(matrix, tmp_path):
    return ff.io.build_grid(matrix, tmp_path / "grid")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_threads": 1},
        {"validation": 0.2},
        {"regularization": "auto", "validation": None},
        {"seed": 4, "dtype": "float64"},
        {"nonnegative": True},
        {"biases": False},
        {"loss": "huber"},
    ],
    ids=str,
)
def test_model_is_the_one_that_memory_gives(matrix, grid, options):
    assert_same_model(ff.fit(grid, **PLAIN | options), ff.fit(matrix, **PLAIN | options))


def test_validation_entries_may_be_given(matrix, grid):
    coo = matrix.tocoo()
    options = PLAIN | {"validation": (coo.coords[0][::9], coo.coords[1][::9], coo.data[::9])}
    assert_same_model(ff.fit(grid, **options), ff.fit(matrix, **options))


def test_a_grid_is_used_again_and_again(matrix, grid, tmp_path):
    before = sorted(os.listdir(tmp_path / "grid"))
    models = [ff.fit(each, **PLAIN) for each in (grid, grid, ff.io.open_grid(tmp_path / "grid", verify=True))]
    for model in models[1:]:
        assert_same_model(models[0], model)
    ff.fit(grid, **PLAIN | {"validation": 0.2})
    assert sorted(os.listdir(tmp_path / "grid")) == before


def test_each_diagonal_is_read_as_one_piece_and_dropped(grid, monkeypatch):
    read, dropped = [], []
    monkeypatch.setattr("fastfactor.matrix.disk_grid.touch_pages", lambda a, start, stop: read.append((start, stop)))
    monkeypatch.setattr("fastfactor.matrix.disk_grid.drop_pages", lambda a, start, stop: dropped.append((start, stop)))
    monkeypatch.setattr("fastfactor.matrix.disk_grid.LARGE_PAGE", 0)
    ff.fit(grid, **PLAIN | {"max_epochs": 1})
    stored = grid.observations.grid
    pieces = [list(stored._ranges(d)) for d in range(8)]
    assert [len(each) for each in pieces] == [1] * 8
    assert pieces[0][0][0] == 0
    assert all(before[0][1] == after[0][0] for before, after in itertools.pairwise(pieces))
    assert pieces[-1][0][1] == stored.n_entries
    assert sorted(dropped) == sorted(read) == [piece[0] for piece in pieces]


def write_table(path, matrix, seed=0):
    """Entries in random order, ids as text, and a category that no entry has."""
    pa = pytest.importorskip("pyarrow")
    coo = matrix.tocoo()
    order = np.random.default_rng(seed).permutation(coo.nnz)
    columns = {}
    for name, places, n in (("row", coo.coords[0], matrix.shape[0]), ("col", coo.coords[1], matrix.shape[1])):
        ids = pa.array([f"{name} {i}" for i in range(n + 1)])
        columns[name] = pa.DictionaryArray.from_arrays(places[order].astype(np.int32), ids)
    columns["value"] = coo.data[order]
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=100)
    elif path.suffix == ".csv":
        pytest.importorskip("pyarrow.csv").write_csv(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow"])
def test_tables(matrix, tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    write_table(path, matrix)
    grid, X = ff.io.build_grid(path, tmp_path / "grid"), ff.io.read(path)
    observed = as_observations(X)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(grid.observations, name), getattr(observed, name), strict=True)
    assert (grid.observations.mean, grid.observations.std) == (observed.mean, observed.std)
    model = ff.fit(grid, **PLAIN)
    assert_same_model(model, ff.fit(X, **PLAIN))
    assert model.row_ids.tolist() == X.row_ids.tolist()
    assert model.col_ids.tolist() == X.col_ids.tolist()


def test_values_widen_as_they_do_in_memory(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    places = np.arange(400)
    for name, values in (("a", places.astype(np.int32)), ("b", places.astype(np.int64) * 2**24), ("c", places + 0.5)):
        columns = {"row": places % 20 if name == "a" else places % 20 + 20 * ord(name), "col": places // 20}
        pq.write_table(pa.table(columns | {"value": values}), tmp_path / f"{name}.parquet")
    for names in ("a", "ab", "ac", "ba"):
        paths = [tmp_path / f"{name}.parquet" for name in names]
        found, expected = ff.io.build_grid(paths, tmp_path / "grid"), as_observations(ff.io.read(paths))
        np.testing.assert_array_equal(found.observations.data, expected.data, strict=True)


@pytest.mark.parametrize("kind", ["csr", "coo", "csc"])
@pytest.mark.parametrize("dtype", ["float64", "int16", "complex64"])
def test_npz(matrix, tmp_path, kind, dtype):
    X = (10 * matrix).astype(dtype).asformat(kind)
    sp.save_npz(tmp_path / "matrix.npz", X)
    found, expected = ff.io.build_grid(tmp_path / "matrix.npz", tmp_path / "grid").observations, as_observations(X)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


@pytest.mark.parametrize("how", ["sum", "mean", "last"])
def test_duplicates(tmp_path, how):
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, 30, 900), rng.integers(0, 20, 900)
    values = rng.standard_normal(900)
    np.savez(tmp_path / "matrix.npz", format=b"coo", shape=(30, 20), row=rows, col=cols, data=values, _is_array=True)
    with pytest.raises(ValueError, match="more than once; pass duplicates="):
        ff.io.build_grid(tmp_path / "matrix.npz", tmp_path / "grid")
    assert not (tmp_path / "grid").exists()
    found = ff.io.build_grid(tmp_path / "matrix.npz", tmp_path / "grid", duplicates=how).observations
    expected = as_observations((rows, cols, values), shape=(30, 20), duplicates=how)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    with pytest.raises(ValueError, match="duplicates is for build_grid"):
        ff.fit(ff.io.open_grid(tmp_path / "grid"), duplicates=how)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unobserved": "zero"}, "unobserved must be 'missing' where X is a grid on disk.*svd"),
        ({"unobserved": "weak"}, "unobserved must be 'missing' where X is a grid on disk.*read"),
        ({"sample_weight": np.ones((60, 40))}, "sample_weight must be None where X is a grid on disk"),
        ({"shape": (3, 3)}, r"shape is \(3, 3\), but what was read has shape \(60, 40\)"),
    ],
)
def test_what_a_grid_cannot_do_is_refused(grid, options, message):
    with pytest.raises(ValueError, match=message):
        ff.fit(grid, **options)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (np.ones((2, 2)), {"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        (np.ones((2, 2)), {"delimiter": ";"}, ValueError, "delimiter is for files, but source is a ndarray"),
        (np.array([[1.0, np.inf]]), {}, ValueError, r"source\[0, 1\] is inf"),
        ("nowhere.csv", {}, FileNotFoundError, "no such file"),
        ("nowhere.csv", {"shape": (2, 2)}, ValueError, "shape is for triplets in memory"),
    ],
)
def test_bad_sources(tmp_path, source, options, error, message):
    with pytest.raises(error, match=message):
        ff.io.build_grid(source, tmp_path / "grid", **options)
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize("form", ["memory", "csr", "csc", "csv"])
def test_building_keeps_to_max_memory(matrix, tmp_path, form):
    source = matrix
    if form in ("csr", "csc"):
        source = tmp_path / "matrix.npz"
        sp.save_npz(source, matrix.asformat(form))
    elif form == "csv":
        source = tmp_path / "table.csv"
        write_table(source, matrix)
    with pytest.raises(
        MemoryError, match=r"max_memory is 20 MB, but building this grid needs [0-9]+ MB: 134 MB for pieces"
    ):
        ff.io.build_grid(source, tmp_path / "grid", max_memory="20MB")
    assert not (tmp_path / "grid").exists()
    assert ff.io.build_grid(source, tmp_path / "grid", max_memory="1GB").shape == matrix.shape
    with pytest.raises(ValueError, match="max_memory must be a number of bytes"):
        ff.io.build_grid(source, tmp_path / "grid", max_memory="much")


def test_a_table_with_too_many_ids_is_refused_once_it_is_read(matrix, tmp_path, monkeypatch):
    monkeypatch.setattr("fastfactor.io.building._PER_SIDE", 1e8)
    write_table(tmp_path / "table.csv", matrix)
    with pytest.raises(MemoryError, match="10,000 MB for numbers for each row and column"):
        ff.io.build_grid(tmp_path / "table.csv", tmp_path / "grid", max_memory="1GB")
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize("missing", ["indices", "format", "shape"])
def test_a_damaged_npz_is_named(matrix, tmp_path, missing):
    sp.save_npz(tmp_path / "whole.npz", matrix)
    with zipfile.ZipFile(tmp_path / "whole.npz") as old, zipfile.ZipFile(tmp_path / "bad.npz", "w") as new:
        for name in old.namelist():
            if name != f"{missing}.npy":
                new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"bad\.npz is damaged or no sparse matrix"):
        ff.io.build_grid(tmp_path / "bad.npz", tmp_path / "grid")


def rewrite(folder, **changes):
    """Change the manifest, its checksum included."""
    record = json.loads((folder / MANIFEST).read_text())
    for name, value in changes.items():
        (record if name in record else record["fields"])[name] = value
    record["checksum"] = _checksum({"fields": record["fields"], "arrays": record["arrays"]})
    (folder / MANIFEST).write_text(json.dumps(record))


def file_of(folder, name):
    return folder / json.loads((folder / MANIFEST).read_text())["arrays"][name]["file"]


@pytest.mark.parametrize("name", ["entries", "indices", "row_order"])
def test_a_truncated_array_is_named(grid, name):
    path = file_of(grid.folder, name)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ValueError, match=f"{path.name} has .* bytes, the manifest says"):
        ff.io.open_grid(grid.folder)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing"):
        ff.io.open_grid(grid.folder)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_manifest_is_named(grid, share):
    path = grid.folder / MANIFEST
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="is truncated or no JSON"):
        ff.io.open_grid(grid.folder)


def test_other_versions_and_formats_are_named(grid, tmp_path):
    rewrite(grid.folder, format_version=3)
    with pytest.raises(ValueError, match="has format version 3; this version of fastfactor reads 1 to 2"):
        ff.io.open_grid(grid.folder)
    model = ff.fit(np.ones((4, 3)) + np.eye(4, 3), rank=8, unobserved="zero", max_epochs=1)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="is not the manifest of a fastfactor grid"):
        ff.io.open_grid(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="no saved grid"):
        ff.io.open_grid(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no saved grid"):
        ff.io.open_grid(tmp_path / "empty")


def put_array(folder, name, array):
    """Write an array in place of another, as the manifest then says too."""
    arrays = json.loads((folder / MANIFEST).read_text())["arrays"]
    entry = folders.write_array(folder, array)
    arrays[name] = {
        "file": entry.file,
        "sha256": entry.sha256,
        "size": entry.size,
        "shape": list(entry.shape),
        "dtype": entry.dtype.str,
    }
    rewrite(folder, arrays=arrays)


def test_folders_of_version_1_are_read(grid):
    """Their blocks lie in the order of their numbers."""
    model, blocks = ff.fit(grid, **PLAIN), grid.observations.grid.blocks
    spare = blocks.entries[grid.n_entries :]
    parts = [blocks.entries[start:stop] for start, stop in zip(blocks.starts, blocks.stops, strict=True)]
    put_array(grid.folder, "entries", np.concatenate([*parts, spare]).view(np.uint8))
    put_array(grid.folder, "offsets", np.cumsum([0, *map(len, parts)]).astype(np.uint64))
    fields = json.loads((grid.folder / MANIFEST).read_text())["fields"]
    assert fields.pop("order") == "by diagonal"
    rewrite(grid.folder, format_version=1, fields=fields)
    old = ff.io.open_grid(grid.folder)
    assert len(list(old.observations.grid._ranges(1))) > 1
    assert_same_model(ff.fit(old, **PLAIN), model)


def test_unknown_orders_are_refused(grid):
    rewrite(grid.folder, order="by chance")
    with pytest.raises(ValueError, match="its blocks are in an unknown order, 'by chance'"):
        ff.io.open_grid(grid.folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("row_order", lambda a: a * 0, "the order of its rows"),
        ("col_starts", lambda a: a[::-1].copy(), "column starts does not ascend"),
        ("offsets", lambda a: a + np.uint64(1), "offsets does not ascend"),
        ("indptr", lambda a: a[:-1].copy(), "indptr does not ascend"),
        ("data", lambda a: a[:-1].copy(), "places and .* values"),
        ("entries", lambda a: a[:-8].copy(), "bytes for"),
        ("indices", lambda a: a.astype(np.float64), "indices is not a 1-D array"),
    ],
)
def test_forged_arrays_are_refused(matrix, tmp_path, name, change, message):
    folder = tmp_path / "grid"
    fields = folders.read_folder(ff.io.build_grid(matrix, folder).folder, GRID, False)
    put_array(folder, name, change(fields[name]))
    with pytest.raises(ValueError, match=f"describes no grid: .*{message}"):
        ff.io.open_grid(folder)


def test_damage_inside_is_found_where_it_is_looked_for(grid):
    path = file_of(grid.folder, "entries")
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\x55")
    with pytest.raises(ValueError, match=f"{path.name} does not have the checksum"):
        ff.io.open_grid(grid.folder, verify=True)


HOLDING = """
import sys
from pathlib import Path
from fastfactor.folders import writing

with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_is_being_written_is_refused(grid, matrix):
    pytest.importorskip("fcntl")
    with start_python(HOLDING, grid.folder, stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout.readline() == "held\n"
        for call in (lambda: ff.io.open_grid(grid.folder), lambda: ff.io.build_grid(matrix, grid.folder)):
            with pytest.raises(BlockingIOError, match="another process is writing to it") as caught:
                call()
            assert caught.value.filename == str(grid.folder)
        other.stdin.close()
    assert ff.io.open_grid(grid.folder).shape == (60, 40)


FULL = """
import resource, sys
import numpy as np
import fastfactor as ff
from fastfactor.io import spilling
from fastfactor.matrix import mapped

mapped.PIECE = spilling.PIECE = 5000
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    if sys.argv[3] == "build":
        ff.io.build_grid(sys.argv[4], sys.argv[1])
    else:
        ff.fit(ff.io.open_grid(sys.argv[1]), 8, max_epochs=1, regularization=0.1, validation=0.2)
except OSError as error:
    print("refused", error.errno)
"""


@pytest.mark.parametrize("limit", [2_000, 60_000, 100_000, 180_000])
def test_a_full_disk_leaves_what_was_there(tmp_path, matrix, limit):
    pytest.importorskip("resource")
    rng = np.random.default_rng(0)
    path, folder = tmp_path / "matrix.npz", tmp_path / "grid"
    sp.save_npz(path, sp.random_array((200, 300), density=0.4, rng=rng, dtype=np.float32, format="csr"))
    result = run_python(FULL, folder, limit, "build", path)
    assert result.stdout == f"refused {errno.EFBIG}\n", result.stderr
    assert not folder.exists()
    ff.io.build_grid(matrix, folder)
    before = sorted(os.listdir(folder))
    assert run_python(FULL, folder, limit, "build", path).stdout == f"refused {errno.EFBIG}\n"
    assert sorted(os.listdir(folder)) == before
    assert ff.io.open_grid(folder, verify=True).shape == matrix.shape


def test_a_full_disk_ends_a_fit(tmp_path):
    pytest.importorskip("resource")
    rng = np.random.default_rng(0)
    grid = ff.io.build_grid(sp.random_array((200, 300), density=0.4, rng=rng, format="csr"), tmp_path / "grid")
    before = sorted(os.listdir(grid.folder))
    assert run_python(FULL, grid.folder, 2_000, "fit").stdout == f"refused {errno.EFBIG}\n"
    assert sorted(os.listdir(grid.folder)) == before


KILLED = """
import os, sys
from fastfactor.matrix.disk_grid import Plan
import fastfactor as ff
Plan.write = lambda *args: os._exit(9)
ff.io.build_grid(sys.argv[2], sys.argv[1])
"""


def test_a_killed_build_leaves_the_old_grid(grid, matrix, tmp_path):
    sp.save_npz(tmp_path / "matrix.npz", 2 * matrix)
    assert run_python(KILLED, grid.folder, tmp_path / "matrix.npz").returncode == 9
    old = ff.io.open_grid(grid.folder, verify=True)
    np.testing.assert_array_equal(old.observations.data, matrix.data)
    n_files = len(os.listdir(grid.folder))
    new = ff.io.build_grid(tmp_path / "matrix.npz", grid.folder)
    np.testing.assert_array_equal(new.observations.data, 2 * matrix.data)
    assert len(os.listdir(grid.folder)) < n_files  # what the killed one left is gone


def test_readers_keep_the_grid_they_opened(grid, matrix):
    expected = ff.fit(matrix, **PLAIN)
    ff.io.build_grid(2 * matrix, grid.folder)
    assert_same_model(ff.fit(grid, **PLAIN), expected)


KILLED_FIT = """
import os, signal, sys
import fastfactor as ff
from fastfactor.solvers import journal

journal._PAUSE = journal._SHARE = 0.0
calls = []

def die(epoch):
    calls.append(epoch)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

ff.fit(ff.io.open_grid(sys.argv[1]), 8, max_epochs=6, validation=0.2, callback=die, checkpoint=sys.argv[2])
"""


def test_a_killed_fit_of_a_grid_goes_on(matrix, grid, tmp_path):
    """Twice killed in the final fit, once with a grid of held-out entries laid out beside the one in the folder."""
    kept = tmp_path / "kept"
    for after in (2, 3):
        result = run_python(KILLED_FIT, grid.folder, kept, after)
        assert result.returncode == -9, result.stderr
    again, epochs = ff.io.open_grid(grid.folder), []
    options = {"max_epochs": 6, "validation": 0.2}
    model = ff.fit(again, 8, **options, checkpoint=kept, callback=lambda epoch: epochs.append(epoch.epoch))
    assert epochs
    assert epochs[0] > 1
    assert_same_model(model, ff.fit(matrix, 8, **options))
    assert sorted(os.listdir(grid.folder)) == sorted(os.listdir(again.folder))
    other = ff.io.build_grid(2 * matrix, tmp_path / "other")
    with pytest.raises(ValueError, match="X"):
        ff.fit(other, 8, **options, checkpoint=kept)


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_what_is_wrong_with_a_sound_file_is_no_damage(matrix, tmp_path, form):
    path, folder = tmp_path / "matrix.npz", tmp_path / "grid"
    bad = matrix.copy()
    bad.data[3] = np.nan
    sp.save_npz(path, bad.asformat(form))
    with pytest.raises(ValueError, match=r"^source holds nan at stored entry"):
        ff.io.build_grid(path, folder)
    sp.save_npz(path, matrix.asformat(form))
    with pytest.raises(ValueError, match=r"^dtype must be float32 or float64, got 'int8'"):
        ff.io.build_grid(path, folder, dtype="int8")
    sp.save_npz(path, (matrix * 1j).asformat(form))
    with pytest.raises(ValueError, match=r"^dtype is float32, but .*matrix\.npz holds complex numbers"):
        ff.io.build_grid(path, folder, dtype="float32")


def test_positions_of_any_integers_make_a_grid(tmp_path):
    path = tmp_path / "matrix.npz"
    rows, cols, values = np.array([2, 0], np.uint64), np.array([1, 3], np.uint8), np.array([1.0, 2.0])
    np.savez(path, format=b"coo", shape=(3, 4), row=rows, col=cols, data=values)
    np.testing.assert_array_equal(ff.io.build_grid(path, tmp_path / "grid").observations.indices, [3, 1])
    np.savez(path, format=b"coo", shape=(3, 4), row=rows.astype(float), col=cols, data=values)
    with pytest.raises(ValueError, match=r"matrix\.npz is damaged or no sparse matrix .*row\.npy holds"):
        ff.io.build_grid(path, tmp_path / "grid")


class ShortReads:
    """A file that gives a few bytes in each call, as the system does beyond 2 GiB."""

    def __init__(self, content):
        self.content, self.place = content, 0

    def seek(self, place):
        self.place = place

    def readinto(self, block):
        part = self.content[self.place : self.place + min(len(block), 5)]
        block[: len(part)] = part
        self.place += len(part)
        return len(part)


def test_arrays_in_files_are_read_to_the_end():
    numbers = np.arange(20)
    file = mapped.ArrayFile(ShortReads(numbers.tobytes()), numbers.dtype, 25)
    np.testing.assert_array_equal(file.read(3, 17), numbers[3:])
    with pytest.raises(EOFError, match="the file ends 40 bytes before its array does"):
        file.read(15, 10)
