"""The scale model: epochs on a LocalCluster, 1M to 100M entries; constants from some, predictions for the others."""

import os
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from bench import generate, machine
from bench.record import Recorder
from bench.scale import Setting, fit_constants, predict
from bench.suites.dask import using_cluster

DESCRIPTION = "an epoch on a cluster by entries, rank and workers: the model of docs/scale.md, checked"

N_EPOCHS = 9
N_YOUNG = 5  # these have more tasks, and the first of them load kernels
SHAPES = {"1M": (20_000, 5_000, 1_000_000), "50M": (300_000, 20_000, 50_000_000)}
RUNS = (  # size, rank, workers, and whether the constants are fitted to it
    ("1M", 32, 1, True),
    ("1M", 32, 2, True),
    ("1M", 32, 4, True),
    ("1M", 64, 2, False),
    ("5M", 32, 2, True),
    ("5M", 64, 1, True),
    ("5M", 16, 2, False),
    ("20M", 32, 1, True),
    ("20M", 32, 2, False),
    ("20M", 64, 2, True),
    ("20M", 16, 4, True),
    ("50M", 32, 2, False),
    ("50M", 64, 1, False),
    ("100M", 32, 1, True),
    ("100M", 32, 2, True),
    ("100M", 16, 2, True),
    ("100M", 32, 4, False),
    ("100M", 64, 2, False),
)


def run(recorder: Recorder) -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        recorder.skip("all", f"dask.distributed: {error}")
        return
    taken: dict[tuple[str, int, int, bool], tuple[Setting, float]] = {}
    for size in dict.fromkeys(each[0] for each in RUNS):
        if recorder.quick and size not in ("1M", "5M"):
            continue
        with tempfile.TemporaryDirectory(dir=os.environ.get("FASTFACTOR_BENCH_FOLDER")) as folder:
            taken |= _measure(recorder, size, Path(folder))
    fitted = [pair for key, pair in taken.items() if key[3]]
    constants = fit_constants(*zip(*fitted, strict=True))
    for name, value in constants.items():
        recorder.add("model", "constants", name, value, "", better="")
    for (size, rank, n_workers, was_fitted), (setting, seconds) in taken.items():
        case = f"{size}, rank {rank}, {n_workers} workers"
        recorder.add(
            case, "fitted" if was_fitted else "predicted", "model", predict(setting, constants), "s", better=""
        )
        error = predict(setting, constants) / seconds - 1
        recorder.add(case, "fitted" if was_fitted else "predicted", "error", 100 * error, "%", better="")


def _measure(recorder: Recorder, size: str, folder: Path) -> dict[tuple[str, int, int, bool], tuple[Setting, float]]:
    import fastfactor as ff

    shape = SHAPES.get(size)
    grid = ff.io.build_grid(generate.rating_matrix(*shape) if shape else generate.standard_ratings(size), folder)
    found = {}
    for run in (each for each in RUNS if each[0] == size):
        _, rank, n_workers, _ = run
        with using_cluster(n_workers) as client:
            model = ff.dask.fit(grid, rank, client=client, max_epochs=N_EPOCHS, regularization=0.05, validation=False)
        epochs = np.diff(model.history["seconds"])[N_YOUNG - 1 :].tolist()
        recorder.add(f"{size}, rank {rank}, {n_workers} workers", "measured", "epoch", epochs)
        setting = Setting(*grid.shape, grid.n_entries, rank, n_workers, machine.n_cores())
        found[run] = setting, median(epochs)
    return found
