"""What MkDocs does with these pages beyond rendering them: links out of `docs/`, and formulas.

Pages link into the repository as they lie there (`../fastfactor/api.py`), so that they also work in a checkout. On
the site such a file becomes a page of its own. Formulas become MathML, which browsers draw without any script.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
FROM_ROOT = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

_OUTWARD = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_INWARD = re.compile(r"\]\(docs/([^)\s]+)\)")
_NOT_RUN = re.compile(
    r"^```python skip$", re.MULTILINE
)  # which tests/test_docs.py leaves out, and the renderer does not know
_CODE = re.compile(r"<code.*?</code>", re.DOTALL)
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BAR = '<mo stretchy="false">&#x0007C;</mo>'  # of a modulus, which stands close to what is in it
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def _target(path: str) -> str:
    """Return where on the site a file of the repository is shown."""
    return FROM_ROOT.get(path, f"source/{path}.md")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie elsewhere in the repository, and each source file that a page links to."""
    pages = [page.read_text() for page in Path(config["docs_dir"]).glob("*.md")]
    for name, target in FROM_ROOT.items():
        text = _INWARD.sub(r"](\1)", (ROOT / name).read_text())
        files.append(File.generated(config, target, content=text))
    for path in sorted({match[1] for text in pages for match in _OUTWARD.finditer(text)} - FROM_ROOT.keys()):
        source = (ROOT / path).read_text()  # a link that leads nowhere ends the build here
        page = f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n````python\n{source}````\n"
        files.append(File.generated(config, _target(path), content=page, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links into the repository at its pages; leave out what only the tests read."""
    markdown = _NOT_RUN.sub("```python", markdown)
    return _OUTWARD.sub(lambda match: f"]({_target(match[1])}{match[2] or ''})", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas into MathML, and see that no code block was taken for text."""
    if "```" in _CODE.sub("", content):
        raise ValueError("a code block is not rendered: the renderer does not know what follows its backticks")
    content = _INLINE.sub(lambda match: _to_mathml(match[1], "inline"), content)
    return _DISPLAY.sub(lambda match: f'<div class="formula">{_to_mathml(match[1], "block")}</div>', content)


def _to_mathml(formula: str, display: str) -> str:
    formula = html.unescape(formula)
    if "$" in formula:
        raise ValueError(f"two formulas in one, for want of an empty line: {formula}")
    return convert(formula, display=display).replace(_BAR, _BAR.replace("<mo ", '<mo lspace="0" rspace="0" '))
