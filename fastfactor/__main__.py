"""`python -m fastfactor`: the commands of the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastfactor import __version__
from fastfactor.argument_types import at_least


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fastfactor",
        description="Low-rank matrix factorization by SGD.",
        epilog="Files are worked on by the command `fastfactor` (pip install 'fastfactor[cli]'): fastfactor --help.",
    )
    parser.add_argument("--version", action="version", version=f"fastfactor {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    demo = commands.add_parser(
        "demo",
        help="factorize a matrix made from this Python's standard library",
        description="Factorize a matrix made from this Python's standard library: modules x identifiers.",
    )
    demo.add_argument("packages", nargs="*", help="read only these top-level packages or modules")
    demo.add_argument(
        "--rank", type=at_least(1), default=32, help="of the low-rank approximation (default: %(default)s)"
    )
    demo.add_argument(
        "--seed", type=at_least(0), default=0, help="of what is hidden and of the fits (default: %(default)s)"
    )
    demo.add_argument("--threads", type=at_least(1), help="at most this many (default: all this process may use)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    from fastfactor import demo  # brings Numba and scipy, which --help does not need

    try:
        demo.run(arguments.packages, rank=arguments.rank, seed=arguments.seed, n_threads=arguments.threads)
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
