"""What "auto" stands for: penalties tried on held-out entries, the best one kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# A first penalty that suits many rating matrices, and the factor between neighbouring candidates.
FIRST_PENALTY = 0.08
_RATIO = 1.6
_MAX_TRIALS = 9
MIN_HELD = 20  # held-out entries below which a choice would be noise


def choose_penalty(judge: Callable[[float], float]) -> tuple[float, list[dict[str, Any]]]:
    """Walk along a geometric grid of penalties from `FIRST_PENALTY` as long as the validation loss falls.

    Parameters
    ----------
    judge : callable
        penalty -> validation loss of a short fit with it.

    Returns
    -------
    penalty : float
        The best one tried.
    trials : list of dict
        Penalty and validation loss of each trial, in the order tried.
    """
    losses = {0: judge(FIRST_PENALTY)}
    for direction in (1, -1):
        position = direction
        while len(losses) < _MAX_TRIALS:
            losses[position] = judge(FIRST_PENALTY * _RATIO**position)
            if losses[position] > losses[position - direction]:
                break
            position += direction
        if position != direction:  # it fell on this side, so it does not on the other
            break
    best = min(losses, key=losses.__getitem__)
    trials = [{"penalty": FIRST_PENALTY * _RATIO**i, "validation_loss": loss} for i, loss in losses.items()]
    return FIRST_PENALTY * _RATIO**best, trials
