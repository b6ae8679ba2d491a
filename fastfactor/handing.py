"""What functions for one process hand on to `fastfactor.dask`: the same call, for Dask's collections."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fastfactor.options import is_same


def is_dask(X: Any) -> bool:
    """Whether this is an array or a DataFrame of Dask."""
    return type(X).__module__.partition(".")[0] == "dask"


def call_on_cluster(function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Call the function of the same name in `fastfactor.dask`, which has fewer options.

    Parameters
    ----------
    function : callable
        Its first parameter is the collection.
    given : mapping
        What it was given, by name.

    Raises
    ------
    ValueError
        If an option was given that is not available there.
    """
    from fastfactor import dask

    called = getattr(dask, function.__name__)
    known = inspect.signature(called).parameters
    (first, _), *options = inspect.signature(function).parameters.items()
    for name, parameter in options:
        if name not in known and not is_same(given[name], parameter.default):
            raise ValueError(f"{name} is not available where {first} is a Dask collection, got {given[name]!r}")
    return called(given[first], **{name: given[name] for name, _ in options if name in known})


def decompose_on_cluster(A: Any, search: Any, rng: Any) -> Any:
    """Return triplets of a Dask array, as `solvers.dispatch.decompose` does of a matrix."""
    from fastfactor.dask.passes import decompose

    return decompose(A, search, rng)
