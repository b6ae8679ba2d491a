"""Campaigns: cases by their numbers, in processes that may die; what killed one is reported, and the next goes on."""

import collections
import concurrent.futures
import contextlib
import faulthandler
import json
import os
import sys
import tempfile
from pathlib import Path

from conftest import HANG, TESTS, run_python

RUN = "import runpy, sys; sys.argv[0] = {!r}; runpy.run_path(sys.argv[0], run_name='__main__')"


def run_cases(script, first, count, folder, *args, env=None):
    """Have `script` work off cases; return how many came to what, and the faults."""
    outcomes, faults = collections.Counter(), []
    progress, end = folder / f"case-{first}", first + count
    while first < end:
        code = RUN.format(str(TESTS / script))
        result = run_python(code, first, end - first, progress, *args, env=env, timeout=36_000)
        if result.returncode == 0:
            found = json.loads(result.stdout)
            outcomes.update(found["outcomes"])
            return outcomes, faults + found["faults"]
        first = int(progress.read_bytes()) + 1
        end_of_it = f"the process ended with {result.returncode}: {result.stderr[:3000]}"
        faults.append({"case": first - 1, "fault": end_of_it})
    return outcomes, faults


def run_shards(script, count, shard, folder, *args):
    """The same, a shard of the cases on each core at a time."""
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        firsts = range(0, count, shard)
        parts = list(pool.map(lambda first: run_cases(script, first, min(shard, count - first), folder, *args), firsts))
    outcomes = sum((found for found, _ in parts), collections.Counter())
    return outcomes, [fault for _, faults in parts for fault in faults]


def work_off(try_case, first, count, progress):
    """What the script does: `try_case(number, folder)` returns what came of it, and a fault or None."""
    faulthandler.enable()
    outcomes, faults = collections.Counter(), []
    with (
        tempfile.TemporaryDirectory() as folder,
        open(progress, "wb", buffering=0) as running,
        catching_prints() as said,
    ):
        for number in range(first, first + count):
            running.seek(0)
            running.write(b"%12d" % number)
            faulthandler.dump_traceback_later(HANG, exit=True)
            outcome, fault = try_case(number, Path(folder))
            outcomes[outcome] += 1
            if not fault and (text := said()):
                fault = {"fault": f"printed {text!r}"}
            if fault:
                faults.append({"case": number, **fault})
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"outcomes": outcomes, "faults": faults}))


@contextlib.contextmanager
def catching_prints():
    """Yield a function that returns what was printed since it was last asked, by LAPACK too."""
    with tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        before = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield lambda: read_new(file)
        finally:
            os.dup2(before, 1)
            os.close(before)


def read_new(file):
    sys.stdout.flush()
    text = os.pread(file.fileno(), 1000, 0)
    os.ftruncate(file.fileno(), 0)
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return text


def tell(faults):
    return "\n".join(f"{fault}" for fault in faults[:20]) + f"\n{len(faults)} faults"
