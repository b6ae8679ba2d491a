"""Posterior averaging beside the plain fit on real ratings: errors and intervals on test entries, and time."""

import time
from statistics import mean

import numpy as np
import scipy.sparse as sp

import fastfactor as ff
from bench import timing
from bench.record import Recorder
from bench.suites.accuracy import SEEDS, walk_ratings

DESCRIPTION = "test RMSE, intervals and seconds of posterior_samples=50 beside the plain fit, on real ratings"

PLAIN, AVERAGED = "fastfactor, plain", "fastfactor, averaged"
N_SAMPLES = 50
COVERAGE = 0.8


def run(recorder: Recorder) -> None:
    for name, train, validation, test in walk_ratings(recorder):
        _judge(recorder, name, (train + validation).tocsr(), test)


def _judge(recorder: Recorder, name: str, known: sp.csr_matrix, test: sp.coo_matrix) -> None:
    """Fit both in turns, once for each seed, on what may be known; keep what they are worth on test entries."""
    options = {PLAIN: {}, AVERAGED: {"posterior_samples": N_SAMPLES}}
    for given in options.values():
        ff.fit(known[:50], seed=0, n_threads=recorder.n_threads, **given)  # compiles
    errors: dict[str, list[float]] = {label: [] for label in options}
    seconds: dict[str, list[float]] = {label: [] for label in options}
    held = []
    for seed in SEEDS[: 1 if recorder.quick else None]:
        for label, given in options.items():
            time.sleep(timing.SETTLED)
            start = time.perf_counter()
            model = ff.fit(known, seed=seed, n_threads=recorder.n_threads, **given)
            seconds[label].append(time.perf_counter() - start)
            errors[label].append(ff.metrics.rmse(test.data, model.predict(test.row, test.col)))
        lower, upper = model.predict_interval(test.row, test.col, coverage=COVERAGE)
        held.append(float(np.mean((lower <= test.data) & (test.data <= upper))))
    for label in options:
        recorder.add(name, label, "test_rmse", mean(errors[label]), "", exact=True)
        recorder.add(name, label, "seconds", seconds[label])
    ratios = [ours / plain for ours, plain in zip(errors[AVERAGED], errors[PLAIN], strict=True)]
    recorder.add(
        name, f"{AVERAGED}/{PLAIN}", "rmse_ratio", mean(errors[AVERAGED]) / mean(errors[PLAIN]), "x", exact=True
    )
    recorder.add(name, f"{AVERAGED}/{PLAIN}", "worst_rmse_ratio", max(ratios), "x", exact=True)
    recorder.add(name, AVERAGED, "coverage", held, "", better="", exact=True)
