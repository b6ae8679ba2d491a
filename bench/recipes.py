"""Options per peer and matrix, as `python -m bench tune` found them on validation entries; written in here by hand.

`n_epochs` is the epoch with the best validation RMSE: a curve on train + validation entries ends about at its best.
Ours is the exception: the shortest schedule found that beat LIBMF's best, since more epochs go further.
"""

from dataclasses import replace

from bench.peers.base import Recipe

# For speed per epoch the options hardly matter, but both should learn: LIBMF's own step; steps and penalties of ours
# that were found to descend as fast.
SPEED = {
    "libmf": Recipe(32, regularization=0.05, learning_rate=0.1),
    "fastfactor": Recipe(32, regularization=0.015, learning_rate=0.035),
    "loops": Recipe(32, regularization=0.05, learning_rate=0.03),
}
SPEED_BY_RANK = {
    ("fastfactor", 16): Recipe(16, regularization=0.01, learning_rate=0.04),
    ("fastfactor", 64): Recipe(64, regularization=0.015, learning_rate=0.04, pace_power=0.25),
    ("fastfactor", 128): Recipe(128, regularization=0.015, learning_rate=0.04, pace_power=0.25),
}

TUNED = {
    ("ml-1m", "libmf"): Recipe(64, regularization=0.05, learning_rate=0.05, n_epochs=20),
    ("ml-1m", "fastfactor"): Recipe(
        64,
        regularization=0.0375,
        learning_rate=0.08,
        n_epochs=10,
        biases=True,
        frequency_power=0.4,
        pace_power=0.25,
    ),
    ("ml-1m", "cmfrec"): Recipe(64, regularization=0.07, n_epochs=8, biases=True),
    ("ml-1m", "loops-blocks"): Recipe(64, regularization=0.035, learning_rate=0.02, n_epochs=26),
    ("ml-100k", "libmf"): Recipe(64, regularization=0.07, learning_rate=0.05, n_epochs=18),
    ("ml-100k", "cmfrec"): Recipe(64, regularization=0.1, n_epochs=16, biases=True),
    ("filmtrust", "libmf"): Recipe(64, regularization=0.07, learning_rate=0.05, n_epochs=19),
    ("filmtrust", "cmfrec"): Recipe(32, regularization=0.1, n_epochs=8, biases=True),
    ("jester5k", "libmf"): Recipe(64, regularization=0.25, learning_rate=0.05, n_epochs=24),
    ("jester5k", "cmfrec"): Recipe(64, regularization=0.25, n_epochs=4, biases=True),
    ("yelp-herec", "libmf"): Recipe(8, regularization=0.1, learning_rate=0.1, n_epochs=13),
    ("yelp-herec", "cmfrec"): Recipe(64, regularization=0.6, n_epochs=1, biases=True),
    ("epinions", "libmf"): Recipe(8, regularization=0.1, learning_rate=0.1, n_epochs=16),
    ("epinions", "cmfrec"): Recipe(64, regularization=0.4, n_epochs=1, biases=True),
    ("5M", "libmf"): Recipe(32, regularization=0.035, learning_rate=0.1, n_epochs=10),
    ("5M", "fastfactor"): Recipe(16, regularization=0.04, learning_rate=0.06, n_epochs=18, biases=True),
    ("5M", "loops-blocks"): Recipe(18, regularization=0.02, learning_rate=0.02, n_epochs=20),
    ("20M", "libmf"): Recipe(24, regularization=0.035, learning_rate=0.2, n_epochs=30),
    ("20M", "fastfactor"): Recipe(16, regularization=0.015, learning_rate=0.06, n_epochs=7, biases=True),
    ("20M", "cmfrec"): Recipe(16, regularization=0.035, n_epochs=8, biases=True),
    ("20M", "loops-blocks"): Recipe(18, regularization=0.02, learning_rate=0.02, n_epochs=20),
}


def for_speed(peer: str, rank: int, n_threads: int, n_epochs: int) -> Recipe:
    """Options for timing epochs; all of the loops share theirs."""
    base = SPEED_BY_RANK.get((peer, rank)) or SPEED.get(peer) or SPEED["loops"]
    return replace(base, rank=rank, n_threads=n_threads, n_epochs=n_epochs)


def tuned(matrix: str, peer: str, n_threads: int) -> Recipe | None:
    """Tuned options, or None where a peer takes no part."""
    recipe = TUNED.get((matrix, peer))
    return recipe and replace(recipe, n_threads=n_threads)
