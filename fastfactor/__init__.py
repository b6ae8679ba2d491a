"""Low-rank matrix factorization by stochastic gradient descent, compiled with Numba.

Names are imported when they are first used: `import fastfactor` loads neither Numba nor scipy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastfactor import io, metrics, model_selection
    from fastfactor.api import fit
    from fastfactor.decomposition import pca, svd, svds
    from fastfactor.exceptions import ConvergenceWarning, DivergenceError
    from fastfactor.kernels.losses import Loss
    from fastfactor.model import Factorization
    from fastfactor.results import PCAResult, SVDResult
    from fastfactor.storage import load

__version__ = "0.1.0"

__all__ = [
    "ConvergenceWarning",
    "DivergenceError",
    "Factorization",
    "Loss",
    "PCAResult",
    "SVDResult",
    "fit",
    "io",
    "load",
    "metrics",
    "model_selection",
    "pca",
    "svd",
    "svds",
]

_HOMES = {
    "ConvergenceWarning": "exceptions",
    "DivergenceError": "exceptions",
    "Factorization": "model",
    "Loss": "kernels.losses",
    "PCAResult": "results",
    "SVDResult": "results",
    "fit": "api",
    "load": "storage",
    "pca": "decomposition",
    "svd": "decomposition",
    "svds": "decomposition",
}


_MODULES = {"dask", "io", "metrics", "model_selection"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fastfactor.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'fastfactor' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastfactor.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
