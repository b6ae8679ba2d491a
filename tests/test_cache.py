"""Kernels are compiled once per machine, again after an edit, and also where nothing can be written."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import PACKAGE, run_python

from fastfactor.kernels import compiling

# A typical session: a small matrix like ratings fitted twice at one rank, then predictions.
SESSION = """
import hashlib, json, sys
import numpy as np, scipy.sparse as sp
import fastfactor as ff

rng = np.random.default_rng(0)
X = sp.random(120, 80, 0.2, format="csr", random_state=1)
model = ff.fit(X, 8, max_epochs=3)
ff.fit(X, 8, max_epochs=3, seed=1)
values = model.predict([0, 1], [2, 3])

from numba.core.dispatcher import Dispatcher

found = {}
for name, module in list(sys.modules.items()):
    if name.startswith("fastfactor.kernels."):
        found |= {id(x): x for x in vars(module).values() if isinstance(x, Dispatcher)}
print(json.dumps({
    "hits": sum(sum(x.stats.cache_hits.values()) for x in found.values()),
    "misses": sum(sum(x.stats.cache_misses.values()) for x in found.values()),
    "compiled": sum(len(x.stats.cache_misses) for x in found.values()),
    "result": hashlib.sha256(model.U.tobytes() + values.tobytes()).hexdigest(),
}))
"""

# Specialisations that the session above compiles: each costs every new user a second or so. A larger number is a
# regression of the first impression; where it pays, change it here and say why.
COMPILE_BUDGET = 40


@pytest.fixture(scope="module")
def sessions(python, tmp_path_factory):
    """The session in two new processes that share a cache folder, empty at first."""
    env = {"NUMBA_CACHE_DIR": tmp_path_factory.mktemp("cache")}
    return [json.loads(python(SESSION, env=env)) for _ in range(2)]


def test_second_process_compiles_nothing(sessions):
    first, second = sessions
    assert first["misses"] > 0
    assert second["misses"] == 0
    assert second["hits"] > 0
    assert second["result"] == first["result"]


def test_compile_budget(sessions):
    assert 10 < sessions[0]["compiled"] <= COMPILE_BUDGET


COUNTED = """
import hashlib
import numpy as np
import fastfactor as ff
from fastfactor.kernels.sweep import sweep_dense

model = ff.fit(np.arange(12.0).reshape(3, 4), 8, unobserved="zero", max_epochs=3)
print(hashlib.sha256(model.U.tobytes()).hexdigest(), sum(sweep_dense.stats.cache_misses.values()))
"""


def copy_package(folder):
    return shutil.copytree(PACKAGE, folder / "fastfactor", ignore=shutil.ignore_patterns("__pycache__"))


def edit_and_restore(folder):
    """Return what COUNTED prints before, while and after a line of update.py is another one."""
    package, env = copy_package(folder), {"NUMBA_CACHE_DIR": folder / "cache"}
    path = package / "kernels" / "update.py"
    source = path.read_text()
    line = "g = bounded(step.lr * weigh(derivative(static, step.place, x, p), weight), step.place)"
    assert line in source
    printed = []
    for content in (source, source.replace(line, line.replace("step.lr", "step.lr * step.lr")), source):
        path.write_text(content)
        printed.append(run_python(COUNTED, env=env, package=package).stdout.split())
    return printed


@pytest.fixture(scope="module", autouse=True)
def editing(tmp_path_factory):
    """Runs beside the other tests here: one core compiles for these, another for those."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(edit_and_restore, tmp_path_factory.mktemp("edited"))


QUICK = """
import warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastfactor as ff
    model = ff.fit(np.arange(12.0).reshape(3, 4), 8, unobserved="zero", max_epochs=1)
print(model, sum("kernels are not cached" in str(w.message) for w in caught))
"""


def test_where_nothing_can_be_written_only_the_cache_is_lost(python, tmp_path):
    """Files stand where the cache folders would be made, which stops root too; there is no home directory."""
    package = copy_package(tmp_path)
    (package / "kernels" / "__pycache__").write_text("not a folder")
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    env = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "LOCALAPPDATA": nowhere, "IPYTHONDIR": nowhere}
    printed = python(QUICK, package=package, env=env | {"NUMBA_CACHE_DIR": None})
    model, warned = printed.strip().rsplit(" ", 1)
    assert model == "Factorization(3 x 4, rank=8, dtype=float64)"
    assert int(warned) > 0
    assert not list(package.rglob("*.nbi"))


