"""One HTML page of a result: where it was measured, plots, all figures, what was skipped. It needs no other file."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Any

from bench import record

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { padding: .15rem .8rem .15rem 0; text-align: left; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% }
.worse { font-weight: bold }
"""


def write_html(result: dict[str, Any], old: dict[str, Any] | None = None) -> str:
    """Return the page; with an older result also what moved since."""
    kind = " (quick)" if result["quick"] else ""
    title = f"fastfactor benchmark, {result['date'][:10]}{kind}"
    parts = [f"<h1>{escape(title)}</h1>", *_describe_machine(result)]
    if old is not None:
        parts += _describe_changes(old, result)
    parts += _draw(result)
    for suite, items in groupby(result["measurements"], key=lambda item: item["suite"]):
        parts += [f"<h2>{escape(suite)}</h2>", _table(_HEAD, map(_row, items), numbers=range(3, 6))]
    if result["skipped"]:
        parts += ["<h2>Skipped</h2>", "<ul>", *(f"<li>{escape(line)}</li>" for line in result["skipped"]), "</ul>"]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


_HEAD = ("case", "peer", "figure", "median", "from", "to", "samples", "better is")


def _row(item: dict[str, Any]) -> list[str]:
    samples = item["samples"]
    spread = [f"{min(samples):.4g}", f"{max(samples):.4g}"] if len(samples) > 1 else ["", ""]
    unit = f" {item['unit']}" if item["unit"] else ""
    figures = [f"{item['value']:.4g}{unit}", *spread, str(len(samples)), item["better"]]
    return [item["case"], item["peer"], item["metric"], *figures]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    lines = ["<table>", "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in rows:
        cells = (f"<td{' class=n' if i in numbers else ''}>{escape(cell)}</td>" for i, cell in enumerate(row))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _describe_machine(result: dict[str, Any]) -> Iterator[str]:
    machine = {**result["machine"], "threads": result["n_threads"]}
    caches = machine.pop("caches", {})
    rows = [[key, str(value)] for key, value in machine.items()]
    rows += [[f"{level} cache", size] for level, size in caches.items()]
    rows += [[name, version] for name, version in result["versions"].items()]
    for pool in result["thread_pools"]:
        known = ", ".join(f"{key} {value}" for key, value in pool.items() if key != "user_api")
        rows.append([f"{pool['user_api']} threads", known])
    yield "<h2>Where</h2>"
    yield _table(("what", "value"), rows)


def _describe_changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    changes = record.compare(old, new)
    moved = [change for change in changes if change.beyond_noise]
    rows = [
        ["better" if c.factor > 1 else "WORSE", f"{c.factor:.2f}x", f"{c.old:.4g}", f"{c.new:.4g} {c.unit}", c.name]
        for c in moved
    ]
    yield f"<h2>Since {escape(old['date'][:10])}</h2>"
    yield f"<p>{len(changes)} figures in both results, {len(moved)} moved beyond noise.</p>"
    yield _table(("", "factor", "old", "new", "figure"), rows, numbers=(1, 2, 3))


def _draw(result: dict[str, Any]) -> Iterator[str]:
    try:
        from bench import plots
    except ImportError as error:
        yield f"<p>No plots: {escape(str(error))}</p>"
        return
    import matplotlib.pyplot as plt

    for name, figure in plots.draw_all(result).items():
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=110)
        plt.close(figure)
        content = base64.b64encode(buffer.getvalue()).decode()
        yield f'<img alt="{escape(name)}" src="data:image/png;base64,{content}">'
