"""The code of the docs' pages: its blocks, and what they leave behind when they have run."""

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"

_FENCE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def find_blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the number of the line before each block that runs, its language, and its code."""
    for match in _FENCE.finditer(text):
        yield text.count("\n", 0, match.start(2)), match.group(1), match.group(2)


def run_page(name: str) -> dict[str, Any]:
    """Run the Python blocks of a page of docs/ in a folder of its own; return the names that they define."""
    namespace: dict[str, Any] = {"__name__": "page"}
    start = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        try:
            for line, language, code in find_blocks((DOCS / name).read_text()):
                if language == "python":
                    exec(compile("\n" * line + code, name, "exec"), namespace)
        finally:
            os.chdir(start)
    return namespace
