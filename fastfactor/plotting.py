"""Pictures of how a fit went and of a spectrum, on matplotlib (extra `plot`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _choose_axes(ax: Any) -> Any:
    """Return `ax`, or the axes of a new figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("matplotlib is missing: pip install 'fastfactor[plot]'") from error
    return pyplot.subplots(layout="constrained")[1]


def plot_history(history: Mapping[str, NDArray[Any]], ax: Any = None) -> Any:
    """Draw training and validation loss over the epochs; see `Factorization.plot_history`."""
    if not len(history.get("epoch", ())):
        raise ValueError("the model has no history: no epoch was run")
    ax = _choose_axes(ax)
    epochs = np.arange(1, len(history["epoch"]) + 1)  # counted on where the fit began anew with half the step
    losses = {name: np.asarray(history[f"{name}_loss"], np.float64) for name in ("train", "validation")}
    for (name, loss), style in zip(losses.items(), ("-", "--"), strict=True):
        if np.isfinite(loss).any():
            ax.plot(epochs, loss, style, marker="." if len(epochs) < 30 else None, label=name)
    for restart in epochs[1:][np.diff(history["epoch"]) < 1]:
        ax.axvline(restart - 0.5, color="0.7", linewidth=1, label=None)
    shown = np.concatenate([loss[np.isfinite(loss)] for loss in losses.values()])
    if len(shown) and shown.min() > 0:
        ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel="mean loss per entry", title="History of the fit")
    ax.legend()
    return ax


def plot_spectrum(s: NDArray[Any], ax: Any = None) -> Any:
    """Draw singular values, descending, on a logarithmic scale; see `SVDResult.plot_spectrum`."""
    ax = _choose_axes(ax)
    ax.plot(np.arange(1, len(s) + 1), s, "-", marker="." if len(s) < 100 else None)
    if len(s) and s.min() > 0:
        ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="index", ylabel="singular value", title="Spectrum")
    return ax
