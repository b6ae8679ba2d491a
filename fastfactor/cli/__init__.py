"""The command `fastfactor` (extra `cli`): fit, predict, recommend, similar, svd, evaluate, export, info, ..."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code (docs/cli.md).

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    try:
        import click
        import rich
    except ImportError as error:
        print(f"error: {error.name} is missing: pip install 'fastfactor[cli]'", file=sys.stderr)
        sys.exit(1)
    del click, rich
    from fastfactor.cli.app import run

    sys.exit(run(arguments))
