"""Search the options of completion peers on validation entries, and print what `recipes.TUNED` should say."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import scipy.sparse as sp

from bench import UnknownNameError, data, machine, peers
from bench.peers.base import CompletionPeer, Recipe
from bench.record import Recorder
from bench.suites import time_to_rmse

RANKS = (16, 32, 64)
REGULARIZATIONS = (0.02, 0.035, 0.05, 0.07, 0.1, 0.15, 0.25, 0.4, 0.6)
LEARNING_RATES = {"libmf": (0.05, 0.1, 0.2), "cmfrec": (0.0,)}
OWN_RATES = (0.01, 0.02, 0.04, 0.08)
EPOCHS = {"cmfrec": 16}
WITH_BIASES = {"fastfactor": (False, True), "cmfrec": (True,)}
DEFAULTS = {"libmf": [Recipe(8, regularization=0.1, learning_rate=0.1, n_epochs=20)]}


def run(matrix_name: str, peer_names: Sequence[str]) -> None:
    """Print every trial and, last, the recipe with the best validation RMSE at its best epoch, per peer."""
    train, validation, _ = data.split(time_to_rmse.load_matrix(matrix_name))
    for peer in _find(peer_names):
        error, recipe = search(peer, train.tocsr(), validation, tell=True)
        print(f"best for {matrix_name}: {error:.5f} {peer.name} {recipe}", flush=True)


def search(
    peer: CompletionPeer, train: sp.csr_matrix, validation: sp.coo_matrix, tell: bool = False
) -> tuple[float, Recipe]:
    """Return the least validation RMSE of a grid of options, each at its best epoch, and the options it had."""
    best_error, best_recipe = np.inf, Recipe(RANKS[0])
    for recipe in _grid(peer.name):
        result = peer.fit(train, recipe, validation)
        at = int(np.nanargmin([*result.test_rmse, np.inf]))
        if at == len(result.test_rmse):  # it diverged from the start
            continue
        error, trial = float(result.test_rmse[at]), replace(recipe, n_epochs=int(result.epochs[at]))
        if tell:
            print(f"{error:.5f} {peer.name} {trial}", flush=True)
        if error < best_error:
            best_error, best_recipe = error, trial
    return best_error, best_recipe


def _find(names: Sequence[str]) -> list[CompletionPeer]:
    found = [peer for file in peers.module_names() for peer in peers.find_completion(file, Recorder(suite="tune"))]
    known = {peer.name: peer for peer in found}
    for name in names:
        if name not in known:
            raise UnknownNameError(f"{name} is no completion peer that can be imported here")
    return [known[name] for name in names]


def _grid(peer: str) -> list[Recipe]:
    rates = LEARNING_RATES.get(peer, OWN_RATES)
    choices = product(RANKS, REGULARIZATIONS, rates, WITH_BIASES.get(peer, (False,)))
    threads = machine.n_cores()
    searched = [
        Recipe(rank, penalty, rate, n_epochs=EPOCHS.get(peer, 40), biases=biases)
        for rank, penalty, rate, biases in choices
    ]
    return [replace(recipe, n_threads=threads) for recipe in searched + DEFAULTS.get(peer, [])]
