"""Test RMSE of `fit(X)` with nothing set, of peers with options tuned on validation entries, and of the mean."""

import time

import numpy as np
import scipy.sparse as sp

import fastfactor as ff
from bench import data, peers, recipes
from bench.record import Recorder

DESCRIPTION = "test RMSE of fit(X) with nothing set, beside tuned peers, on real ratings"

PEER_FILES = ("libmf", "cmfrec")
MATRICES = ("ml-100k", "ml-1m", "filmtrust", "yelp-herec", "jester5k", "epinions")
QUICK_MATRICES = ("ml-100k", "filmtrust")
OURS = "fastfactor, defaults"


def run(recorder: Recorder) -> None:
    for name in QUICK_MATRICES if recorder.quick else MATRICES:
        try:
            matrix = data.load(name)
        except data.MissingDataError as error:
            recorder.skip(name, str(error))
            continue
        train, validation, test = data.split(matrix.astype(np.float32))
        _judge(recorder, name, (train + validation).tocsr(), test)


def _judge(recorder: Recorder, name: str, known: sp.csr_matrix, test: sp.coo_matrix) -> None:
    mean = np.full(test.nnz, known.data.mean())
    recorder.add(name, "mean", "test_rmse", ff.metrics.rmse(test.data, mean), "", exact=True)
    start = time.perf_counter()
    model = ff.fit(known, n_threads=recorder.n_threads)
    recorder.add(name, OURS, "seconds", time.perf_counter() - start, better="")  # what is compiled is in it
    error = ff.metrics.rmse(test.data, model.predict(test.row, test.col))
    errors = [recorder.add(name, OURS, "test_rmse", error, "", exact=True)]
    for file in PEER_FILES:
        for peer in peers.find_completion(file, recorder):
            recipe = recipes.tuned(name, peer.name, recorder.n_threads)
            if recipe is None:
                recorder.skip(f"{name}, {peer.name}", f"no tuned options; python -m bench tune {name} {peer.name}")
                continue
            error = peers.base.rmse(peer.fit(known, recipe).predict, test)
            errors.append(recorder.add(name, peer.name, "test_rmse", error, ""))
    if len(errors) > 1:
        recorder.add(name, f"{OURS}/best peer", "rmse_ratio", errors[0] / min(errors[1:]), "x")
