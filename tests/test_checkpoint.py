"""fit(checkpoint=): killed at any moment and called again, a fit ends with the bits of one that was left alone."""

import errno
import json
import os
import random
import shutil
import signal
import time
from subprocess import PIPE, TimeoutExpired

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import assert_same_model, run_python, start_python

import fastfactor as ff
from fastfactor import folders, locks
from fastfactor.manifest import MANIFEST
from fastfactor.solvers import journal

QUICK = {"regularization": 0.05, "validation": False, "max_epochs": 6}


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(journal, "_PAUSE", 0.0)
    monkeypatch.setattr(journal, "_SHARE", 0.0)


def own_loss():
    return ff.Loss(lambda x, p: abs(x - p), lambda x, p: np.sign(p - x), name="modulus")


# What a fit can be made of: each with what it adds to the state.
CASES = {
    "selection": {"max_epochs": 8},
    "epochs and penalty chosen": {},
    "held out, stopped early": {"regularization": 0.0, "validation": 0.3, "max_epochs": 40},
    "halved": {"regularization": 0.05, "validation": False, "learning_rate": 3.0, "max_epochs": 8},
    "warm start": {**QUICK, "init": True},
    "poisson": {**QUICK, "loss": "poisson"},
    "zero": {"unobserved": "zero", "max_epochs": 6},
    "weak": {"unobserved": "weak", "max_epochs": 4},
    "weights": {**QUICK, "sample_weight": True},
}


@pytest.fixture(scope="module")
def numbers(ratings):
    """Whole numbers, at least 0: what every loss takes."""
    X = ratings.copy()
    X.data = np.abs(np.round(ratings.data)) + 1
    return X


def prepare(X, case):
    arguments = {"rank": 3, **CASES[case]}
    if "init" in arguments:
        arguments["init"] = ff.fit(X, 3, seed=5, **QUICK)
    if "sample_weight" in arguments:
        arguments["sample_weight"] = sp.csr_array((np.arange(1.0, X.nnz + 1), X.indices, X.indptr), X.shape)
    return arguments


class Killed(BaseException):
    """Stands for kill -9: nobody catches it."""


@pytest.mark.parametrize("case", CASES)
def test_interrupted_at_every_write_it_ends_with_the_same_bits(numbers, tmp_path, monkeypatch, case):
    """The fit dies right after each single write, so every state that is ever kept is gone on from."""
    arguments = prepare(numbers, case)
    expected = ff.fit(numbers, **arguments)
    whole = folders.replace_content
    writes = 0

    def write(*given):
        nonlocal writes
        whole(*given)
        writes += 1
        if case != "epochs and penalty chosen" or writes % 9 == 0:  # that one writes some hundred times
            raise Killed

    monkeypatch.setattr("fastfactor.folders.replace_content", write)
    deaths = 0
    while True:
        try:
            model = ff.fit(numbers, **arguments, checkpoint=tmp_path / "kept")
            break
        except Killed:
            deaths += 1
    assert deaths >= len(set(expected.history["epoch"])) // 9 + len(expected.selection["trials"])
    assert writes >= len(set(expected.history["epoch"]))
    assert_same_model(model, expected)
    assert (np.diff(model.history["seconds"]) >= 0).all()


def test_a_loss_of_ones_own_is_compared_by_its_code(numbers, tmp_path):
    loss = own_loss()
    model = ff.fit(numbers, 3, loss=loss, **QUICK, checkpoint=tmp_path)
    again = ff.fit(numbers, 3, loss=loss, **QUICK, checkpoint=tmp_path)
    assert again.loss is loss
    assert_same_model(again, model)
    other = ff.Loss(lambda x, p: 2 * abs(x - p), lambda x, p: 2 * np.sign(p - x), name="modulus")
    with pytest.raises(ValueError, match=r"loss was loss 'modulus' with code .*, is loss 'modulus' with code"):
        ff.fit(numbers, 3, loss=other, **QUICK, checkpoint=tmp_path)


