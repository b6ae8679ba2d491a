"""Who owns the cores: counts are put back, forked children are told, concurrent fits do not abort the process."""

import os

import pytest
from conftest import find_layer, run_python

LAYERS = [
    pytest.param(name, marks=pytest.mark.skipif(not find_layer(module), reason=f"Numba was built without {name}"))
    for name, module in (("omp", "omppool"), ("workqueue", "workqueue"))
]

RESTORED = """
import numba, numpy as np, fastfactor as ff
from fastfactor.threads import count_threads, using_threads

A = np.arange(12.0).reshape(3, 4)
numba.set_num_threads(2)
seen = []
ff.fit(A, 8, unobserved="zero", n_threads=1, max_epochs=1, callback=lambda e: seen.append(numba.get_num_threads()))
print(seen[0], numba.get_num_threads())
for arguments in (dict(X=np.full((2, 2), np.nan)), dict(X=A, callback=lambda e: 1 / 0, validation=False)):
    try:
        ff.fit(rank=8, n_threads=1, regularization=0.1, **arguments)
    except (ValueError, ZeroDivisionError) as error:
        print(type(error).__name__, numba.get_num_threads())
numba.set_num_threads(1)
print(count_threads(None), count_threads(1), count_threads(10**6))
ff.fit(A, 8, unobserved="zero", n_threads=2, max_epochs=1)
print(numba.get_num_threads())
"""


def test_thread_count_is_put_back_also_on_failure(python):
    printed = python(RESTORED, env={"NUMBA_NUM_THREADS": 2}).split("\n")
    assert printed[:5] == ["1 2", "ValueError 2", "ZeroDivisionError 2", "1 1 2", "1"]


SHARED = """
import os, numba, numpy as np, fastfactor as ff

for n in (20, 200):
    seen = set()
    ff.fit(np.ones((n, n)), 8, unobserved="zero", max_epochs=2, callback=lambda e: seen.add(numba.get_num_threads()))
    print(seen, numba.get_num_threads())
print([name for name in os.environ if name.startswith("GOMP_")])
"""


def test_small_rounds_stay_on_one_thread(python):
    assert python(SHARED, env={"NUMBA_NUM_THREADS": 2}).split("\n")[:2] == ["{1} 2", "{2} 2"]


@pytest.mark.skipif(not find_layer("omppool"), reason="Numba was built without OpenMP")
@pytest.mark.parametrize(("given", "heard"), [({}, "30000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_waiting_threads_sleep_soon_unless_the_environment_says_otherwise(given, heard):
    unset = {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": None, "OMP_DISPLAY_ENV": "verbose"}
    result = run_python(SHARED, env={**unset, "NUMBA_THREADING_LAYER": "omp", "NUMBA_NUM_THREADS": 2, **given})
    if "GOMP_SPINCOUNT" not in result.stderr:
        pytest.skip("this OpenMP is not GNU's")
    assert f"GOMP_SPINCOUNT = '{heard}'" in result.stderr
    assert result.stdout.split("\n")[2] == str([*given])  # the library takes back what it lent


FORK = """
import os, sys, numpy as np, fastfactor as ff

A = np.arange(12.0).reshape(3, 4)
model = ff.fit(A, 8, unobserved="zero", max_epochs=1)

def attempt(action):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            action()
            print("fine", flush=True)
            os._exit(0)
        except RuntimeError as error:
            print(error, flush=True)
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

print(attempt(lambda: ff.fit(A, 8, unobserved="zero", max_epochs=1)))
print(attempt(lambda: model.predict(0, 0)))
print(ff.fit(A, 8, unobserved="zero", max_epochs=1))  # the parent is as it was
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
@pytest.mark.skipif(not find_layer("omppool"), reason="Numba was built without OpenMP")
def test_child_forked_after_openmp_is_told_what_to_do(python):
    printed = python(FORK, env={"NUMBA_THREADING_LAYER": "omp", "NUMBA_NUM_THREADS": 2})
    assert printed.count("forked after a fit") == 2
    assert printed.count("'spawn' or 'forkserver'") == 2
    assert [line for line in printed.split("\n") if line.isdigit()] == ["3", "3"]
    assert "Factorization(3 x 4" in printed


@needs_fork
def test_child_forked_before_the_first_launch_works(python):
    code = FORK.replace('model = ff.fit(A, 8, unobserved="zero", max_epochs=1)', "ff.fit").replace(
        "print(attempt(lambda: model.predict(0, 0)))", ""
    )
    printed = python(code, env={"NUMBA_NUM_THREADS": 2}).split("\n")
    assert printed[:2] == ["fine", "0"]


CONCURRENT = """
import hashlib, threading, numpy as np, numba, fastfactor as ff

A = np.random.default_rng(0).standard_normal((200, 100)).astype("float32")

def run(seed):
    model = ff.fit(A, 16, unobserved="zero", max_epochs=30, seed=seed)
    values = model.predict(np.arange(100), np.arange(100))
    return hashlib.sha256(model.U.tobytes() + model.V.tobytes() + values.tobytes()).hexdigest()

results = {}
threads = [threading.Thread(target=lambda s=s: results.__setitem__(s, run(s))) for s in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert results == {s: run(s) for s in range(4)}
assert len(set(results.values())) == 4
print(numba.threading_layer())
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_fits_from_several_threads(python, layer):
    assert python(CONCURRENT, env={"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": 2}).strip() == layer


FAILING = """
import threading, numpy as np, fastfactor as ff

A = np.random.default_rng(0).standard_normal((20, 10)).astype("float32")

def fail(epoch):
    raise OSError("from the callback")

def run():
    try:
        ff.fit(A, 8, unobserved="zero", callback=fail)
    except OSError:
        pass

thread = threading.Thread(target=run)
thread.start()
thread.join()
print(ff.fit(A, 8, unobserved="zero", max_epochs=1))
"""


def test_a_failed_fit_leaves_no_lock_behind(python):
    assert "20 x 10" in python(FAILING, env={"NUMBA_THREADING_LAYER": "workqueue"})
