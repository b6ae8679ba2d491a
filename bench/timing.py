"""Taking times: whole calls interleaved, whole processes, and the peak of a process's memory."""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bench.machine import clean_environment

Result = TypeVar("Result")

_ROOT = Path(__file__).resolve().parents[1]
SETTLED = 0.2  # seconds; OpenBLAS's workers spin on for 0.1 s after a call, and would slow whoever comes next


def interleave(calls: Mapping[str, Callable[[], Result]], repeats: int) -> dict[str, list[Result]]:
    """Run A B C, A B C, ... so that a slow spell of the machine falls on all alike; return the results by name.

    Before each call the thread pools of the one before it are given time to fall asleep.
    """
    results: dict[str, list[Result]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            gc.collect()
            time.sleep(SETTLED)
            results[name].append(call())
    return results


def time_call(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_process(code: str, environment: Mapping[str, str] | None = None) -> float:
    """Seconds from the start to the end of a new Python process that runs `code`."""
    return time_call(lambda: _run(code, environment))


def run_process(code: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run `code` in a new Python process and return the JSON that its last line of output holds."""
    return json.loads(_run(code, environment).splitlines()[-1])


def call_apart(module: str, call: str) -> Any:
    """Evaluate `call`, of functions of `module`, in a new Python process, and return what came out by way of JSON."""
    return run_process(f"import json\nfrom {module} import *\nprint(json.dumps({call}))")


def can_measure_peaks() -> bool:
    """Whether this system lets a process begin anew with its peak of resident memory."""
    return Path("/proc/self/clear_refs").exists()


def measure_peak(call: Callable[[], Result]) -> tuple[float, Result]:
    """Return by how many bytes a call pushes the peak of resident memory, and its result, which lives until then."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    result = call()
    return _status_bytes("VmHWM") - before, result


def _status_bytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(float(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _run(code: str, environment: Mapping[str, str] | None) -> str:
    command = [sys.executable, "-c", code]
    paths = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    whole = {**clean_environment(), "PYTHONPATH": paths, **(environment or {})}
    done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a measured process failed:\n{done.stderr[-2000:]}")
    return done.stdout
