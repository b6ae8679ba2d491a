"""The commands together, and how the process ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import fastfactor
from fastfactor.cli.outcomes import Code, Failure, Talk
from fastfactor.cli.serving import evaluate, export, info, predict, recommend, similar
from fastfactor.cli.stopping import Interrupted, Stopping
from fastfactor.cli.training import fit, svd, warmup


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(fastfactor.__version__, prog_name="fastfactor", message="%(prog)s %(version)s")
def app() -> None:
    """Low-rank matrix factorization: from files to models, and from models to files."""


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: Sequence[str]) -> int:
    """Factorize a matrix made from this Python's standard library."""
    from fastfactor.__main__ import main

    try:
        return main(["demo", *arguments])
    except SystemExit as end:  # of argparse
        return int(end.code or Code.DONE)


for command in (fit, predict, recommend, similar, svd, evaluate, export, info, warmup, demo):
    app.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    talk = Talk("--json" in given, "--quiet" in given)
    try:
        with Stopping(), talk.hearing_warnings():  # so that SIGTERM too removes what is half written
            return int(app.main(given, prog_name="fastfactor", standalone_mode=False) or Code.DONE)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            print(error.ctx.get_usage(), file=sys.stderr)
        talk.fail(error.exit_code, error.format_message())
        return error.exit_code
    except Failure as failure:
        talk.fail(failure.code, str(failure))
        return int(failure.code)
    except (Interrupted, click.Abort, KeyboardInterrupt) as stop:
        code = 128 + (stop.signum if isinstance(stop, Interrupted) else 2)
        talk.fail(code, "stopped by a signal; nothing was saved")
        return code