def test_a_read_only_package_is_cached_in_the_users_folder(python, tmp_path):
    """A file stands where the package's cache would be made, which stops root too."""
    package = copy_package(tmp_path)
    (package / "kernels" / "__pycache__").write_text("not a folder")
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": home, "XDG_CACHE_HOME": None, "LOCALAPPDATA": home, "NUMBA_CACHE_DIR": None}
    first, second = (python(COUNTED, package=package, env=env).split() for _ in range(2))
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("1", "0")
    assert list(home.rglob("*.nbi"))


def test_signatures_that_are_added_at_the_same_moment(tmp_path):
    """Of two processes that both saw an empty index, each gets its own code back, or none."""
    files = [compiling._CacheFile(str(tmp_path), "kernel", "stamp") for _ in "ab"]
    for file, key in zip(files, "ab", strict=True):
        load_index, seen = file._load_index, [{}, {}]
        file._load_index = lambda seen=seen, load_index=load_index: seen.pop() if seen else load_index()
        file.save(key, f"code of {key}")
    codes = [files[0].load(key) for key in "ab"]
    assert codes == [None, "code of b"]
    assert {path.name for path in tmp_path.glob("*.nbc")} > {files[0]._load_index()["b"]}


def test_code_of_other_sources_makes_room(tmp_path):
    """An edited kernel leaves nothing of its old self behind; whatever its index does not name stays."""
    old, new = (compiling._CacheFile(str(tmp_path), "kernel", stamp) for stamp in ("old", "new"))
    beside = compiling._CacheFile(str(tmp_path), "another", "old")
    for file, key in ((old, "a"), (old, "b"), (old, "c"), (beside, "a")):
        file.save(key, f"old code of {key}")
    names = old._load_index()
    (tmp_path / names["c"]).unlink()  # another process was first
    unnamed = tmp_path / "kernel.1.nbc"  # of a process that has not written its index yet
    unnamed.write_bytes(b"")
    new.save("a", "new code of a")
    assert new.load("a") == "new code of a"
    assert set(tmp_path.glob("kernel.*.nbc")) == {unnamed, tmp_path / new._load_index()["a"]}
    assert beside.load("a") == "old code of a"
    new.save("b", "new code of b")
    assert [new.load(key) for key in "ab"] == ["new code of a", "new code of b"]
    old._load_index = lambda: names  # read before it was replaced
    assert old.load("a") is None


def test_processes_that_compile_at_once(tmp_path):
    """Three fill an empty cache together; each gets the same bits, and the fourth compiles nothing."""
    env = {"NUMBA_CACHE_DIR": tmp_path / "cache"}
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: run_python(COUNTED, env=env), range(3)))
    assert [result.returncode for result in results] == [0] * 3, results
    last = run_python(COUNTED, env=env).stdout.split()
    assert {result.stdout.split()[0] for result in results} == {last[0]}
    assert last[1] == "0"


def test_edited_kernel_is_compiled_again(editing):
    """The cached function is in sweep.py, whose own file does not change."""
    original, edited, restored = editing.result()
    assert edited[0] != original[0]
    assert edited[1] == original[1] == "1"
    assert restored[0] == original[0]


def test_import_loads_neither_numba_nor_scipy(python):
    printed = python(
        "import sys, fastfactor\n"
        "assert 'fit' in dir(fastfactor)\n"
        "print(sorted({'numba', 'scipy', 'llvmlite'} & set(sys.modules)))\n"
        "fastfactor.fit\n"
        "print('numba' in sys.modules)"
    )
    assert printed.split("\n")[:2] == ["[]", "True"]


def test_import_starts_no_threading_layer(python):
    printed = python(
        "import fastfactor as ff, numba\n"
        "ff.fit, ff.Factorization\n"
        "try:\n    print(numba.threading_layer())\nexcept ValueError:\n    print('not started')"
    )
    assert printed.strip() == "not started"


def test_unknown_name_is_an_attribute_error():
    import fastfactor

    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        fastfactor.fitt  # noqa: B018
