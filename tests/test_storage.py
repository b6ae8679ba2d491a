"""Models on disk: what was saved comes back, what goes wrong leaves the old model, and faults are named."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import threading
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python

import fastfactor as ff
from fastfactor import folders
from fastfactor import manifest as manifests
from fastfactor.ids import Ids
from fastfactor.model import Factorization

FIXTURE = Path(__file__).parent / "data" / "model-format-1"
MANIFEST = manifests.MANIFEST


def make_model(value=1.0, dtype="float32", n_rows=5, n_cols=4, rank=2, **more):
    rng = np.random.default_rng(3)
    M = {"U": (n_rows, rank), "V": (n_cols, rank), "row_bias": n_rows, "col_bias": n_cols}
    arrays = {name: (value * rng.standard_normal(shape)).astype(dtype) for name, shape in M.items()}
    history = {"epoch": np.arange(3), "train_loss": np.array([1.0, np.nan, np.inf])}
    return Factorization(**arrays, mean=np.dtype(dtype).type(value), history=history, **more)


def assert_equal(left, right):
    for field in fields(Factorization):
        np.testing.assert_equal(getattr(left, field.name), getattr(right, field.name))
    for name in ("U", "V", "row_bias", "col_bias", "mean"):
        assert getattr(left, name).dtype == getattr(right, name).dtype


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model"
    make_model().save(path)
    return path


def listing(path):
    return {name: (path / name).read_bytes() for name in os.listdir(path)}


def forge(path, change):
    """Change a manifest, with a checksum that fits."""
    record = json.loads((path / MANIFEST).read_text())
    change(record)
    record["checksum"] = manifests._checksum({"fields": record["fields"], "arrays": record["arrays"]})
    (path / MANIFEST).write_text(json.dumps(record))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_round_trip(tmp_path, dtype):
    selection = {
        "regularization": 0.1,
        "tried": [(0.1, np.float32(0.25)), (1, None)],
        "nested": {1: "one", "bad": float("nan"), "z": 1 - 2j, "none": float("-inf"), "ok": True},
        "table": np.array(["a", "bc"]),
        "$type": "array",
    }
    model = make_model(2.0, dtype, selection=selection)
    model.save(tmp_path / "deep" / "model")
    for verify in (False, True):
        loaded = ff.load(tmp_path / "deep" / "model", verify)
        assert_equal(loaded, model)
        assert type(loaded.selection["tried"][0]) is tuple
        assert type(loaded.selection["tried"][0][1]) is np.float32


def test_a_fitted_model_predicts_the_same(tmp_path, ratings):
    model = ff.fit(ratings, 3, max_epochs=2)
    model.save(str(tmp_path))
    loaded = ff.load(str(tmp_path), verify=True)
    rows, cols = np.indices(model.shape)
    assert (loaded.predict(rows, cols) == model.predict(rows, cols)).all()
    assert_equal(loaded, model)


@pytest.mark.parametrize(
    "ids", [["a", "", "caf\u00e9"], [3, 1 << 62, -1], [b"a", b"\xff", b""]], ids=["text", "integers", "bytes"]
)
def test_ids_are_kept(tmp_path, ids):
    model = replace(make_model(n_rows=3), row_labels=Ids.of(ids))
    model.save(tmp_path)
    loaded = ff.load(tmp_path, verify=True)
    assert loaded.row_ids.tolist() == ids
    assert loaded.rows_of(ids[::-1]).tolist() == [2, 1, 0]
    assert loaded.col_ids is None
    assert isinstance(loaded.row_labels.data.base, np.memmap)
    np.save(tmp_path / "copy.npy", loaded.row_labels.data, allow_pickle=False)


def test_a_saved_model_with_ids_stays_readable():
    model = ff.load(FIXTURE.parent / "model-format-1-ids", verify=True)
    assert model.row_ids.tolist() == ["ann", "b\0b", "\u00e7"]
    assert model.cols_of([9, -7]).tolist() == [1, 0]


def point_offsets_out(record):
    record["fields"]["row_labels"]["value"].reverse()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["fields"]["row_labels"].update(kind="objects"), "cannot be read"),
        (lambda record: record["fields"]["row_labels"].update(kind="integers"), "cannot be read"),
        (lambda record: record["fields"]["row_labels"]["value"].pop(), "cannot be read"),
        (point_offsets_out, "cannot be read"),
        (lambda record: record["fields"].update(row_labels="ann"), "row_labels are not 3 ids"),
        (lambda record: record["fields"].update(col_labels=record["fields"]["row_labels"]), "col_labels are not 4 ids"),
    ],
    ids=range(6),
)
def test_forged_ids_are_refused(tmp_path, change, words):
    replace(make_model(n_rows=3), row_labels=Ids.of(["a", "b", "c"])).save(tmp_path)
    forge(tmp_path, change)
    with pytest.raises(ValueError, match=words):
        ff.load(tmp_path)


def test_empty_models_and_broadcast_arrays(tmp_path):
    model = make_model(n_rows=0)
    model = replace(model, V=np.asfortranarray(model.V), col_bias=np.broadcast_to(np.float32(1), 4))
    model.save(tmp_path)
    assert_equal(ff.load(tmp_path, verify=True), model)


def test_arrays_are_mapped_and_read_only(saved):
    U = ff.load(saved).U
    assert type(U) is np.ndarray
    assert not U.flags.writeable
    assert not U.flags.owndata
    assert isinstance(U.base, np.memmap)


def test_format_1_stays_readable():
    model = ff.load(FIXTURE, verify=True)
    assert model.U.tolist() == [[1.0, 0.5], [2.0, -0.5], [3.0, 0.25]]
    assert model.V.tolist() == [[1.0, 1.0], [0.5, -1.0]]
    assert model.row_bias.tolist() == [0.0, 1.0, 2.0]
    assert model.col_bias.tolist() == [0.5, -0.5]
    assert model.mean == 3.5
    assert model.mean.dtype == model.U.dtype == np.float32
    assert model.history["epoch"].tolist() == [1, 2]
    assert model.selection == {"regularization": 0.05, "tried": [(0.05, 1.25), (0.5, float("inf"))]}
    assert model.predict(1, 0) == 3.5 + 1.0 + 0.5 + 1.5


def test_saving_again_replaces_and_cleans_up(saved):
    (saved / "notes.txt").write_text("mine")
    before = ff.load(saved)
    after = replace(make_model(2.0), V=before.V)  # its V is mapped from the folder that is written to
    kept = before.U.copy()
    after.save(saved)
    (saved / ".fastfactor-left-by-a-kill").write_text("")
    after.save(saved)
    assert_equal(ff.load(saved, verify=True), after)
    assert (kept == before.U).all()
    named = {entry["file"] for entry in json.loads((saved / MANIFEST).read_text())["arrays"].values()}
    assert set(os.listdir(saved)) == {MANIFEST, "notes.txt", *named}


def test_files_hold_no_pickles_and_are_named_by_content(saved):
    for name, content in listing(saved).items():
        if name != MANIFEST:
            assert name == f"fastfactor-{hashlib.sha256(content).hexdigest()[:32]}.npy"
            np.load(saved / name, allow_pickle=False)


def test_permissions_are_those_of_other_files(saved):
    (saved / "other").write_text("")
    assert len({(saved / name).stat().st_mode for name in os.listdir(saved)}) == 1


N_CALLS = {"fsync": 7, "replace": 7}  # six arrays and the manifest; replaced, there is no way back


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, call, fresh):
    path = tmp_path / "model"
    if not fresh:
        make_model().save(path)
        before = listing(path)
    original = getattr(os, call)
    for at in range(N_CALLS[call] + 1):
        with pytest.MonkeyPatch.context() as patch:
            calls = []

            def fail(*args, at=at, calls=calls):
                calls.append(args)
                if len(calls) > at:
                    raise OSError(errno.ENOSPC, "no space left")
                return original(*args)

            patch.setattr(os, call, fail)
            if at == N_CALLS[call]:
                make_model(2.0).save(path)
                assert len(calls) >= at  # the folder is synced too, where that is possible
                break
            with pytest.raises(OSError, match="no space left"):
                make_model(2.0).save(path)
        if fresh:
            assert not path.exists()
        else:
            assert listing(path) == before
    assert_equal(ff.load(path, verify=True), make_model(2.0))


def test_a_write_cut_short_leaves_what_was_there(saved, monkeypatch):
    before = listing(saved)

    def write(self, block):
        self.file.write(block[:7])
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(folders._HashingFile, "write", write)
    with pytest.raises(OSError, match="no space"):
        make_model(2.0).save(saved)
    assert listing(saved) == before


KILLED = """
import os, sys
from test_storage import make_model

