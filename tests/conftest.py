"""Shared fixtures: small matrices, fresh processes, and the folder with real data where there is one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import hypothesis
import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor

PACKAGE = Path(fastfactor.__file__).resolve().parent
TESTS = Path(__file__).resolve().parent
HANG = 1800  # seconds after which a process counts as hung; machines stand still now and then

# Examples differ in compilation, not in how long they should take; nothing is kept between runs.
hypothesis.settings.register_profile("fastfactor", deadline=None, database=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("fastfactor")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def ratings():
    """A small matrix like ratings: 60 x 40, a third observed, low rank plus offsets plus noise."""
    rng = np.random.default_rng(7)
    A = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 40)) + rng.standard_normal((60, 1)) + 3.0
    A += 0.1 * rng.standard_normal(A.shape)
    rows, cols = np.nonzero(rng.random(A.shape) < 0.35)
    return sp.coo_array((A[rows, cols], (rows, cols)), shape=A.shape).tocsr()


@pytest.fixture(scope="session")
def tastes():
    """Rows and columns of four kinds, of which like goes with like: 150 x 90, a tenth stored."""
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(4, size=150), rng.integers(4, size=90)
    likes = rng.random((150, 90)) < np.where(rows[:, None] == cols, 0.35, 0.02)
    return sp.csr_array(likes.astype(float))


@pytest.fixture(scope="session")
def decaying():
    """A dense 60 x 40 matrix with singular values 1, 0.8, 0.64, ..."""
    rng = np.random.default_rng(8)
    Q = np.linalg.qr(rng.standard_normal((60, 40)))[0]
    P = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    return (Q * 0.8 ** np.arange(40)) @ P.T


def start_python(code, *args, env=None, package=PACKAGE, **options):
    """Start `code` in a new process that imports the same package; `options` go to Popen, whose pipes are of text.

    `-P` keeps the current folder, which may hold another copy, out of its way. `env` is merged into the environment; a
    value of None removes a variable.
    """
    merged = dict(os.environ)
    for name in ("NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_DISABLE_JIT", "FASTFACTOR_SIMD"):
        merged.pop(name, None)
    merged["PYTHONPATH"] = os.pathsep.join((str(package.parent), str(TESTS)))
    merged["PYTHONDONTWRITEBYTECODE"] = "1"
    for name, value in (env or {}).items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = str(value)
    return subprocess.Popen([sys.executable, "-P", "-c", code, *map(str, args)], env=merged, text=True, **options)


def run_python(code, *args, timeout=HANG, **options):
    """Run `code` as `start_python` does, and return the completed process."""
    with start_python(code, *args, stdout=PIPE, stderr=PIPE, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_same_model(first, second):
    """Require equal bits of all that a fit gives."""
    for name in ("U", "V", "row_bias", "col_bias", "mean"):
        one, other = np.asarray(getattr(first, name)), np.asarray(getattr(second, name))
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        assert one.tobytes() == other.tobytes(), name
    for name in ("epoch", "learning_rate", "train_loss", "validation_loss"):
        assert first.history[name].tobytes() == second.history[name].tobytes(), name
    np.testing.assert_equal(first.selection, second.selection)
    np.testing.assert_equal(first.recipe, second.recipe)
    assert first.loss == second.loss


@pytest.fixture(scope="session")
def python():
    """Run code in a new process, require that it succeeds, and return what it printed."""

    def run(code, *args, **options):
        result = run_python(code, *args, **options)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def find_layer(name):
    """Return whether Numba's threading layer of that name can be loaded here."""
    return importlib.util.find_spec(f"numba.np.ufunc.{name}") is not None


@pytest.fixture(scope="session")
def data():
    """The `load` and `split` functions of the folder that FASTFACTOR_DATA names."""
    folder = os.environ.get("FASTFACTOR_DATA")
    if not folder:
        pytest.skip("FASTFACTOR_DATA is not set: no real matrices to test with")
    path = Path(folder) / "load.py"
    if not path.is_file():
        pytest.skip(f"FASTFACTOR_DATA is {folder}, which holds no load.py")
    spec = importlib.util.spec_from_file_location("fastfactor_data_load", path)
    module = importlib.util.module_from_spec(spec)
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keep
    return module
