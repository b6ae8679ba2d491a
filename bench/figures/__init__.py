"""The pictures of the docs: `python -m bench figures` draws them anew into docs/images/.

Those of the how-to pages run the code of their page and draw what came out, so that a picture cannot show anything else
than its page says. Those of measurements read the results that are kept in bench/results/.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import UnknownNameError

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"

# Picture -> module of this folder and the function in it; the function returns a matplotlib figure.
NAMES = {
    "best-approximation": "uses.best_approximation",
    "completion": "uses.completion",
    "counts": "howto.counts",
    "eigendecomposition": "uses.eigendecomposition",
    "inpainting": "howto.inpainting",
    "pca": "uses.pca",
    "per-entry": "measured.per_entry",
    "pseudo-inverse": "uses.pseudo_inverse",
    "speed": "measured.speed",
    "time-to-rmse": "measured.time_to_rmse",
}


def find(name: str) -> Callable[[], Any]:
    """Return the function that draws one picture."""
    if name not in NAMES:
        raise UnknownNameError(f"there is no picture {name!r}; there are {', '.join(NAMES)}")
    module, function = NAMES[name].split(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)


def draw(name: str, folder: Path = IMAGES) -> Path:
    """Draw one picture into a folder, and return its path."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "font.size": 9})
    figure = find(name)()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    # No dates and versions inside: the same picture is the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path
