"""From a Parquet file of string ids to a saved model, against the same fit in memory and pyarrow's reading alone."""

import tempfile
from pathlib import Path
from typing import Any

import scipy.sparse as sp

from bench import generate, timing
from bench.record import Recorder

DESCRIPTION = "Parquet file of string ids to a saved rank-32 model, against the fit in memory and pyarrow alone"

RANK = 32
N_EPOCHS = 20
REGULARIZATION = 0.05


def run(recorder: Recorder) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        recorder.skip("files", str(error))
        return
    size = "5M" if recorder.quick else "20M"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.parquet"
        matrix = generate.standard_ratings(size)
        generate.write_table(matrix, path)
        _compare(recorder, f"{size}, rank {RANK}, {N_EPOCHS} epochs", matrix, path)


def _compare(recorder: Recorder, case: str, matrix: sp.csr_matrix, path: Path) -> None:
    import fastfactor as ff

    def fit(X: Any) -> Any:
        return ff.fit(
            X,
            RANK,
            max_epochs=N_EPOCHS,
            regularization=REGULARIZATION,
            validation=False,
            n_threads=recorder.n_threads,
        )

    calls = {
        "fit in memory": lambda: fit(matrix),
        "pyarrow alone": lambda: _read_alone(path),
        "io.read": lambda: ff.io.read(path),
        "file to model": lambda: fit(ff.io.read(path)).save(path.parent / "model"),
    }
    calls["file to model"]()  # compiles
    timed = {name: lambda call=call: timing.time_call(call) for name, call in calls.items()}
    samples = timing.interleave(timed, 3 if recorder.quick else 5)
    taken = {name: recorder.add(case, name, "seconds", seconds) for name, seconds in samples.items()}
    ratios = [
        whole / (2 * fitted + read)
        for whole, fitted, read in zip(
            samples["file to model"], samples["fit in memory"], samples["pyarrow alone"], strict=True
        )
    ]
    recorder.add(case, "fastfactor", "of_twice_the_fit_and_reading", ratios, "x")
    once = taken["file to model"] / (taken["fit in memory"] + taken["pyarrow alone"])
    recorder.add(case, "fastfactor", "of_the_fit_and_reading", once, "x")


def _read_alone(path: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    for name in table.column_names[:2]:
        table.column(name).dictionary_encode()
