"""What fits take beside what is predicted, for test_memory.py: in a process of its own, for its peaks are its own."""

import ctypes
import gc
import json
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from process_status import read_status

import fastfactor as ff
from fastfactor.api import fit

SHAPE, N_ENTRIES, RANK = (40_000, 3_000), 1_500_000, 16


def make_entries():
    """Distinct entries, row by row, and few rows that are empty."""
    rng = np.random.default_rng(0)
    places = np.unique(rng.integers(0, SHAPE[0] * SHAPE[1], N_ENTRIES))
    rows, cols = np.divmod(places, SHAPE[1])
    return rows.astype(np.int32), cols.astype(np.int32), rng.standard_normal(len(places)).astype(np.float32)


def make_cases(folder):
    """Yield a name, what is handed to `fit`, and its options."""
    rows, cols, values = make_entries()
    csr = sp.csr_array((values, (rows, cols)), shape=SHAPE)
    plain = {"regularization": 0.1, "validation": False}
    yield "csr", csr, plain
    yield "rank 64", csr, plain | {"rank": 64}
    yield "float64", csr, plain | {"dtype": "float64"}
    yield "validation", csr, {"regularization": 0.1, "validation": 0.2}
    yield "trials", csr, {}
    yield "weights", csr, plain | {"sample_weight": csr.copy()._with_data(np.ones_like(values))}
    yield "triplets", (rows, cols, values), plain
    yield "csc", csr.tocsc(), plain
    yield "integers", csr.astype(np.int64), plain
    dense = np.full((3000, 1000), np.nan, np.float32)
    dense[::2] = 1.0
    dense[1] = 2.0
    yield "dense", dense, plain
    del dense
    ff.io.build_grid(csr, folder)
    del csr, rows, cols, values
    yield "disk", ff.io.open_grid(folder), plain
    yield "disk, validation", ff.io.open_grid(folder), {"regularization": 0.1, "validation": 0.2}
    yield "disk, trials", ff.io.open_grid(folder), {}
    yield "disk, rank 64", ff.io.open_grid(folder), plain | {"rank": 64}


def predict(X, options):
    """Return what `fit` says it needs."""
    try:
        fit(X, **options, max_memory=1)
    except MemoryError as error:
        return 1e6 * float(str(error).split("this fit needs ")[1].split(" MB")[0].replace(",", ""))
    raise AssertionError("one byte was enough")


def main(folder):
    found = {}
    for name, X, options in make_cases(folder):
        options = {"rank": RANK, "max_epochs": 2} | options
        fit(X, **options)  # compiles
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not be had for nothing
        Path("/proc/self/clear_refs").write_text("5")
        before = read_status("VmRSS")
        model = fit(X, **options)
        found[name] = predict(X, options), read_status("VmHWM") - before
        del model, X
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
