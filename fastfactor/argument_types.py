"""What argparse reads the options of `python -m fastfactor` and `python -m bench` with."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of integers that refuses those below `least`, before any work has begun."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    parse.__name__ = "integer"  # argparse names it where `int` fails
    return parse
