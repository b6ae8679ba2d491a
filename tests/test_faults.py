"""What the machine runs out of: disk while something is written, memory while something is computed."""

import json

import pytest
from conftest import run_python
from process_status import STATUS

pytest.importorskip("resource")

# Everything that is written, under a limit on the size of files that moves through all sizes that matter.
WRITING = """
import json, os, resource, shutil, signal, sys
from pathlib import Path
import numpy as np
import fastfactor as ff
from fastfactor.solvers import journal

journal._PAUSE = journal._SHARE = 0.0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, n_limits = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
X = np.where(rng.random((90, 70)) < 0.5, rng.standard_normal((90, 70)), np.nan)
options = dict(max_epochs=3, regularization=0.1, validation=False)
old, new = ff.fit(X, 4, **options), ff.fit(X, 5, **options)

def limited(limit, act):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        act()
        return True
    except OSError as error:
        assert error.errno is not None, error
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def content(path):
    return {each.name: each.read_bytes() for each in Path(path).iterdir()}

def size(path):
    return max(len(each) for each in content(path).values())

def check_model(limit):
    shutil.rmtree(folder / "model", ignore_errors=True)
    old.save(folder / "model")
    before = content(folder / "model")
    whole = limited(limit, lambda: new.save(folder / "model"))
    if not whole:
        assert content(folder / "model") == before
    assert ff.load(folder / "model", verify=True).rank == (5 if whole else 4)
    return whole

def check_grid(limit):
    shutil.rmtree(folder / "grid", ignore_errors=True)
    ff.io.build_grid(X[:60], folder / "grid")
    before = content(folder / "grid")
    whole = limited(limit, lambda: ff.io.build_grid(X, folder / "grid"))
    if not whole:
        assert content(folder / "grid") == before
    assert ff.io.open_grid(folder / "grid", verify=True).shape[0] == (90 if whole else 60)
    return whole

def check_checkpoint(limit):
    shutil.rmtree(folder / "kept", ignore_errors=True)
    def fit(**more):
        return ff.fit(X, 4, **options, checkpoint=folder / "kept", **more)
    whole = limited(limit, fit)
    # Whatever was kept, the same call goes on from it when there is room again.
    assert fit().U.tobytes() == old.U.tobytes()
    return whole

def check_full_later(limit):
    shutil.rmtree(folder / "kept", ignore_errors=True)
    def fit(**more):
        return ff.fit(X, 4, **options, checkpoint=folder / "kept", **more)
    fit(callback=lambda e: e.epoch == 2)
    whole, epochs = limited(limit, fit), []
    assert fit(callback=lambda e: epochs.append(e.epoch)).U.tobytes() == old.U.tobytes()
    assert whole or epochs[0] >= 2  # it goes on from what was kept before there was no room
    return whole

found = {}
checks = {check_model: "model", check_grid: "grid", check_checkpoint: "kept", check_full_later: "kept"}
for check, path in checks.items():
    check(1 << 30)
    largest = size(folder / path)
    spread = np.linspace(0, 3 * largest, n_limits).astype(int)
    limits = sorted({0, 1, 127, 128, 129, largest - 1, largest, *spread, 1 << 28})
    results = [check(int(limit)) for limit in limits]
    assert results == sorted(results), "a smaller limit let through what a larger one did not"
    found[check.__name__] = [results.count(False), results.count(True)]
print(json.dumps(found))
"""


@pytest.mark.parametrize("n_limits", [6, pytest.param(200, marks=pytest.mark.long)])
def test_full_disks(tmp_path, n_limits):
    result = run_python(WRITING, tmp_path, n_limits, timeout=3000)
    assert result.returncode == 0, result.stderr
    for failed, passed in json.loads(result.stdout).values():
        assert failed >= 5
        assert passed >= 1


