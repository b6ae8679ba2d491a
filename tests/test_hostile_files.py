"""Files that were cut short, changed, forged or made to hurt: an error names them, nothing is run, no memory taken."""

import concurrent.futures
import os
from pathlib import Path

import pytest
from campaign import run_cases, tell

pytest.importorskip("pyarrow")
if not Path("/proc/self/status").exists():
    pytest.skip("the limit on memory needs Linux", allow_module_level=True)

N_SHORT, N_LONG, SHARD = 400, 40_000, 1000


def test_hostile_files(tmp_path):
    outcomes, faults = run_cases("hostile_files.py", 0, N_SHORT, tmp_path)
    assert not faults, tell(faults)
    refused = sum(n for name, n in outcomes.items() if name.endswith("Error"))
    assert refused > N_SHORT / 3
    assert sum(outcomes.values()) == N_SHORT


@pytest.mark.long
def test_40_000_hostile_files(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        shards = range(0, N_LONG, SHARD)
        parts = list(pool.map(lambda first: run_cases("hostile_files.py", first, SHARD, tmp_path), shards))
    faults = [fault for _, found in parts for fault in found]
    assert not faults, tell(faults)
