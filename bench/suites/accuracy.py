"""Test RMSE of `fit(X)` with nothing set, of peers with options tuned on validation entries, and of the mean."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from statistics import mean, median

import numpy as np
import scipy.sparse as sp

import fastfactor as ff
from bench import data, peers, recipes, timing, tune
from bench.peers.base import CompletionPeer, Predictor, Recipe
from bench.record import Recorder

DESCRIPTION = "test RMSE of fit(X) with nothing set, beside tuned peers, on real ratings"

PEER_FILES = ("libmf", "cmfrec")
MATRICES = ("ml-100k", "ml-1m", "filmtrust", "yelp-herec", "jester5k", "epinions")
QUICK_MATRICES = ("ml-100k", "filmtrust")
OURS = "fastfactor, defaults"
RANKS = (16, 64)  # given, with nothing else set; 32 is the default
MEAN = "mean"
TIMED = "libmf"
SEEDS = (0, 1, 2)
ALLOWED = 20  # times as long as one fit of the tuned peer, selection included
ALWAYS_ALLOWED = 2.0  # seconds


def run(recorder: Recorder) -> None:
    for name, train, validation, test in walk_ratings(recorder):
        entrants = {OURS: _Entrant(_fit_ours(recorder.n_threads))}
        entrants |= {name_rank(rank): _Entrant(_fit_ours(recorder.n_threads, rank=rank)) for rank in RANKS}
        for peer, recipe in _tuned_peers(recorder, name, train.tocsr(), validation):
            entrants[peer.name] = _Entrant(_fit_peer(peer, recipe))
        _judge(recorder, name, entrants, (train + validation).tocsr(), test)


def walk_ratings(recorder: Recorder) -> Iterator[tuple[str, sp.coo_matrix, sp.coo_matrix, sp.coo_matrix]]:
    """Yield the name of each set of ratings at hand, and its entries to fit, to tune and to test on."""
    for name in QUICK_MATRICES if recorder.quick else MATRICES:
        try:
            matrix = data.load(name)
        except data.MissingDataError as error:
            recorder.skip(name, str(error))
            continue
        yield name, *data.split(matrix.astype(np.float32))


@dataclass
class _Entrant:
    """Who takes part: from entries and a seed to predictions and the seconds that they took, and what came of it."""

    fit: Callable[[sp.csr_matrix, int], tuple[Predictor, float]]
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def name_rank(rank: int) -> str:
    """Return what the fit with a given rank is called."""
    return f"fastfactor, rank {rank}"


def _fit_ours(n_threads: int, **given: int) -> Callable[[sp.csr_matrix, int], tuple[Predictor, float]]:
    def fit(known: sp.csr_matrix, seed: int) -> tuple[Predictor, float]:
        start = time.perf_counter()
        model = ff.fit(known, seed=seed, n_threads=n_threads, **given)
        return model.predict, time.perf_counter() - start

    return fit


def _fit_peer(peer: CompletionPeer, recipe: Recipe) -> Callable[[sp.csr_matrix, int], tuple[Predictor, float]]:
    def fit(known: sp.csr_matrix, seed: int) -> tuple[Predictor, float]:
        done = peer.fit(known, replace(recipe, seed=seed))
        return done.predict, float(done.ends[-1])

    return fit


def _tuned_peers(
    recorder: Recorder, name: str, train: sp.csr_matrix, validation: sp.coo_matrix
) -> Iterator[tuple[CompletionPeer, Recipe]]:
    """Peers with options that did best on validation entries; searched for where `recipes` has none."""
    for file in PEER_FILES:
        for peer in peers.find_completion(file, recorder):
            recipe = recipes.tuned(name, peer.name, recorder.n_threads)
            if recipe is None and recorder.quick:
                recorder.skip(f"{name}, {peer.name}", f"no tuned options; python -m bench tune {name} {peer.name}")
                continue
            if recipe is None:
                error, recipe = tune.search(peer, train, validation)
                print(f"  {name}: {peer.name} {error:.5f} on validation entries: {recipe}", flush=True)
            yield peer, recipe


def _judge(
    recorder: Recorder, name: str, entrants: dict[str, _Entrant], known: sp.csr_matrix, test: sp.coo_matrix
) -> None:
    """Fit everybody in turn, once for each seed, and keep the mean errors on test entries."""
    constant = np.full(test.nnz, known.data.mean())
    recorder.add(name, MEAN, "test_rmse", ff.metrics.rmse(test.data, constant), "", exact=True)
    ours = [OURS, *map(name_rank, RANKS)]
    for label in ours:
        entrants[label].fit(known, 0)  # compiles
    for seed in SEEDS[: 1 if recorder.quick else None]:
        for entrant in entrants.values():
            time.sleep(timing.SETTLED)
            predict, seconds = entrant.fit(known, seed)
            entrant.seconds.append(seconds)
            entrant.errors.append(peers.base.rmse(predict, test))
    for label, entrant in entrants.items():
        recorder.add(name, label, "test_rmse", mean(entrant.errors), "", exact=label in ours)
        recorder.add(name, label, "seconds", entrant.seconds)
    best = min((mean(entrant.errors) for label, entrant in entrants.items() if label not in ours), default=None)
    if best is not None:
        recorder.add(name, f"{OURS}/best peer", "rmse_ratio", mean(entrants[OURS].errors) / best, "x")
    for label in ours[1:]:
        ratio = mean(entrants[label].errors) / mean(entrants[OURS].errors)
        recorder.add(name, f"{label}/{OURS}", "rmse_ratio", ratio, "x", exact=True)
    if TIMED in entrants:
        allowed = max(ALLOWED * median(entrants[TIMED].seconds), ALWAYS_ALLOWED)
        recorder.add(name, f"{OURS}/allowed", "time_ratio", median(entrants[OURS].seconds) / allowed, "x")
