"""Whatever matrix is handed over: the process lives, the answer is finite or a documented error, nothing is changed."""

import pytest
from campaign import run_shards, tell

N_SHORT, N_LONG, SHARD = 400, 100_000, 1000


def test_bad_matrices(tmp_path):
    outcomes, faults = run_shards("bad_calls.py", N_SHORT, N_SHORT // 2, tmp_path, 0)
    assert not faults, tell(faults)
    assert sum(outcomes.values()) == N_SHORT
    assert sum(n for name, n in outcomes.items() if name.endswith(": answer")) > N_SHORT / 4
    assert sum(n for name, n in outcomes.items() if name.endswith("Error")) > N_SHORT / 4


@pytest.mark.long
def test_100_000_bad_matrices(tmp_path):
    outcomes, faults = run_shards("bad_calls.py", N_LONG, SHARD, tmp_path, 1)
    assert not faults, tell(faults)
    assert sum(outcomes.values()) == N_LONG
