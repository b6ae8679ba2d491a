"""Error against time, everything included that happens once the matrix is in memory; each peer at its tuned options."""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from bench import data, generate, peers, recipes, timing
from bench.peers.base import CompletionPeer, Recipe
from bench.record import Recorder

DESCRIPTION = "time to the best test RMSE that LIBMF reaches, layout included, all tuned on validation entries"

PEER_FILES = ("libmf", "ours", "cmfrec", "numba_loops")
REFERENCE = "libmf"
OURS = "fastfactor"
LEARNT = 0.95  # of the error of predicting the mean; near its largest stable step LIBMF sometimes diverges


def run(recorder: Recorder) -> None:
    for name in ("ml-1m", "5M" if recorder.quick else "20M"):
        try:
            matrix = load_matrix(name)
        except data.MissingDataError as error:
            recorder.skip(name, str(error))
            continue
        train, validation, test = data.split(matrix)
        _compare_curves(recorder, name, (train + validation).tocsr(), test)


def load_matrix(name: str) -> sp.csr_matrix:
    """A generated matrix by the name of its size, or a real one by its own."""
    if name in generate.RATING_SIZES:
        return generate.standard_ratings(name)
    return data.load(name).astype(np.float32)


def contestants(name: str, recorder: Recorder) -> Iterator[tuple[CompletionPeer, Recipe]]:
    """Peers that have tuned options for this matrix."""
    for file in PEER_FILES:
        for peer in peers.find_completion(file, recorder):
            recipe = recipes.tuned(name, peer.name, recorder.n_threads)
            if recipe is not None:
                yield peer, recipe


def _compare_curves(recorder: Recorder, name: str, train: sp.csr_matrix, test: sp.coo_matrix) -> None:
    entrants = {peer.name: (peer, recipe) for peer, recipe in contestants(name, recorder)}
    calls, errors = {}, {}
    for label, (peer, recipe) in entrants.items():
        peer.warm_up(recipe)
        errors[label] = peer.fit(train, recipe, test).test_rmse
        calls[label] = lambda peer=peer, recipe=recipe: peer.fit(train, recipe).ends
    ends = timing.interleave(calls, 3 if recorder.quick else 5)
    if REFERENCE not in errors:
        recorder.skip(name, f"without {REFERENCE} there is no target")
        return
    target = min(errors[REFERENCE])
    mean_rmse = float(np.sqrt(np.mean((test.data - train.data.mean()) ** 2)))
    if not target < LEARNT * mean_rmse:
        recorder.skip(name, f"{REFERENCE} diverged: test RMSE {target:.4f}, predicting the mean gives {mean_rmse:.4f}")
        return
    times = {}
    for label in entrants:
        # The shortest of the times: what else runs on the machine only ever adds to them.
        recorder.add_curve(name, label, [min(column) for column in zip(*ends[label], strict=True)], errors[label])
        recorder.add(name, label, "best_test_rmse", min(errors[label]), "")
        reached = next((i for i, error in enumerate(errors[label]) if error <= target), None)
        if reached is None:
            recorder.skip(f"{name}, {label}", f"best test RMSE {min(errors[label]):.4f}, the target is {target:.4f}")
        else:
            times[label] = recorder.add(name, label, "seconds_to_target", [run[reached] for run in ends[label]])
    if OURS in times:
        recorder.add(name, f"{REFERENCE}/{OURS}", "time_ratio", times[REFERENCE] / times[OURS], "x", "higher")
