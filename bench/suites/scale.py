"""The scale model: epochs on a LocalCluster, 1M to 100M entries; constants from some, predictions for the others."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import generate
from bench.record import Recorder
from bench.scale import Setting, fit_constants, predict
from bench.suites.dask import has_distributed, using_cluster

DESCRIPTION = "an epoch on a cluster by entries, rank and workers: the model of docs/scale.md, checked"

Key = tuple[str, int, int]  # size, rank, workers

N_EPOCHS = 9
N_YOUNG = 5  # these have more tasks, and the first of them load kernels
SHAPES = {
    "1M": (20_000, 5_000, 1_000_000),
    "50M": (300_000, 20_000, 50_000_000),
    **{size: (spec.n_rows, spec.n_cols, spec.nnz) for size, spec in generate.RATING_SIZES.items() if size != "1M"},
}
FITTED: tuple[Key, ...] = (
    ("1M", 32, 1),
    ("1M", 32, 2),
    ("1M", 32, 4),
    ("5M", 32, 2),
    ("5M", 64, 1),
    ("20M", 32, 1),
    ("20M", 64, 2),
    ("20M", 16, 4),
    ("100M", 32, 1),
    ("100M", 32, 2),
    ("100M", 16, 2),
)
PREDICTED: tuple[Key, ...] = (
    ("1M", 64, 2),
    ("5M", 16, 2),
    ("20M", 32, 2),
    ("50M", 32, 2),
    ("50M", 64, 1),
    ("100M", 32, 4),
    ("100M", 64, 2),
)


def run(recorder: Recorder) -> None:
    if not has_distributed(recorder):
        return
    for size in ("1M", "5M") if recorder.quick else ("1M", "5M", "20M", "50M", "100M"):
        with tempfile.TemporaryDirectory(dir=os.environ.get("FASTFACTOR_BENCH_FOLDER")) as folder:
            _measure(recorder, size, Path(folder))
    report(recorder, recorder.to_json())


def _name(key: Key) -> str:
    return f"{key[0]}, rank {key[1]}, {key[2]} workers"


def _measure(recorder: Recorder, size: str, folder: Path) -> None:
    import fastfactor as ff

    options = {"max_epochs": N_EPOCHS, "regularization": 0.05, "validation": False}
    grid = ff.io.build_grid(generate.rating_matrix(*SHAPES[size]), folder)
    for key in (each for each in (*FITTED, *PREDICTED) if each[0] == size):
        with using_cluster(key[2]) as client:
            model = ff.dask.fit(grid, key[1], client=client, **options)
        recorder.add(_name(key), "measured", "epoch", np.diff(model.history["seconds"])[N_YOUNG - 1 :].tolist())


def report(recorder: Recorder, result: Mapping[str, Any]) -> None:
    """Record constants, what the model says of each run that `result` holds, and how far off that is."""
    taken = {item["case"]: item["value"] for item in result["measurements"] if item["peer"] == "measured"}
    n_cores = result["n_threads"]
    fitted = [key for key in FITTED if _name(key) in taken]
    settings = {key: Setting(*SHAPES[key[0]], *key[1:], n_cores) for key in (*FITTED, *PREDICTED)}
    constants = fit_constants([settings[key] for key in fitted], [taken[_name(key)] for key in fitted])
    for name, value in constants.items():
        recorder.add("model", "constants", name, value, "", better="")
    for key in (*FITTED, *PREDICTED):
        if _name(key) in taken:
            kind, expected = "fitted" if key in FITTED else "predicted", predict(settings[key], constants)
            recorder.add(_name(key), kind, "model", expected, "s", better="")
            recorder.add(_name(key), kind, "error", 100 * (expected / taken[_name(key)] - 1), "%", better="")
