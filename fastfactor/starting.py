"""What a fit can start from: a model, checked against the options and the matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastfactor.kernels.losses import LOSSES, find_loss
from fastfactor.matrix.labelled import Labelled
from fastfactor.model import Factorization
from fastfactor.options import Options, refuse_sampled
from fastfactor.solvers.warm import Start


def check_init(init: Any, options: Options, X: Any) -> None:
    """Refuse a model that a fit of `X` with these options cannot start from."""
    if init is None:
        return
    if not isinstance(init, Factorization):
        raise TypeError(f"init must be a Factorization, got {type(init).__name__}")
    refuse_sampled(init, "init")
    if init.rank != options.rank:
        raise ValueError(f"init has rank {init.rank}, but rank is {options.rank}")
    loss = options.loss if options.loss in LOSSES else find_loss(options.loss)
    if init.loss != loss:
        raise ValueError(f"init was fitted with loss={init.loss!r}, but loss is {loss!r}")
    if isinstance(X, Labelled):
        for side, old, new in (("row", init.row_labels, X.row_labels), ("col", init.col_labels, X.col_labels)):
            if old is not None and new is not None and not new.begins_with(old):
                raise ValueError(f"init has other {side} ids than X, or in another order: read X with like=init")
    if not options.biases and (init.row_bias.any() or init.col_bias.any()):
        raise ValueError("init has biases, but biases are off in this fit")


def as_start(init: Factorization | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> Start | None:
    """Return the factors of a model to start from, which may be of a smaller matrix than one of `shape`."""
    if init is None:
        return None
    if init.shape[0] > shape[0] or init.shape[1] > shape[1]:
        raise ValueError(f"init is a model of a matrix {init.shape}, X is smaller: {shape}")
    if init.U.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError("init is complex, X is real")
    return Start(init.U, init.V, init.row_bias, init.col_bias, init.mean)