def test_a_fit_that_ended_is_not_run_again(numbers, tmp_path):
    model = ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path)
    again = ff.fit(numbers, 3, **QUICK, checkpoint=str(tmp_path), callback=lambda _: pytest.fail("an epoch was run"))
    assert_same_model(again, model)
    assert again.U.flags.writeable
    assert again.history["seconds"].tolist() == model.history["seconds"].tolist()


def test_what_a_callback_ended_goes_on(numbers, tmp_path):
    expected = ff.fit(numbers, 3, **QUICK)
    short = ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path, callback=lambda e: e.epoch == 2)
    assert short.history["epoch"].tolist() == [1, 2]
    seen = []
    model = ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path, callback=lambda e: seen.append(e.epoch))
    assert seen == [2, 3, 4, 5, 6]
    assert_same_model(model, expected)


def test_what_the_deadline_ended_goes_on(numbers, tmp_path, monkeypatch):
    """The clock is replaced: each look at it is a second later."""
    expected = ff.fit(numbers, 3, **QUICK)
    clock = iter(range(10**9))
    with monkeypatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: float(next(clock)))
        short = ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path, max_seconds=20)
    assert 0 < len(short.history["epoch"]) < 6
    assert_same_model(ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path), expected)


def changes(X):
    other = X.copy()
    other.data[5] += 1
    return {
        "X": ({"X": other}, r"X was csr matrix .*checksum \w+, is csr matrix"),
        "seed": ({"seed": 1}, "seed was 0, is 1"),
        "penalty": ({"regularization": 0.06}, "regularization was 0.05, is 0.06"),
        "epochs": ({"max_epochs": 7}, "max_epochs was 6, is 7"),
        "many": ({"seed": 1, "rank": 4, "max_epochs": 7, "biases": False}, "; and 1 more"),
        "problem": ({"unobserved": "zero"}, "unobserved was 'missing', is 'zero'"),
        "dtype": ({"dtype": np.float64}, "dtype was None, is float64"),
    }


@pytest.mark.parametrize("change", ["X", "seed", "penalty", "epochs", "many", "problem", "dtype"])
def test_another_fit_is_refused_with_what_differs(numbers, tmp_path, change):
    ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    difference, message = changes(numbers)[change]
    with pytest.raises(ValueError, match=message):
        ff.fit(**{"X": numbers, "rank": 3, **QUICK, **difference}, checkpoint=tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_what_changes_no_number_may_differ(numbers, tmp_path):
    model = ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path, n_threads=1)
    assert_same_model(ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path, n_threads=2, max_seconds=100), model)


def keep_half(X, path):
    def die(epoch):
        if epoch.epoch == 4:
            raise Killed

    with pytest.raises(Killed):
        ff.fit(X, 3, **QUICK, checkpoint=path, callback=die)


@pytest.mark.parametrize("damage", ["manifest", "array", "missing", "model", "forged"])
def test_damage_is_refused(numbers, tmp_path, damage):
    keep_half(numbers, tmp_path)
    arrays = sorted(tmp_path.glob("*.npy"))
    if damage == "manifest":
        (tmp_path / MANIFEST).write_bytes((tmp_path / MANIFEST).read_bytes()[:-40])
    elif damage == "array":
        content = bytearray(arrays[0].read_bytes())
        content[-1] ^= 1
        arrays[0].write_bytes(content)
    elif damage == "missing":
        arrays[0].unlink()
    elif damage == "model":
        ff.fit(numbers, 3, **QUICK).save(tmp_path)
    else:
        from test_storage import forge

        forge(tmp_path, lambda record: record["fields"]["progress"].pop("trials"))
    with pytest.raises(ValueError, match=r"checkpoint cannot be used: .*"):
        ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (3, TypeError, "checkpoint must be the path of a folder, got 3"),
        ("{file}", NotADirectoryError, "checkpoint must be a folder"),
        ("{file}/below", NotADirectoryError, "checkpoint must be a folder"),
    ],
)
def test_bad_paths_are_refused(numbers, tmp_path, path, error, message):
    (tmp_path / "file").write_text("")
    path = path.format(file=tmp_path / "file") if isinstance(path, str) else path
    with pytest.raises(error, match=message):
        ff.fit(numbers, 3, **QUICK, checkpoint=path)


