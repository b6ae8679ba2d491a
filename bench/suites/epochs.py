"""Speed of one epoch over stored entries: ours, LIBMF and the ladder of plain Numba loops, on one matrix, in turns."""

from collections.abc import Mapping
from dataclasses import replace

import scipy.sparse as sp

from bench import data, generate, peers, recipes, timing
from bench.peers.base import CompletionPeer
from bench.record import Recorder

DESCRIPTION = "updates per second at ranks 16 to 128 against LIBMF, and the test RMSE after each epoch"

RANKS = (16, 32, 64, 128)
LADDER_RANK = 32
OURS, RIVAL = "fastfactor", "libmf"


def run(recorder: Recorder) -> None:
    size = "5M" if recorder.quick else "20M"
    matrix = generate.standard_ratings(size)
    train, _, test = data.split(matrix, test=0.02, validation=0.0)
    train = train.tocsr()
    ladder = {peer.name: peer for peer in peers.find_completion("numba_loops", recorder)}
    rivals = {peer.name: peer for name in ("ours", "libmf") for peer in peers.find_completion(name, recorder)}
    for rank in RANKS:
        case = f"{size}, rank {rank}"
        _time_epochs(recorder, case, train, rank, rivals | ladder if rank == LADDER_RANK else rivals)
        if not recorder.quick or rank == LADDER_RANK:
            _follow_errors(recorder, case, train, test, rank, rivals)
    if OURS in rivals:
        _time_biases(recorder, size, train, rivals[OURS])


def _time_epochs(
    recorder: Recorder, case: str, train: sp.csr_matrix, rank: int, contestants: Mapping[str, CompletionPeer]
) -> None:
    """Fit every peer in turns; one sample is the median time of an epoch within one fit."""
    calls = {}
    for name, peer in contestants.items():
        recipe = recipes.for_speed(name, rank, recorder.n_threads, n_epochs=4 if recorder.quick else 6)
        peer.warm_up(recipe)
        calls[name] = lambda peer=peer, recipe=recipe: peer.fit(train, recipe).seconds_per_epoch
    samples = timing.interleave(calls, 3 if recorder.quick else 5)
    speeds = {
        name: recorder.add(case, name, "updates_per_second", [train.nnz / s / 1e6 for s in taken], "M/s", "higher")
        for name, taken in samples.items()
    }
    if OURS in speeds and RIVAL in speeds:
        recorder.add(case, f"{OURS}/{RIVAL}", "speed_ratio", speeds[OURS] / speeds[RIVAL], "x", "higher")


def _follow_errors(
    recorder: Recorder,
    case: str,
    train: sp.csr_matrix,
    test: sp.coo_matrix,
    rank: int,
    contestants: Mapping[str, CompletionPeer],
) -> None:
    """Test RMSE after each epoch, untimed: whether speed was bought with slower learning."""
    errors = {}
    for name, peer in contestants.items():
        result = peer.fit(train, recipes.for_speed(name, rank, recorder.n_threads, n_epochs=10), test)
        errors[name] = result.test_rmse
        for epoch in (1, 4, 10):
            recorder.add(case, name, f"test_rmse_epoch_{epoch}", result.test_rmse[epoch - 1], "")
    if OURS in errors and RIVAL in errors:
        worst = max(mine - theirs for mine, theirs in zip(errors[OURS], errors[RIVAL], strict=True))
        recorder.add(case, f"{OURS}-{RIVAL}", "worst_rmse_excess", worst, "", better="")


def _time_biases(recorder: Recorder, size: str, train: sp.csr_matrix, ours: CompletionPeer) -> None:
    """What fitting biases adds to an epoch."""
    plain = recipes.for_speed(OURS, LADDER_RANK, recorder.n_threads, n_epochs=6)
    calls = {}
    for label, recipe in (("plain", plain), ("biases", replace(plain, biases=True))):
        ours.warm_up(recipe)
        calls[label] = lambda recipe=recipe: ours.fit(train, recipe).seconds_per_epoch
    samples = timing.interleave(calls, 3 if recorder.quick else 5)
    case = f"{size}, rank {LADDER_RANK}"
    medians = {label: recorder.add(case, OURS, f"epoch_{label}", taken) for label, taken in samples.items()}
    recorder.add(case, OURS, "biases_over_plain", medians["biases"] / medians["plain"], "x")