SMALL_DISK = """
import errno, sys
import numpy as np
import fastfactor as ff

rng = np.random.default_rng(0)
X = rng.standard_normal((300, 200))
options = dict(max_epochs=3, regularization=0.1, validation=False)
model = ff.fit(X, 4, **options)
model.save(sys.argv[1] + "/model")
for act in (
    lambda: [model.save(sys.argv[1] + f"/model{i}") for i in range(100)],
    lambda: ff.io.build_grid(X, sys.argv[1] + "/grid"),
    lambda: ff.fit(X, 40, **options, checkpoint=sys.argv[1] + "/kept"),
):
    try:
        act()
        raise AssertionError("there was room")
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
assert (ff.load(sys.argv[1] + "/model", verify=True).U == model.U).all()
print("full")
"""


def test_a_small_disk(tmp_path):
    """A real one, in a name space of mounts of its own, where the system lets us."""
    import shutil
    import subprocess

    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    mount = f"mount -t tmpfs -o size=200k none {tmp_path}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    (tmp_path.parent / "script.py").write_text(SMALL_DISK)
    code = (
        "import subprocess, sys\n"
        f"command = {mount!r} + ' && ' + sys.executable + ' -P {tmp_path.parent / 'script.py'} {tmp_path}'\n"
        "sys.exit(subprocess.run(['unshare', '-m', 'sh', '-c', command]).returncode)"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "full\n"


# Compiled and warm, the process gets less and less room for what it computes next.
MEMORY = """
import json, resource, sys
import numba, numpy as np, scipy.sparse as sp
import fastfactor as ff
from process_status import read_status

rng = np.random.default_rng(0)
X = sp.random_array((30_000, 2_000), density=0.02, rng=rng, format="csr", dtype=np.float32)
D, few = rng.standard_normal((1500, 400)), X[:3000]  # scipy's slices end the process where there is no memory
plain = dict(max_epochs=2, regularization=0.1, validation=False)
model = ff.fit(X, 16, **plain)
calls = {
    "fit": lambda: ff.fit(X, 16, **plain).U,
    "chosen": lambda: ff.fit(X, 16, max_epochs=2).U,
    "zero": lambda: ff.fit(D, 8, unobserved="zero", max_epochs=2).U,
    "weak": lambda: ff.fit(X, 16, unobserved="weak", max_epochs=1, regularization=0.1, unobserved_weight=0.1).U,
    "pairs": lambda: ff.fit(X, 16, unobserved="weak", loss="bpr", max_epochs=1, regularization=0.1).U,
    "sampled": lambda: ff.fit(few, 8, posterior_samples=1, max_epochs=1).U,
    "svd": lambda: ff.svd(X, 5, tol=1e-3).U,
    "dense svd": lambda: ff.svd(D, 5).U,
    "pca": lambda: ff.pca(X, 5, tol=1e-3).U,
    "recommend": lambda: model.recommend(range(20_000), 50)[0],
    "predict": lambda: model.predict(np.arange(3_000_000) % 30_000, 5),
    "reconstruct": lambda: model.reconstruct(range(2_000)),
    "fold_in": lambda: model.fold_in(X).U,
    "partial_fit": lambda: model.partial_fit(X, max_epochs=1).U,
}

found = {}
for name in sys.argv[3:] or calls:
    call = calls[name]
    call()
    expected, threads, refused = call().tobytes(), numba.get_num_threads(), 0
    rooms = np.linspace(0, float(sys.argv[2]) * 1e6, int(sys.argv[1])).astype(int)
    for room in rooms:
        resource.setrlimit(resource.RLIMIT_AS, (read_status("VmSize") + int(room), resource.RLIM_INFINITY))
        try:
            result = call()
        except MemoryError:
            refused += 1
            result = None
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert result is None or result.tobytes() == expected, name
        assert numba.get_num_threads() == threads
    assert call().tobytes() == expected, name
    found[name] = refused
print(json.dumps(found))
"""


@pytest.mark.parametrize(("n_rooms", "most"), [(4, 40), pytest.param(150, 90, marks=pytest.mark.long)])
def test_memory_that_runs_out(n_rooms, most):
    if not STATUS.exists():
        pytest.skip("the limit on memory needs Linux")
    # Freed memory goes back at once, so that no call has room from the one before.
    env = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    result = run_python(MEMORY, n_rooms, most, env=env, timeout=3000)
    assert result.returncode == 0, result.stderr[-3000:]
    assert sum(json.loads(result.stdout).values()) >= n_rooms
