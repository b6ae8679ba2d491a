"""The public names and their arguments stand in public_api.txt: a change that nobody announced fails here.

To change something on purpose: `python tests/test_public_api.py` writes the list anew; then name the change in
CHANGELOG.md.
"""

import importlib
import inspect
from pathlib import Path

import pytest

import fastfactor as ff

LIST = Path(__file__).with_name("public_api.txt")
ADAPTERS = ("dask", "sklearn")


def is_own(member):
    """Tell what is defined here from what a class of scikit-learn's has; properties and wrappers count as ours."""
    return getattr(member, "__module__", None) is None or member.__module__.startswith("fastfactor")


def describe(name, value):
    """Yield a line for what can be called, and one for each public attribute of a class."""
    own = inspect.isclass(value) and value.__module__.startswith("fastfactor")
    if own and issubclass(value, BaseException):
        yield f"{name} -> {value.__mro__[1].__name__}"
        return
    theirs = inspect.isclass(value) and not is_own(value.__init__)
    signature = inspect.Signature() if theirs else inspect.signature(value)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    yield f"{name}{signature.replace(parameters=bare, return_annotation=signature.empty)}"
    if own:
        for key in sorted(key for key in dir(value) if key[0] != "_"):
            member = getattr(value, key)
            if not is_own(member):
                continue
            if inspect.isroutine(member):
                yield from describe(f"{name}.{key}", member)
            elif isinstance(member, property):
                yield f"{name}.{key}"


def list_names():
    lines = []
    for name in ff.__all__:
        value = getattr(ff, name)
        if inspect.ismodule(value):
            for key in value.__all__:
                lines += describe(f"{name}.{key}", getattr(value, key))
        else:
            lines += describe(name, value)
    for name in ADAPTERS:
        module = importlib.import_module(f"fastfactor.{name}")
        lines += [line for key in module.__all__ for line in describe(f"{name}.{key}", getattr(module, key))]
    return lines


def test_public_names_change_only_on_purpose():
    for package in ("pyarrow", "sklearn", "dask", "distributed"):
        pytest.importorskip(package)
    listed, found = set(LIST.read_text().splitlines()), set(list_names())
    assert not listed - found, "public names or arguments are gone"
    assert not found - listed, "public names or arguments are new"


def test_every_public_name_has_its_place_in_the_reference():
    page = LIST.parent.parent / "docs" / "reference.md"
    if not page.exists():
        pytest.skip("the pages are not beside the tests")
    text = page.read_text()
    assert not [name for name in (*ff.__all__, *ADAPTERS) if f"::: fastfactor.{name}\n" not in text]


if __name__ == "__main__":
    LIST.write_text("\n".join(list_names()) + "\n")
