"""A loss of the user's own beside the built-in one that computes the same, kernels warm, in turns."""

from functools import partial

import numpy as np
import scipy.sparse as sp

import fastfactor as ff
from bench import data, generate, timing
from bench.record import Recorder

DESCRIPTION = "time of an epoch with the squared loss as a Loss of one's own, over that of the built-in one"

RANKS = (16, 32)
REPEATS, QUICK_REPEATS = 9, 3
BUILT_IN, OWN = "built in", "one's own"
EPOCHS = {"ml-1m": 30, "20M": 6, "5M": 6}


def _value(x, p):  # type: ignore[no-untyped-def]
    return (p - x) * (p - x)


def _derivative(x, p):  # type: ignore[no-untyped-def]
    return p - x


LOSSES = {BUILT_IN: "squared", OWN: ff.Loss(_value, _derivative, name="squared, one's own")}


def run(recorder: Recorder) -> None:
    size = "5M" if recorder.quick else "20M"
    _compare(recorder, size, generate.standard_ratings(size))
    try:
        _compare(recorder, "ml-1m", data.load("ml-1m").astype(np.float32))
    except data.MissingDataError as error:
        recorder.skip("ml-1m", str(error))


def _compare(recorder: Recorder, name: str, matrix: sp.csr_matrix) -> None:
    """Fit with both in turns; one sample is the median time of an epoch within one fit."""
    for rank in RANKS:
        calls = {
            label: partial(time_epoch, matrix, rank, loss, EPOCHS[name], recorder.n_threads)
            for label, loss in LOSSES.items()
        }
        for call in calls.values():
            call()  # compiles
        samples = timing.interleave(calls, QUICK_REPEATS if recorder.quick else REPEATS)
        case = f"{name}, rank {rank}"
        taken = {label: recorder.add(case, label, "epoch", times, "ms") for label, times in samples.items()}
        recorder.add(case, f"{OWN}/{BUILT_IN}", "time_ratio", taken[OWN] / taken[BUILT_IN], "x")


def time_epoch(matrix: sp.csr_matrix, rank: int, loss: str | ff.Loss, n_epochs: int, n_threads: int) -> float:
    """Median milliseconds of an epoch but the first; with biases, nothing chosen, no entry held out."""
    options = {"regularization": 0.05, "learning_rate": 0.03, "max_epochs": n_epochs, "validation": False}
    model = ff.fit(matrix, rank, loss=loss, n_threads=n_threads, **options)
    return 1000 * float(np.median(np.diff(model.history["seconds"])))
