"""The suites, one file each, with a line `DESCRIPTION` and a function `run(recorder)`."""

import importlib
from types import ModuleType

from bench import UnknownNameError

NAMES = (
    "epochs",
    "time_to_rmse",
    "accuracy",
    "posterior",
    "implicit",
    "own_loss",
    "svd",
    "per_entry",
    "memory",
    "startup",
    "scaling",
    "recommend",
    "files",
    "disk",
    "dask",
    "scale",
)


def load(name: str) -> ModuleType:
    """Import one suite; the peers it compares come along."""
    if name not in NAMES:
        raise UnknownNameError(f"there is no suite {name!r}; there are {', '.join(NAMES)}")
    return importlib.import_module(f"{__name__}.{name}")
