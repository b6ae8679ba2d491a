"""The same kernels on other roads: no assumed CPU, no vectors, index checks, no compiler at all."""

import concurrent.futures
import os

import pytest
import reference
from conftest import run_python

CHECK = "import sweeping; sweeping.check_all({rank}, {losses}); print('equal')"


LANES = [
    ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, 8),
    ({"FASTFACTOR_SIMD": "0"}, 8),
    ({"FASTFACTOR_DEBUG": "1"}, 144),  # rows walked in chunks
    ({"NUMBA_DISABLE_JIT": "1"}, 8),
    ({"NUMBA_DISABLE_JIT": "1"}, 144),
]


def check_lane(env, rank):
    """A loss is a scalar function, the same on each road: where it has to be compiled, one stands for all."""
    losses = tuple(reference.LOSSES) if "NUMBA_DISABLE_JIT" in env else ("logistic",)
    return run_python(CHECK.format(rank=rank, losses=losses), env=env)


@pytest.fixture(scope="module")
def running():
    """All lanes, as many at a time as there are cores: they compile most of the time, each on one core."""
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield [pool.submit(check_lane, env, rank) for env, rank in LANES]


@pytest.mark.parametrize("lane", range(len(LANES)), ids=[f"{next(iter(env))}-{rank}" for env, rank in LANES])
def test_sweeps_equal_the_oracle(running, lane):
    result = running[lane].result()
    assert result.stdout.strip() == "equal", result.stderr


FIT = """
import numpy as np, fastfactor as ff
rng = np.random.default_rng(0)
A = rng.standard_normal((20, 3)) @ rng.standard_normal((3, 15))
X = np.where(rng.random(A.shape) < 0.2, np.nan, A)
model = ff.fit(X, 8, regularization=0.05, max_epochs=3, validation=0.2, biases=True)
assert np.isfinite(model.reconstruct()).all()
np.testing.assert_allclose(model.predict(3, 4), model.reconstruct([3])[0, 4], rtol=1e-5)
print(repr(model.history["validation_loss"].tolist()))
"""


def test_whole_fit_without_compiler_is_the_same_fit(python):
    """Also that plain Python warns of nothing: hash and sweeps wrap around on purpose."""
    compiled = eval(python(FIT))
    plain = eval(python("import warnings; warnings.simplefilter('error')\n" + FIT, env={"NUMBA_DISABLE_JIT": "1"}))
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert len(plain) == 3


OUT_OF_BOUNDS = """
import numpy as np
from fastfactor.kernels.simd import Spec, Static, load
from fastfactor.kernels.compiling import kernel

@kernel
def read(M, row, chunk, static):
    return load(M, row, chunk, static).sum()

M = np.ones((3, 16), np.float32)
print(read(M, 2, 1, Static(Spec(8, False))))
for row, chunk in ((3, 0), (-1, 0), (0, 2), (0, -1)):
    try:
        read(M, row, chunk, Static(Spec(8, False)))
    except IndexError as error:
        print(error)
"""


@pytest.mark.parametrize("env", [{}, {"NUMBA_DISABLE_JIT": "1"}], ids=["compiled", "plain"])
def test_debug_flag_checks_indices(python, env, tmp_path):
    script = tmp_path / "read.py"  # a kernel is cached beside its file
    script.write_text(OUT_OF_BOUNDS)
    printed = python(f"import runpy; runpy.run_path({str(script)!r})", env={"FASTFACTOR_DEBUG": "1"} | env)
    assert printed.split("\n")[:5] == ["8.0", *["a kernel left its factor matrix"] * 4]
