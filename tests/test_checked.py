"""Kernels whose indices are checked, on good and on bad matrices: none looks outside an array."""

import pytest
from campaign import run_cases, tell

LANES = {
    "bounds": {"NUMBA_BOUNDSCHECK": "1"},
    "vectors": {"NUMBA_BOUNDSCHECK": "1", "FASTFACTOR_DEBUG": "1"},
}


@pytest.mark.long
@pytest.mark.parametrize("lane", LANES)
def test_no_kernel_leaves_its_arrays(tmp_path, lane):
    env = LANES[lane] | {"NUMBA_CACHE_DIR": tmp_path / "cache", "NUMBA_NUM_THREADS": 1}
    outcomes, faults = run_cases("checked_calls.py", 0, 3000, tmp_path, env=env)
    assert not faults, tell(faults)
    assert sum(n for name, n in outcomes.items() if name.endswith(": answer")) > 1000


CAUGHT = """
import checked_calls
import numpy as np
from fastfactor.kernels.layout import inspect_rows

indptr, slices = np.array([0, 2, 9]), np.array([0, 1, 2])
arrays = np.array([0, 1, 1], np.int32), np.ones(3, np.float32)
try:
    inspect_rows(indptr, *arrays, 2, slices, np.empty((2, 3)), np.empty((2, 2), np.int64))
except IndexError as error:
    print("caught", error)
"""


def test_the_lane_catches(python, tmp_path):
    """What a kernel would do with offsets that nobody has checked."""
    env = LANES["bounds"] | {"NUMBA_CACHE_DIR": tmp_path / "cache"}
    assert python(CAUGHT, env=env).startswith("caught")
