"""Command line of the benchmark: `python -m bench list | run | accuracy | report | compare | tune | figures`."""

import argparse
import datetime
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import UnknownNameError, machine
from fastfactor.argument_types import at_least

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    words = sys.argv[1:]
    if words[:1] == ["--compare"]:
        words[0] = "compare"
    arguments = _parser().parse_args(words)
    try:
        return int(arguments.command(arguments))
    except UnknownNameError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure fastfactor and its peers.")
    commands = parser.add_subparsers(required=True)

    listing = commands.add_parser("list", help="suites, peers and real matrices at hand")
    listing.set_defaults(command=_list)

    running = commands.add_parser("run", help="run suites; all of them when none is named")
    running.add_argument("suites", nargs="*", help="names of suites")
    running.add_argument("--quick", action="store_true", help="smaller matrices, fewer repeats: minutes for a suite")
    running.add_argument("--threads", type=at_least(1), default=machine.n_cores(), help="threads for every peer")
    running.add_argument("--without", nargs="+", default=[], metavar="PEER", help="peers to leave out, say slow ones")
    running.add_argument("--output", type=Path, help="JSON file to write (default: results/<date>.json)")
    running.set_defaults(command=_run)

    judging = commands.add_parser(
        "accuracy", help="all that is promised of errors anew, peers tuned where need be, and the tables in the docs"
    )
    judging.add_argument("suites", nargs="*", help="some of its suites: accuracy, posterior, implicit, own_loss")
    judging.add_argument("--threads", type=at_least(1), default=machine.n_cores(), help="threads for every peer")
    judging.set_defaults(command=_accuracy)

    tuning = commands.add_parser("tune", help="search the options of completion peers on validation entries")
    tuning.add_argument("matrix", help="ml-1m, 20M, or any other matrix at hand")
    tuning.add_argument("peers", nargs="+", help="names of peers")
    tuning.set_defaults(command=_tune)

    drawing = commands.add_parser("figures", help="draw the pictures of the docs anew")
    drawing.add_argument("names", nargs="*", help="some of them; by default all")
    drawing.set_defaults(command=_figures)

    reporting = commands.add_parser("report", help="one HTML page of a result, with plots")
    reporting.add_argument("result", type=Path, nargs="?", help="JSON file (default: the newest in results/)")
    reporting.add_argument("--compare", type=Path, metavar="OLD", help="also say what moved since an older result")
    reporting.add_argument("--output", type=Path, help="HTML file to write (default: beside the result)")
    reporting.set_defaults(command=_report)

    comparing = commands.add_parser("compare", help="what got slower or worse between two results; also: --compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.set_defaults(command=_compare)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    from bench import data, peers, suites

    print("suites")
    for name in suites.NAMES:
        print(f"  {name:16} {suites.load(name).DESCRIPTION}")
    print("peers")
    for name in peers.module_names():
        found, reason = peers.load(name)
        print(f"  {name:16} {', '.join(peer.name for peer in found) or f'skipped: {reason}'}")
    names = data.names()
    print(f"real matrices\n  {', '.join(names) if names else f'none: set {data.VARIABLE} to a folder of .npz files'}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from bench import record, suites

    recorder = record.Recorder(arguments.quick, arguments.threads, frozenset(arguments.without))
    chosen = [(name, suites.load(name)) for name in arguments.suites or suites.NAMES]
    for name, suite in chosen:
        _measure(recorder, name, suite)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    path = arguments.output or RESULTS / f"{stamp}{'-quick' if arguments.quick else ''}.json"
    record.save(recorder, path)
    print(f"results in {os.path.relpath(path)}")
    _draw(path)
    return 0


def _measure(recorder: Any, name: str, suite: ModuleType) -> None:
    recorder.suite = name
    print(f"{name}: {suite.DESCRIPTION}", flush=True)
    start = time.perf_counter()
    suite.run(recorder)
    print(f"  {name} took {time.perf_counter() - start:.0f} s", flush=True)


def _accuracy(arguments: argparse.Namespace) -> int:
    from bench import record, suites, tables

    unknown = [name for name in arguments.suites if name not in tables.FORMATS]
    if unknown:
        raise UnknownNameError(f"no table is written of {', '.join(unknown)}; of {', '.join(tables.FORMATS)} there is")
    for name in arguments.suites or tables.FORMATS:
        recorder, path = record.Recorder(n_threads=arguments.threads), RESULTS / f"{name.replace('_', '-')}.json"
        _measure(recorder, name, suites.load(name))
        record.save(recorder, path)
        tables.write_tables(name, record.load(path))
        print(f"results in {os.path.relpath(path)}, the table in {os.path.relpath(tables.PAGE)}")
    return 0


def _draw(path: Path) -> None:
    from bench import record

    try:
        from bench import plots
    except ImportError as error:
        print(f"no pictures: {error}")
        return
    for picture in plots.save_all(record.load(path), path.with_suffix("")):
        print(f"picture in {os.path.relpath(picture)}")


def _tune(arguments: argparse.Namespace) -> int:
    from bench import tune

    tune.run(arguments.matrix, arguments.peers)
    return 0


def _figures(arguments: argparse.Namespace) -> int:
    from bench import figures

    for name in arguments.names or figures.NAMES:
        print(os.path.relpath(figures.draw(name)))
    return 0


def _load(path: Path) -> dict[str, Any]:
    """Return a result, or end with one line that says why it cannot be read: code 1 says that something got worse."""
    from bench import record

    try:
        return record.load(path)
    except (OSError, ValueError) as error:
        print(f"error: {path}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _report(arguments: argparse.Namespace) -> int:
    from bench import report

    results = sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    path = arguments.result or (results[-1] if results else None)
    if path is None:
        print("there is no result yet: python -m bench run", file=sys.stderr)
        return 1
    old = arguments.compare and _load(arguments.compare)
    output = arguments.output or path.with_suffix(".html")
    output.write_text(report.write_html(_load(path), old))
    print(f"report in {os.path.relpath(output)}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from bench import record

    changes = record.compare(_load(arguments.old), _load(arguments.new))
    moved = [change for change in changes if change.beyond_noise]
    for change in moved:
        word = "better" if change.factor > 1 else "WORSE"
        print(f"{word:6} {change.factor:6.2f}x  {change.old:.4g} -> {change.new:.4g} {change.unit:5} {change.name}")
    print(f"{len(changes)} figures in both, {len(moved)} moved beyond noise")
    return int(any(change.factor < 1 for change in moved))


if __name__ == "__main__":
    if os.environ != machine.clean_environment():
        # OpenBLAS reads its settings when it is loaded, so a clean environment needs a new process.
        os.execve(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]], machine.clean_environment())
    sys.exit(main())