def test_bad_input_leaves_no_folder(numbers, tmp_path):
    with pytest.raises(ValueError, match="X holds"):
        ff.fit((np.array([0]), np.array([0]), np.array([np.nan])), 3, checkpoint=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_full_disk_is_named_and_what_was_kept_stays(numbers, tmp_path, monkeypatch):
    keep_half(numbers, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def write(self, block):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folders._HashingFile, "write", write)
        with pytest.raises(OSError, match="what it kept before is still there: No space left") as caught:
            ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert_same_model(ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path), ff.fit(numbers, 3, **QUICK))


def test_ctrl_c_right_after_the_manifest_was_replaced(numbers, tmp_path, monkeypatch):
    """The arrays that the new manifest names must stay."""
    settle = folders._settle_folder
    calls = 0

    def interrupt(folder):
        nonlocal calls
        settle(folder)
        calls += 1
        if calls == 6:  # twice a write: before the manifest is replaced, and after
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_settle_folder", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path)
    assert_same_model(ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path), ff.fit(numbers, 3, **QUICK))


# --- two at once

RUNNING = """
import os, sys, time
import fastfactor as ff, numpy as np, scipy.sparse as sp

def pause(epoch):
    if epoch.epoch == 2:
        if os.fork() == 0:  # it outlives the fit, and must not keep what the fit holds
            print(os.getpid(), flush=True)
            time.sleep(300)
            os._exit(0)
        sys.stdin.read()

X = sp.load_npz(sys.argv[1])
ff.fit(X, 3, regularization=0.05, validation=False, max_epochs=6, checkpoint=sys.argv[2], callback=pause)
"""


def test_a_folder_that_a_running_fit_uses_is_refused(numbers, tmp_path):
    """Another process is told which; once it was killed, with a child of its own still there, nothing is in the way."""
    pytest.importorskip("fcntl")
    sp.save_npz(tmp_path / "X.npz", numbers)
    kept = tmp_path / "kept"
    with start_python(RUNNING, tmp_path / "X.npz", kept, stdin=PIPE, stdout=PIPE) as other:
        child = int(other.stdout.readline())
        try:
            for _ in range(2):  # refused once, it is not let in the next time
                with pytest.raises(BlockingIOError, match=rf"checkpoint is in use .* {other.pid} on ") as caught:
                    ff.fit(numbers, 3, **QUICK, checkpoint=kept)
                assert caught.value.filename == str(kept)
            other.kill()
            other.wait()
            assert (kept / locks.LOCK).exists()
            seen = []
            model = ff.fit(numbers, 3, **QUICK, checkpoint=kept, callback=lambda e: seen.append(e.epoch))
        finally:
            os.kill(child, signal.SIGKILL)
    assert seen[0] in (1, 2)  # it went on
    assert_same_model(model, ff.fit(numbers, 3, **QUICK))
    assert not (kept / locks.LOCK).exists()


def test_a_second_fit_in_this_process_is_refused(numbers, tmp_path):
    pytest.importorskip("fcntl")
    refused = []

    def fit_again(epoch):
        if epoch.epoch == 1:
            with pytest.raises(BlockingIOError, match=rf"process {os.getpid()} on "):
                ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path)
            refused.append(True)

    model = ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path, callback=fit_again)
    assert refused
    assert_same_model(model, ff.fit(numbers, 3, **QUICK))


def test_the_lock_of_a_file_that_was_removed_is_not_taken_for_one(tmp_path):
    """Whoever opened the file before its holder removed it holds nothing that others can see."""
    fcntl = pytest.importorskip("fcntl")
    flock = fcntl.flock

    def end_of_the_other(descriptor, how):
        fcntl.flock = flock
        (tmp_path / locks.LOCK).unlink()
        flock(descriptor, how)

    fcntl.flock = end_of_the_other
    try:
        with (
            locks.holding(tmp_path, "checkpoint"),
            pytest.raises(BlockingIOError),
            locks.holding(tmp_path, "checkpoint"),
        ):
            pass
    finally:
        fcntl.flock = flock
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", ["locks", "writing"])
def test_where_nothing_can_be_locked_fits_go_on(numbers, tmp_path, monkeypatch, lacking):
    fcntl = pytest.importorskip("fcntl")
    expected = ff.fit(numbers, 3, **QUICK)
    if lacking == "locks":
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
        assert_same_model(ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path), expected)
    else:
        ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path)
        (tmp_path / locks.LOCK).mkdir()  # root writes to folders that are read-only, but opens none as a file
    assert_same_model(
        ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path, callback=lambda _: pytest.fail("run again")), expected
    )


