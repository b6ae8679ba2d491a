"""Models on disk: a folder with a JSON manifest and plain .npy arrays. Nothing that is read is ever executed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from fastfactor.folders import read_folder, write_values
from fastfactor.ids import Ids
from fastfactor.kernels.losses import LOSSES
from fastfactor.manifest import MANIFEST, MODEL
from fastfactor.model import Factorization
from fastfactor.solvers.recipe import check_recipe


def save_model(model: Factorization, path: str | os.PathLike[str]) -> None:
    """Write a model to the folder `path`, which then holds this model or, if anything fails, what it held before.

    Parameters
    ----------
    model : Factorization
    path : str or path
        A folder; made if it does not exist. A model in it is replaced; files of other names stay.

    Raises
    ------
    OSError
        If the folder cannot be written, or the disk is full; nothing half-written is left.
    TypeError
        If the model holds something that the format has no place for.

    Examples
    --------
    >>> import tempfile, numpy as np, fastfactor as ff
    >>> model = ff.fit(np.outer([1.0, 2.0, 3.0], [1.0, 2.0]), rank=1, unobserved="zero", max_epochs=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     ff.load(folder, verify=True)
    Factorization(3 x 2, rank=1, dtype=float64)
    """
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    write_values(Path(path), fields, MODEL)


def load(path: str | os.PathLike[str], verify: bool = False) -> Factorization:
    """Open a saved model. Its arrays are mapped, read-only: a model larger than memory opens in milliseconds.

    Parameters
    ----------
    path : str or path
        The folder that `Factorization.save` wrote.
    verify : bool
        Also read every array and compare it with its checksum.

    Returns
    -------
    Factorization

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If a file is truncated, damaged, of a foreign format or version, or not what the manifest says; the message
        names it.

    Examples
    --------
    >>> import tempfile, numpy as np, fastfactor as ff
    >>> model = ff.fit(np.outer([1.0, 2.0, 3.0], [1.0, 2.0]), rank=1, unobserved="zero", max_epochs=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     bool((ff.load(folder).U == model.U).all())
    True
    """
    folder = Path(path)
    return as_model(read_folder(folder, MODEL, verify), folder / MANIFEST)


def as_model(fields: dict[str, Any], manifest: Path) -> Factorization:
    """Return the model that the fields of a folder describe.

    Raises
    ------
    ValueError
        If they describe none; the message names the manifest.
    """
    known = {field.name for field in dataclasses.fields(Factorization)}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"{manifest} holds fields that this version does not know: {', '.join(unknown)}")
    missing = sorted({"U", "V", "mean", "row_bias", "col_bias"} - fields.keys())
    if missing:
        raise ValueError(f"{manifest} lacks {', '.join(missing)}")
    U, V = fields["U"], fields["V"]
    arrays = {name: fields[name] for name in ("U", "V", "row_bias", "col_bias")}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype not in (
            np.float32,
            np.float64,
            np.complex64,
            np.complex128,
        ):
            raise ValueError(f"{manifest}: {name} is not an array of real or complex numbers")
        if array.dtype != U.dtype or array.ndim != (2 if name in "UV" else 1):
            raise ValueError(f"{manifest}: {name} has shape {array.shape} and dtype {array.dtype}, U has {U.dtype}")
    if U.shape[1] != V.shape[1] or len(fields["row_bias"]) != len(U) or len(fields["col_bias"]) != len(V):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{manifest}: shapes do not fit: {shapes}")
    if not isinstance(loss := fields.get("loss", "squared"), str) or loss not in LOSSES:
        raise ValueError(f"{manifest}: loss {loss!r} is not known")
    if not isinstance(fields["mean"], int | float | complex | np.number):
        raise ValueError(f"{manifest}: mean is not a number")
    for name, factors in (("row_labels", U), ("col_labels", V)):
        ids = fields.get(name)
        if ids is not None and (not isinstance(ids, Ids) or len(ids) != len(factors)):
            raise ValueError(f"{manifest}: {name} are not {len(factors)} ids")
    for name in ("history", "selection", "recipe", "posterior"):
        if not isinstance(fields.get(name, {}), dict):
            raise ValueError(f"{manifest}: {name} is not a dict")
    if not all(isinstance(column, np.ndarray) and column.ndim == 1 for column in fields.get("history", {}).values()):
        raise ValueError(f"{manifest}: history does not consist of arrays")
    try:
        check_recipe(fields.get("recipe", {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{manifest}: recipe: {error}") from None
    if fields.get("posterior"):
        _check_posterior(fields["posterior"], U, V, manifest)
    return Factorization(**fields)


def _check_posterior(posterior: dict[str, Any], U: Any, V: Any, manifest: Path) -> None:
    n, std = posterior.get("n_samples"), posterior.get("std")
    if type(n) is not int or n < 1:
        raise ValueError(f"{manifest}: posterior.n_samples is {n!r}")
    if not isinstance(std, float) or not 0 < std < np.inf:
        raise ValueError(f"{manifest}: posterior.std is {std!r}")
    draws = posterior.get("row_draws")
    n_draws, width = draws.shape[1:] if isinstance(draws, np.ndarray) and draws.ndim == 3 else (1, 2)
    if n_draws < 1 or width < 2:
        raise ValueError(f"{manifest}: posterior.row_draws has no room for draws")
    arrays = {
        "row_draws": ((len(U), n_draws, width), np.float16),
        "col_draws": ((len(V), n_draws, width - 1), np.float16),
        "row_noise": ((len(U),), U.dtype),
        "col_noise": ((len(V),), U.dtype),
        "quantiles": ((199,), np.float64),
    }
    for name, (shape, dtype) in arrays.items():
        array = posterior.get(name)
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{manifest}: posterior.{name} is not an array of {np.dtype(dtype)} and shape {shape}")
