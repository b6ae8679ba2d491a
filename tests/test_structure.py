"""The layout holds: imports go one way, modules and functions stay small, public names are documented."""

import ast
import inspect

import pytest
from conftest import PACKAGE

import fastfactor as ff

MODULES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in MODULES]

# What each room may import, besides other packages. Rooms are listed from the ground up, adapters last.
ROOMS = {
    "exceptions": set(),
    "ids": set(),
    "manifest": {"ids"},
    "locks": set(),
    "folders": {"manifest", "locks"},
    "kernels": {"kernels"},
    "placing": {"kernels"},
    "threads": {"placing"},
    "blas": {"threads"},
    "options": {"kernels", "exceptions"},
    "matrix": {"matrix", "kernels", "threads", "blas", "exceptions", "ids"},
    "io": {"io", "exceptions", "matrix", "ids", "folders", "locks", "manifest", "kernels", "options"},
    "solvers": {"solvers", "matrix", "kernels", "threads", "blas", "options", "exceptions"},
}
TOP = {"api", "sklearn", "cli", "dask", "demo", "__main__", "__init__"}


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(tree):
    """Return the rooms of fastfactor that a module imports anywhere in it, type-checking blocks included."""
    rooms = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {[*name.split("."), "__init__"][1] for name in names if name.split(".")[0] == "fastfactor"}
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_imports_go_one_way(path):
    room, imported = room_of(path), imports_of(ast.parse(path.read_text()))
    if room in ROOMS:
        assert imported <= ROOMS[room]
    elif room not in TOP | {"handing"}:  # which hands calls on to dask/
        assert not imported & TOP


def test_kernels_know_no_input_output_or_validation():
    for path in set(PACKAGE.glob("kernels/*.py")) - {PACKAGE / "kernels" / "compiling.py"}:  # the disk cache's own
        tree = ast.parse(path.read_text())
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not {name.split(".")[0] for name in names} & {"scipy", "pandas", "pickle", "json", "threading"}


def is_prange(node):
    return isinstance(node, ast.For) and isinstance(node.iter, ast.Call) and ast.unparse(node.iter.func) == "prange"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("kernels/*.py")), ids=lambda path: path.name)
def test_no_thread_of_a_kernel_asks_for_memory(path):
    """Where there is none, Numba makes a SystemError of it, not a MemoryError."""
    makers = ("np.empty", "np.zeros", "np.ones", "np.full", "np.arange", ".copy", "np.empty_like", "np.zeros_like")
    for loop in filter(is_prange, ast.walk(ast.parse(path.read_text()))):
        calls = [ast.unparse(node.func) for node in ast.walk(loop) if isinstance(node, ast.Call)]
        assert not [call for call in calls if call.endswith(makers)], f"line {loop.lineno}"


def body_lines(node):
    """Return how many lines the body of a function has, its docstring not counted."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_modules_and_functions_are_small(path):
    source = path.read_text()
    assert source.count("\n") <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert body_lines(node) <= 60, node.name


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_public_code_has_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    for scope in scopes:
        protocol = any(getattr(base, "id", "") == "Protocol" for base in getattr(scope, "bases", ()))
        for node in scope.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and not protocol:
                assert ast.get_docstring(node), node.name


def public_callables():
    for name in ff.__all__:
        value = getattr(ff, name)
        if inspect.ismodule(value):
            members = ((f"{name}.{key}", getattr(value, key)) for key in value.__all__)
            yield from ((key, member) for key, member in members if not inspect.isclass(member))
            continue
        if not inspect.isclass(value):
            yield name, value
            continue
        if not issubclass(value, BaseException):
            yield from (
                (f"{name}.{key}", method)
                for key, method in vars(value).items()
                if key[0] != "_" and inspect.isfunction(method)
            )


def test_public_functions_document_each_parameter():
    seen = 0
    for name, function in public_callables():
        parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        text = inspect.getdoc(function) or ""
        if parameters:
            assert "Parameters\n----------" in text, name
        for parameter in parameters:
            assert parameter in text.split("Parameters\n----------")[1], (name, parameter)
            seen += 1
    assert seen > 20


def test_docstrings_and_sources_hold_no_greek():
    for path in MODULES:
        assert path.read_text().isascii(), path.name