original, left = os.replace, int(sys.argv[2])

def replace(source, target):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    original(source, target)

os.replace = replace
make_model(2.0).save(sys.argv[1])
"""


@pytest.mark.parametrize("left", [0, 3, 6])
def test_a_killed_writer_leaves_the_old_model(saved, left):
    result = run_python(KILLED, saved, left)
    assert result.returncode == 9, result.stderr
    assert_equal(ff.load(saved, verify=True), make_model())
    make_model(3.0).save(saved)
    assert_equal(ff.load(saved, verify=True), make_model(3.0))
    assert len(os.listdir(saved)) == 7


def test_readers_see_the_old_model_or_the_new_one(tmp_path):
    make_model(1.0, n_rows=1000).save(tmp_path)
    done = threading.Event()
    seen, faults = set(), []

    def read():
        try:
            is_over = False
            while not is_over:  # once more after the last was written, so that at least one is read
                is_over = done.is_set()
                model = ff.load(tmp_path, verify=True)
                expected = make_model(float(model.mean), n_rows=1000)
                assert (model.U == expected.U).all()
                assert (model.V == expected.V).all()
                seen.add(float(model.mean))
        except BaseException as error:  # handed to the test's own thread
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(40):
        make_model(float(1 + i % 2), n_rows=1000).save(tmp_path)
    done.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert {2.0} <= seen <= {1.0, 2.0}


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no saved model.*fastfactor\.json"):
        ff.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no saved model"):
        ff.load(tmp_path / "nowhere")


def test_a_truncated_manifest_is_refused_at_any_length(saved):
    content = (saved / MANIFEST).read_bytes()
    for length in range(0, len(content) - 2, 37):
        (saved / MANIFEST).write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"fastfactor\.json is truncated or no JSON"):
            ff.load(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]", "is not the manifest of a fastfactor model"),
        (b'{"format": "other"}', "is not the manifest of a fastfactor model"),
        (b'{"format": NaN}', "no JSON: the constant NaN"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"format": "fastfactor-model", "x": ' + b"[" * 300 + b"]" * 300 + b"}", "nested more than 100 deep"),
        (b'{"format": "fastfactor-model", "format_version": 1}', "checksum"),
        (b'{"format": "fastfactor-model", "format_version": 1, "fields": [], "arrays": 3}', "checksum"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(saved, content, message):
    (saved / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=rf"fastfactor\.json.*{message}"):
        ff.load(saved)


def test_a_huge_manifest_is_not_read(saved, monkeypatch):
    monkeypatch.setattr(manifests, "_MAX_MANIFEST", 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        ff.load(saved)


@pytest.mark.parametrize("version", [0, 2, "1", True, None, 1.0])
def test_foreign_versions_are_refused(saved, version):
    forge(saved, lambda record: record.update(format_version=version))
    with pytest.raises(ValueError, match=rf"fastfactor\.json has format version {version!r}; this version"):
        ff.load(saved)


def test_a_changed_manifest_is_noticed(saved):
    text = (saved / MANIFEST).read_text()
    (saved / MANIFEST).write_text(text.replace('"value": 1.0', '"value": 1.5'))
    with pytest.raises(ValueError, match=r"fastfactor\.json does not have the checksum it says"):
        ff.load(saved)


def entry_of(record, name="U"):
    return record["arrays"][name]


def set_entry(**changes):
    return lambda record: entry_of(record).update(changes)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../secret.npy",
            "/etc/passwd",
            "sub/fastfactor-" + "0" * 32 + ".npy",
            "..",
            "",
            "C:\\x.npy",
            "x.npy",
            3,
            None,
        ),
        *("fastfactor-" + "0" * 32 + ".npy\n", "fastfactor-" + "0" * 31 + "/.npy", "fastfactor-" + "A" * 32 + ".npy"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(saved, name):
    forge(saved, set_entry(file=name))
    with pytest.raises(ValueError, match=r"fastfactor\.json describes an array that cannot be.*is not a name"):
        ff.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [10**6, 10**6]},
        {"shape": [2**62, 2**62]},
        {"shape": [-5, -2]},
        {"shape": [5.0, 2]},
        {"shape": [True, 2]},
        {"shape": "52"},
        {"shape": None},
        {"shape": [1] * 9},
        {"size": -1},
        {"size": 2**70, "shape": [2**60]},
        {"size": "208"},
        {"dtype": "|O"},
        {"dtype": "<f4,<f4"},
        {"dtype": "<f3"},
        {"dtype": "<M8[s]"},
        {"dtype": 4},
        {"sha256": "0" * 64},
        {"sha256": "short"},
    ],
    ids=str,
)
def test_arrays_that_cannot_be_are_refused(saved, changes):
    forge(saved, set_entry(**changes))
    with pytest.raises(ValueError, match=r"fastfactor\.json describes an array that cannot be"):
        ff.load(saved)


@pytest.mark.parametrize("changes", [{"shape": [2, 5]}, {"shape": [10]}, {"dtype": "<i4"}, {"dtype": ">f4"}], ids=str)
def test_arrays_that_are_not_what_the_manifest_says_are_refused(saved, changes):
    forge(saved, set_entry(**changes))
    with pytest.raises(ValueError, match=r"fastfactor-\w+\.npy holds \(5, 2\) of float32, the manifest says"):
        ff.load(saved)


def file_of(path, name="U"):
    return path / entry_of(json.loads((path / MANIFEST).read_text()), name)["file"]


@pytest.mark.parametrize("length", [0, 5, 60, 128, 150, -1])
def test_truncated_arrays_are_refused(saved, length):
    file = file_of(saved)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=rf"{file.name} has \d+ bytes, the manifest says 168"):
        ff.load(saved)


@pytest.mark.parametrize("name", ["U", "history.epoch"])
def test_missing_arrays_are_named(saved, name):
    file = file_of(saved, name)
    file.unlink()
    with pytest.raises(ValueError, match=rf"{file.name} is missing, but .*fastfactor\.json names it"):
        ff.load(saved)
    file.mkdir()
    with pytest.raises(ValueError, match=rf"{file.name} is not a regular file"):
        ff.load(saved)


def test_damage_is_found_with_verify(saved):
    file = file_of(saved)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    ff.load(saved)
    with pytest.raises(ValueError, match=rf"{file.name} does not have the checksum"):
        ff.load(saved, verify=True)


def replace_content(path, content, **changes):
    """Put other content in the place of U, with a manifest that fits."""
    file_of(path).unlink()
    digest = hashlib.sha256(content).hexdigest()
    name = f"fastfactor-{digest[:32]}.npy"
    (path / name).write_bytes(content)
    forge(path, set_entry(file=name, sha256=digest, size=len(content), **changes))
    return name


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def npy(header, data=b"", version=b"\x01\x00"):
    header = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Trap()).ljust(300), "is not a .npy file"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (5, 2), }", pickle.dumps(Trap()).ljust(80)), "holds"),
        (npy("{'descr': '<f4', 'fortran_order': True, 'shape': (5, 2), }", bytes(40)), "holds"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), }", bytes(41)), "its header asks for"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), }", bytes(40), b"\x02\x00"), "version"),
        (npy("__import__('os').mkdir('trapped')", bytes(40)), "is not a .npy file"),
        (npy("{'descr': '<f4'}", bytes(40)), "is not a .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff" + bytes(60), "is not a .npy file"),
    ],
    ids=["pickle", "objects", "fortran", "too long", "version", "code", "short", "cut"],
)
def test_forged_arrays_are_refused_and_never_executed(saved, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = replace_content(saved, content)
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        ff.load(saved, verify=True)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("V"), "lacks V"),
        (lambda f: f.update(history=3), "history is not a dict"),
        (lambda f: f.update(future=3), "fields that this version does not know: future"),
        (lambda f: f.update(U=f["row_bias"]), "U has shape"),
        (lambda f: f.update(row_bias=f["col_bias"]), "shapes do not fit"),
        (lambda f: f.update(U=[1, 2]), "U is not an array"),
        (lambda f: f.update(U={"$type": "array", "name": "history.epoch"}), "U is not an array"),
        (lambda f: f.update(mean="3"), "mean is not a number"),
        (lambda f: f.update(mean={"$type": "array", "name": "no such"}), "cannot be read"),
        (lambda f: f.update(mean={"$type": "eval", "value": "1"}), "cannot be read"),
        (lambda f: f.update(mean={"$type": "scalar", "dtype": "|O", "value": 1}), "cannot be read"),
        (lambda f: f.update(mean={"$type": "scalar", "dtype": "<f4", "value": {}}), "cannot be read"),
        (lambda f: f.update(mean={"$type": ["unhashable"]}), "cannot be read"),
        (lambda f: f.update(mean={"$type": "complex", "value": [1]}), "cannot be read"),
        (lambda f: f.update(selection={"$type": "dict", "value": [[[1], 2]]}), "cannot be read"),
    ],
)
def test_fields_that_make_no_model_are_refused(saved, change, message):
    forge(saved, lambda record: change(record["fields"]))
    with pytest.raises(ValueError, match=rf"fastfactor\.json.*{message}"):
        ff.load(saved)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    for value in (object(), np.array([object()]), {"deep": [np.datetime64("2020-01-01")]}, {1, 2}):
        with pytest.raises(TypeError, match=r"selection\.bad.* cannot be saved"):
            make_model(selection={"bad": value}).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_strings_as_objects_become_strings(tmp_path):
    make_model(selection={"ids": np.array(["a", "longer"], object)}).save(tmp_path)
    assert ff.load(tmp_path).selection["ids"].tolist() == ["a", "longer"]


def test_reading_under_constant_rewriting_gives_up(saved, monkeypatch):
    turn = iter(range(10**6))

    def read_manifest(path, kind):
        make_model(float(next(turn))).save(saved)
        content = path.read_bytes()
        shutil.rmtree(saved)
        saved.mkdir()
        return content

    monkeypatch.setattr(folders, "read_manifest", read_manifest)
    with pytest.raises(ValueError, match="was written anew 20 times"):
        ff.load(saved)


def test_a_model_that_went_and_came_back_is_read(saved, monkeypatch):
    """Between manifest and arrays another model is saved, then this one again: the manifest is the same, yet new."""
    open_array, turns = folders._open_array, iter(range(100))

    def interfere(*args):
        if next(turns):
            return open_array(*args)
        make_model(2.0).save(saved)
        try:
            return open_array(*args)
        finally:
            make_model().save(saved)

    monkeypatch.setattr(folders, "_open_array", interfere)
    assert_equal(ff.load(saved), make_model())
