"""`fastfactor warmup`: the job that comes after it, in a process of its own, has nothing to compile."""

import json

import pytest

pytest.importorskip("click")

from fastfactor.cli.app import run

JOB = """
import sys, warnings
import numpy as np, scipy.sparse as sp
import fastfactor as ff
from numba.core.dispatcher import Dispatcher

warnings.simplefilter("ignore", UserWarning)
X = sp.random_array((1600, 1300), density=0.02, rng=np.random.default_rng(1), format="csr", dtype=np.float32)
if sys.argv[1] == "zero":
    ff.svd(X, 4)
    ff.svd(X.T.toarray(), 4)
else:
    rows, cols = X.nonzero()
    ff.fit((rows, cols, X.data.astype(float)), 3, unobserved=sys.argv[1], max_epochs=2, shape=X.shape)
    model = ff.fit(X, 3, unobserved=sys.argv[1], max_epochs=2)
    model.predict([0, 1], [2, 3])
    model.recommend(range(100), 5, exclude=X)
modules = [module for name, module in sys.modules.items() if name.startswith("fastfactor.kernels.")]
found = {id(x): x for module in modules for x in vars(module).values() if isinstance(x, Dispatcher)}
print(sum(sum(x.stats.cache_hits.values()) for x in found.values()))
print([x.__name__ for x in found.values() if x.stats.cache_misses])
"""


@pytest.mark.parametrize("unobserved", ["missing", "zero", "weak"])
def test_after_warmup_a_job_compiles_nothing(python, tmp_path, unobserved):
    env = {"NUMBA_CACHE_DIR": tmp_path}
    command = ["warmup", "--rank", "3", "--unobserved", unobserved, "--quiet"]
    python(f"from fastfactor.cli.app import run; assert run({command}) == 0", env=env)
    hits, missing = python(JOB, unobserved, env=env).splitlines()
    assert int(hits) > 0
    assert missing == "[]"


@pytest.mark.parametrize(("loss", "unobserved"), [("squared", "missing"), ("bpr", "weak")])
def test_it_says_what_it_compiled_for(capsys, loss, unobserved):
    assert run(["warmup", "--rank", "3", "--loss", loss, "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["loss"], result["unobserved"]) == (loss, unobserved)
    assert result["seconds"]["3"] > 0
    assert err.startswith("rank 3: ")
