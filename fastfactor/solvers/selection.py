"""What "auto" stands for: penalties tried on held-out entries, the best one kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# A first penalty that suits many rating matrices, and the factor between neighbouring candidates.
FIRST_PENALTY = 0.08
_RATIO = 1.6
_MAX_TRIALS = 9
MAX_EPOCHS = 1280
_WORTH_DOUBLING = 0.98  # of the loss: 1 % of the root mean square error
MIN_HELD = 20  # held-out entries below which a choice would be noise


def choose_epochs(judge: Callable[[int], float], first: int, loss: float) -> int:
    """Double the number of epochs as long as that lowers the validation loss by more than a little.

    Ratings are learned in few epochs; exact data of low rank, or few entries, reward many.

    Parameters
    ----------
    judge : callable
        n_epochs -> validation loss of a fit of so many.
    first : int
        Epochs whose validation loss is `loss`.
    """
    n_epochs = first
    while 2 * n_epochs <= MAX_EPOCHS and (longer := judge(2 * n_epochs)) < loss * _WORTH_DOUBLING:
        n_epochs, loss = 2 * n_epochs, longer
    return n_epochs


def choose_penalty(judge: Callable[[float], float], first: float) -> tuple[float, list[dict[str, Any]]]:
    """Bracket the best penalty on a geometric grid, then take the minimum of the parabola through the bracket.

    Parameters
    ----------
    judge : callable
        penalty -> validation loss of a fit with it, as long as the final one: shorter ones prefer smaller penalties.
    first : float
        Where to begin.

    Returns
    -------
    penalty : float
        The best one tried.
    trials : list of dict
        Penalty and validation loss of each trial, in the order tried.
    """
    losses: dict[float, float] = {}

    def try_at(position: float) -> float:
        if position not in losses:
            losses[position] = judge(first * _RATIO**position)
        return losses[position]

    best = 0.0
    direction = 1.0 if try_at(1.0) < try_at(0.0) else -1.0
    while len(losses) < _MAX_TRIALS and try_at(best + direction) < losses[best]:
        best += direction
    vertex = find_vertex(losses.get(best - 1), losses[best], losses.get(best + 1))
    if vertex:
        try_at(best + vertex)
    best = min(losses, key=losses.__getitem__)
    trials = [{"penalty": first * _RATIO**at, "validation_loss": loss} for at, loss in losses.items()]
    return first * _RATIO**best, trials


def find_vertex(left: float | None, middle: float, right: float | None) -> float:
    """Return where the parabola through (-1, left), (0, middle), (1, right) is least; 0 when it is not a valley."""
    if left is None or right is None or not middle < min(left, right):
        return 0.0
    return 0.5 * (left - right) / (left - 2 * middle + right)
