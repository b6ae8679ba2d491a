"""Files that were cut short, changed, forged or made to hurt: an error names them, nothing is run, no memory taken."""

import pytest
from campaign import run_shards, tell
from process_status import STATUS

pytest.importorskip("pyarrow")
if not STATUS.exists():
    pytest.skip("the limit on memory needs Linux", allow_module_level=True)

N_SHORT, N_LONG, SHARD = 400, 40_000, 1000


def test_hostile_files(tmp_path):
    outcomes, faults = run_shards("hostile_files.py", N_SHORT, N_SHORT // 2, tmp_path)
    assert not faults, tell(faults)
    refused = sum(n for name, n in outcomes.items() if name.endswith("Error"))
    assert refused > N_SHORT / 3
    assert sum(outcomes.values()) == N_SHORT


@pytest.mark.long
def test_40_000_hostile_files(tmp_path):
    outcomes, faults = run_shards("hostile_files.py", N_LONG, SHARD, tmp_path)
    assert not faults, tell(faults)
    assert sum(outcomes.values()) == N_LONG
