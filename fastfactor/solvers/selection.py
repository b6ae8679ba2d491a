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
    """Bracket the best penalty on a geometric grid, then take the minimum of the parabola through the bracket.

    Parameters
    ----------
    judge : callable
        penalty -> validation loss of a fit with it, as long as the final one: shorter ones prefer smaller penalties.

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
            losses[position] = judge(FIRST_PENALTY * _RATIO**position)
        return losses[position]

    best = 0.0
    direction = 1.0 if try_at(1.0) < try_at(0.0) else -1.0
    while len(losses) < _MAX_TRIALS and try_at(best + direction) < losses[best]:
        best += direction
    vertex = find_vertex(losses.get(best - 1), losses[best], losses.get(best + 1))
    if vertex:
        try_at(best + vertex)
    best = min(losses, key=losses.__getitem__)
    trials = [{"penalty": FIRST_PENALTY * _RATIO**at, "validation_loss": loss} for at, loss in losses.items()]
    return FIRST_PENALTY * _RATIO**best, trials


def find_vertex(left: float | None, middle: float, right: float | None) -> float:
    """Return where the parabola through (-1, left), (0, middle), (1, right) is least; 0 when it is not a valley."""
    if left is None or right is None or not middle < min(left, right):
        return 0.0
    return 0.5 * (left - right) / (left - 2 * middle + right)
