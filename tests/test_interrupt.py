"""Ctrl-C at any moment of a fit: KeyboardInterrupt, and the next fit is as if nothing had happened."""

import signal

import pytest

# One process: a fit to compare with, then fits that a timer interrupts, each followed by a whole one.
SESSION = """
import random, signal, sys, time
import numba, numpy as np
import fastfactor as ff

rng = np.random.default_rng(0)
rows, cols = np.nonzero(rng.random((900, 700)) < 0.3)
X = rows, cols, rng.standard_normal(len(rows))
cases = [
    {"max_epochs": 12},
    {"max_epochs": 12, "validation": 0.1, "regularization": 0.05},
    {"max_epochs": 3, "unobserved": "weak", "X": (rows, cols, np.ones(len(rows)))},
]
random.seed(int(sys.argv[1]))
interrupted = 0
for case in cases:
    started = time.perf_counter()
    whole = ff.fit(**{"X": X, "rank": 8, **case})  # compiles
    started = time.perf_counter()
    whole = ff.fit(**{"X": X, "rank": 8, **case})
    seconds, threads = time.perf_counter() - started, numba.get_num_threads()
    for _ in range(int(sys.argv[2])):
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, seconds))
        try:
            ff.fit(**{"X": X, "rank": 8, **case})
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupted += 1
        assert numba.get_num_threads() == threads
    again = ff.fit(**{"X": X, "rank": 8, **case})
    assert again.U.tobytes() == whole.U.tobytes()
print(interrupted)
"""

# A timer stands for the terminal: its signal is handled as SIGINT is.
SETUP = "import signal; signal.signal(signal.SIGALRM, signal.default_int_handler)\n"

if not hasattr(signal, "setitimer"):
    pytest.skip("this system has no interval timers", allow_module_level=True)


def test_ctrl_c_at_random_moments(python):
    assert int(python(SETUP + SESSION, 1, 4)) >= 6


@pytest.mark.long
def test_ctrl_c_at_300_random_moments(python):
    assert int(python(SETUP + SESSION, 2, 100, timeout=7200)) >= 150
