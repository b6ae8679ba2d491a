"""Threads are woken on cores of their own, and may use the same cores afterwards as before."""

import contextlib
import os
import sys
import threading

import pytest
from conftest import find_layer

from fastfactor.placing import kept_off

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a program choose its cores"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2 if sys.platform == "linux" else True, reason="one core only"),
]


@pytest.fixture
def waiting():
    """The system's number of a thread that waits."""
    numbers, done, ready = [], threading.Event(), threading.Event()

    def wait():
        numbers.append(threading.get_native_id())
        ready.set()
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    yield numbers[0]
    done.set()
    thread.join()


def test_cores_are_given_back_also_after_an_error(waiting):
    before = os.sched_getaffinity(waiting)
    core = min(before)
    with contextlib.suppress(ZeroDivisionError), kept_off(core, [waiting]):
        assert os.sched_getaffinity(waiting) == before - {core}
        raise ZeroDivisionError
    assert os.sched_getaffinity(waiting) == before


def test_a_thread_of_that_core_alone_stays(waiting):
    core = min(os.sched_getaffinity(waiting))
    os.sched_setaffinity(waiting, {core})
    with kept_off(core, [waiting]):
        assert os.sched_getaffinity(waiting) == {core}
    assert os.sched_getaffinity(waiting) == {core}


def test_threads_that_have_ended_are_left_out(waiting):
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    before = os.sched_getaffinity(waiting)
    with kept_off(min(before), [ended.native_id, waiting]):
        assert os.sched_getaffinity(waiting) == before - {min(before)}
    assert os.sched_getaffinity(waiting) == before


PAUSED = """
import os, threading, time, numba, numpy as np
from fastfactor import placing
from fastfactor.matrix.values import find_largest

numbers, kept_off, calls = np.arange(1e5), placing.kept_off, []

def noting(core, threads):
    calls.append((core, threads))
    return kept_off(core, threads)

placing.kept_off = noting
find_largest(numbers)
cores = os.sched_getaffinity(0)
for _ in range(2):
    time.sleep(0.1)
    find_largest(numbers)
others = calls[1][1]
print(calls[0][1], {core for core, _ in calls} <= cores)
print(len(others), threading.get_native_id() in others)
print(all(os.sched_getaffinity(thread) == cores for thread in (0, *others)))
for n_threads, asleep in ((1, 0.0), (2, 60.0), (2, 0.0)):  # a launch on one thread wakes nobody
    numba.set_num_threads(n_threads)
    placing._ASLEEP, before = asleep, len(calls)
    find_largest(numbers)
    print(len(calls) - before)
placing._pool.others = [1, os.getppid(), *others]  # numbers that others have by now
find_largest(numbers)
print(calls[-1][1] == others)
"""


@pytest.mark.skipif(not find_layer("omppool"), reason="Numba was built without OpenMP")
def test_threads_are_placed_after_a_pause_and_not_otherwise(python):
    printed = python(PAUSED, env={"NUMBA_THREADING_LAYER": "omp", "NUMBA_NUM_THREADS": 2})
    assert printed.split("\n")[:7] == ["[] True", "1 False", "True", "0", "0", "1", "True"]
