"""Fits side by side: in threads, in workers of joblib and multiprocessing, after forks, on every threading layer."""

import multiprocessing
import os
import sys

import pytest
from conftest import PACKAGE, run_python

LAYERS = ("omp", "tbb", "workqueue")


@pytest.fixture
def environment(layer):
    """What a process needs to run on that layer."""
    found = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": 2}
    if layer == "tbb":  # `pip install tbb` puts its library where the system does not look
        paths = os.path.join(sys.prefix, "lib"), os.environ.get("LD_LIBRARY_PATH")
        found["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    module = {"omp": "omppool", "tbb": "tbbpool", "workqueue": "workqueue"}[layer]
    result = run_python(f"import numba.np.ufunc.{module}", env=found)
    if result.returncode:
        pytest.skip(f"Numba's layer {layer} does not load here: {result.stderr.splitlines()[-1]}")
    return found


WORK = """
import hashlib, os, sys, threading
import numpy as np, numba
import fastfactor as ff

A = np.random.default_rng(0).standard_normal((120, 80)).astype("float32")
B = np.where(A > 0.7, 1.0, 0.0)
model = None

def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in arrays)).hexdigest()[:12]

def work(seed):
    '''Some of everything; equal seeds give equal digests wherever they run.'''
    one = ff.fit(A, 8, unobserved="zero", max_epochs=3, seed=seed, n_threads=1 + seed % 2)
    two = ff.fit(A, 8, max_epochs=3, seed=seed, regularization=0.1, validation=False)
    three = ff.fit(B, 8, unobserved="weak", max_epochs=2, seed=seed, regularization=0.1, unobserved_weight=0.1)
    found = ff.svd(A, 3, seed=seed)
    asked = one.predict(range(80), range(80)), two.recommend([0, 5], 4)[0], two.transform(A[:5])
    return digest(one.U, two.V, three.U, found.s, *asked)
"""

THREADS = (
    WORK
    + """
expected = [work(seed) for seed in range(6)]
numba.set_num_threads(2)
found, counts = {}, {}

def run(seed):
    numba.set_num_threads(1 + seed % 2)
    found[seed] = [work(seed) for _ in range(2)]
    counts[seed] = numba.get_num_threads()

threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == {seed: [expected[seed]] * 2 for seed in range(6)}, found
assert counts == {seed: 1 + seed % 2 for seed in range(6)}, counts
assert numba.get_num_threads() == 2
print(numba.threading_layer())
"""
)


@pytest.mark.parametrize("layer", LAYERS)
def test_everything_from_many_threads(python, layer, environment):
    assert python(THREADS, env=environment).strip() == layer


POOLS = (
    WORK
    + """
import multiprocessing

if __name__ == "__main__":
    method, when = sys.argv[1:]
    expected = [work(seed) for seed in range(2)] if when == "after" else None
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        try:
            found = pool.map_async(work, range(2)).get(timeout=1200)
        except RuntimeError as error:
            assert method == "fork" and when == "after", error
            print("told:", error)
            sys.exit()
    assert found == (expected or [work(seed) for seed in range(2)])
    print("worked")
"""
)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("method", "when"), [("fork", "before"), ("fork", "after"), ("spawn", "after")])
def test_workers_of_multiprocessing(tmp_path, layer, environment, method, when):
    """A fork after a fit works, or raises and says what to do (GNU OpenMP); nothing else is allowed to happen."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    script = tmp_path / "pools.py"
    script.write_text(POOLS)
    code = f"import runpy, sys; sys.argv[0] = {str(script)!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    result = run_python(code, method, when, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    if "told:" in result.stdout:
        assert layer == "omp"
        assert "'spawn' or 'forkserver'" in result.stdout
    else:
        assert result.stdout.strip() == "worked"


LOKY = """
import sys
sys.path.insert(0, sys.argv[1])
import joblib
from workers import work

expected = [work(seed) for seed in range(2)]
for backend in ("loky", "threading"):
    found = joblib.Parallel(2, backend=backend)(joblib.delayed(work)(seed) for seed in range(2))
    assert found == expected, backend
print("equal")
"""


def test_workers_of_joblib(tmp_path, python):
    pytest.importorskip("joblib")
    (tmp_path / "workers.py").write_text(WORK)
    env = {"PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{tmp_path}"}
    assert "equal" in python(LOKY, tmp_path, env=env)


DASK = """
import sys
sys.path.insert(0, sys.argv[1])
import dask, distributed
from workers import work

if __name__ == "__main__":
    expected = [work(seed) for seed in range(4)]
    for scheduler in ("threads", "processes"):
        tasks = [dask.delayed(work)(seed) for seed in range(4)]
        assert list(dask.compute(*tasks, scheduler=scheduler, num_workers=2)) == expected, scheduler
    local = dict(n_workers=2, threads_per_worker=2, dashboard_address=":0")
    for processes in (False, True):
        with distributed.LocalCluster(processes=processes, **local) as cluster, distributed.Client(cluster) as client:
            assert client.gather(client.map(work, range(4), pure=False)) == expected, processes
    print("equal")
"""


def test_tasks_of_dask(tmp_path, python):
    """Fits as tasks, several at once in the threads of a worker: nothing that the cluster knows of."""
    pytest.importorskip("distributed", reason="Dask needs the extra dask")
    (tmp_path / "workers.py").write_text(WORK)
    env = {"PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{tmp_path}"}
    assert "equal" in python(DASK, tmp_path, env=env)


CHILDREN = (
    WORK
    + """
before = work(0)
busy = threading.Thread(target=lambda: [work(seed) for seed in range(8)])
busy.start()
codes = []
for _ in range(5):  # while another thread is in the middle of a fit
    child = os.fork()
    if child == 0:
        try:
            ok = work(0) == before
        except RuntimeError as error:
            ok = "'spawn' or 'forkserver'" in str(error)
        os._exit(0 if ok else 3)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
busy.join()
assert codes == [0] * 5, codes
assert work(0) == before
print("fine")
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("layer", LAYERS)
def test_forks_in_the_middle_of_a_fit(python, layer, environment):
    printed = python(CHILDREN, env=environment).splitlines()
    told = {line for line in printed[:-1] if line}
    assert printed[-1] == "fine"
    # Numba's handler of forks says this where tbb is at work; children do without its threads, one on its own.
    assert all(layer == "tbb" and line.startswith("Unable to join threads") for line in told), told
