"""Ctrl-C at any moment of a fit: KeyboardInterrupt, soon, and the next fit is as if nothing had happened."""

import json
import signal

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.solvers import sgd

# One process: a fit to compare with, then fits that a timer interrupts, each followed by a whole one.
SESSION = """
import json, random, signal, sys, time
import numba, numpy as np
import fastfactor as ff

seed, n_moments, n_rows = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
rows, cols = np.nonzero(rng.random((n_rows, 700)) < 0.3)
X = rows, cols, rng.standard_normal(len(rows))
ones = rows, cols, np.ones(len(rows))
cases = [
    {"max_epochs": 12},
    {"max_epochs": 12, "validation": 0.1, "regularization": 0.05},
    {"max_epochs": 3, "unobserved": "weak", "X": ones},
    {"max_epochs": 3, "unobserved": "weak", "loss": "bpr", "regularization": 0.1, "X": ones},
    {"max_epochs": 2, "posterior_samples": 2},
]
random.seed(seed)
late = []
for case in cases:
    started = time.perf_counter()
    whole = ff.fit(**{"X": X, "rank": 8, **case})  # compiles
    started = time.perf_counter()
    whole = ff.fit(**{"X": X, "rank": 8, **case})
    seconds, threads = time.perf_counter() - started, numba.get_num_threads()
    for _ in range(n_moments):
        moment = random.uniform(1e-4, seconds)
        due = time.perf_counter() + moment
        try:
            signal.setitimer(signal.ITIMER_REAL, moment)
            ff.fit(**{"X": X, "rank": 8, **case})
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            late.append(time.perf_counter() - due)
        assert numba.get_num_threads() == threads
    again = ff.fit(**{"X": X, "rank": 8, **case})
    assert again.U.tobytes() == whole.U.tobytes()
print(json.dumps(late))
"""

# A timer stands for the terminal: its signal is handled as SIGINT is.
SETUP = "import signal; signal.signal(signal.SIGALRM, signal.default_int_handler)\n"

if not hasattr(signal, "setitimer"):
    pytest.skip("this system has no interval timers", allow_module_level=True)


def interrupt(python, *args, **options):
    """Return by how many seconds each Ctrl-C was heard late."""
    return np.array(json.loads(python(SETUP + SESSION, *args, **options)))


def test_ctrl_c_at_random_moments(python):
    late = interrupt(python, 1, 4, 900)
    assert len(late) >= 10  # how late they were heard is for the long form, at rest


@pytest.mark.long
def test_ctrl_c_at_500_random_moments(python):
    late = interrupt(python, 2, 100, 9000, timeout=7200)
    assert len(late) >= 250
    assert np.quantile(late, 0.95) < 0.5, np.sort(late)[-30:]


def test_calls_of_kernels_are_cut_by_the_clock(monkeypatch):
    """However long an entry takes, no call but the first of an epoch goes far beyond what it may take."""
    now = [0.0]
    monkeypatch.setattr(sgd.time, "perf_counter", lambda: now[0])
    for seconds in (1e-6, 1e-3, 0.03, 0.3):  # a diagonal
        seen, took = [], []
        for diagonals in sgd._cut_by_time(np.arange(1000), 1_000_000_000):
            seen.extend(diagonals)
            took.append(len(diagonals) * seconds)
            now[0] += took[-1]
        assert seen == list(range(1000))
        assert took[0] == pytest.approx(20 * seconds)
        assert max(took[1:]) <= max(0.1, seconds) * 1.001
        assert len(took) <= 2 + 1000 * max(seconds / 0.05, 1e-3)


@pytest.mark.parametrize("arguments", [{}, {"unobserved": "zero"}, {"unobserved": "weak", "loss": "bpr"}])
def test_where_calls_are_cut_changes_no_bit(tastes, monkeypatch, arguments):
    X, fits = sp.csr_array(tastes, copy=True), []
    X.data += 0.01 * np.arange(X.nnz) * ("loss" not in arguments)
    for work, seconds in ((1e12, 1e9), (1, 0), (1, 1e9), (1000, 1e-4)):
        monkeypatch.setattr(sgd, "_FIRST_WORK", work)
        monkeypatch.setattr(sgd, "_SECONDS_PER_LAUNCH", seconds)
        model = ff.fit(X, 8, max_epochs=3, regularization=0.1, **arguments)
        fits.append((model.U.tobytes(), model.V.tobytes(), model.history["train_loss"].tobytes()))
    assert len(set(fits)) == 1