def test_a_link_in_the_place_of_the_lock_is_not_followed(numbers, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / locks.LOCK).symlink_to(tmp_path / "mine")
    ff.fit(numbers, 3, **QUICK, checkpoint=tmp_path / "kept")
    assert (tmp_path / "mine").read_text() == "mine"


# --- real kills

CHILD = """
import json, sys
import numpy as np, scipy.sparse as sp
import fastfactor as ff
from fastfactor.solvers import journal

journal._PAUSE = journal._SHARE = 0.0
path, case, checkpoint = sys.argv[1:4]
arguments = json.loads(case)
X = sp.load_npz(path)
print("ready", flush=True)
model = ff.fit(X, 8, **arguments, **({"checkpoint": checkpoint} if checkpoint else {}))
arrays = [model.U, model.V, model.row_bias, model.col_bias, *map(model.history.get, ("train_loss", "validation_loss"))]
import hashlib
print(hashlib.sha256(b"".join(a.tobytes() for a in arrays) + repr(model.selection).encode()).hexdigest())
"""


def kill_until_it_ends(X, arguments, folder, n_kills, seed):
    """Run the same fit over and over, killed after a random while until `n_kills` are used up."""
    sp.save_npz(folder / "X.npz", X)
    given = [folder / "X.npz", json.dumps(arguments)]
    result = run_python(CHILD, *given, folder / "compiled")  # so that what follows loads the same machine code
    assert result.returncode == 0, result.stderr
    expected = run_python(CHILD, *given, "").stdout.split()[-1]

    def start(kept):
        """Return a child whose imports are over, so that what is killed is the fit."""
        process = start_python(CHILD, *given, kept, stdout=PIPE, stderr=PIPE)
        process.stdout.readline()
        return process

    process, started = start(folder / "once"), time.monotonic()
    assert process.communicate()[0].split()[-1] == expected
    longest = time.monotonic() - started
    rng, kills, rounds = random.Random(seed), 0, 0
    while kills < n_kills:
        rounds += 1
        kept, killed = folder / f"kept{rounds}", False
        while True:
            process, started = start(kept), time.monotonic()
            try:
                out, err = process.communicate(timeout=rng.uniform(0.0, longest) if kills < n_kills else None)
                break
            except TimeoutExpired:
                process.kill()
                process.communicate()
                kills, killed = kills + 1, True
        assert process.returncode == 0, err
        assert out.split()[-1] == expected
        if not killed:  # the first measurement may have been long because the machine stood still
            longest = min(longest, time.monotonic() - started)
        shutil.rmtree(kept)
    return kills


@pytest.fixture(scope="module")
def larger():
    """Large enough that a fit with its trials takes a second or so, with a write after each epoch."""
    rng = np.random.default_rng(3)
    rows, cols = np.nonzero(rng.random((400, 300)) < 0.3)
    values = (rng.standard_normal((400, 2))[rows] * rng.standard_normal((300, 2))[cols]).sum(axis=1)
    return sp.csr_array((values + rng.standard_normal(len(rows)), (rows, cols)), shape=(400, 300))


def test_killed_at_random_moments(larger, tmp_path):
    assert kill_until_it_ends(larger, {"max_epochs": 12}, tmp_path, 5, seed=1) == 5


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [{"max_epochs": 12}, {"regularization": 0.01, "learning_rate": 2.0, "validation": 0.2}, {"unobserved": "weak"}],
    ids=["selection", "halved", "weak"],
)
def test_killed_at_200_random_moments(larger, tmp_path, arguments):
    X = abs(larger) if arguments.get("unobserved") == "weak" else larger  # which takes positives alone
    assert kill_until_it_ends(X, arguments, tmp_path, 200, seed=2) >= 200
