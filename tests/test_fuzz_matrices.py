"""Whatever matrix is handed over: the process lives, the answer is finite or a documented error, nothing is changed."""

import concurrent.futures
import os

import pytest
from campaign import run_cases, tell

N_SHORT, N_LONG, SHARD = 400, 100_000, 1000


def test_bad_matrices(tmp_path):
    outcomes, faults = run_cases("bad_calls.py", 0, N_SHORT, tmp_path, 0)
    assert not faults, tell(faults)
    assert sum(outcomes.values()) == N_SHORT
    assert sum(n for name, n in outcomes.items() if name.endswith(": answer")) > N_SHORT / 4
    assert sum(n for name, n in outcomes.items() if name.endswith("Error")) > N_SHORT / 4


@pytest.mark.long
def test_100_000_bad_matrices(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        shards = range(0, N_LONG, SHARD)
        parts = list(pool.map(lambda first: run_cases("bad_calls.py", first, SHARD, tmp_path, 1), shards))
    faults = [fault for _, found in parts for fault in found]
    assert not faults, tell(faults)
