"""The arguments of `fit`, checked before any work starts."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfactor.kernels.losses import LOSSES, TRAITS, Loss, find_traits, register_loss

UNOBSERVED = ("missing", "zero", "weak")
MOST_COLUMNS = (1 << 31) - 1  # that may be asked for: of factors, of a list
_UNSAMPLED = ("validation", "sample_weight", "init", "max_seconds", "max_memory", "callback", "checkpoint")


@dataclass(frozen=True)
class Options:
    """Checked arguments of `fit` that the solvers need; "auto" is None.

    Attributes
    ----------
    rank : int
    loss : str
        As a `Spec` names it.
    biases : bool
    penalty : (float or array, float or array) or None
        Regularization of rows and of columns, in the units of the values: one number for all, or one for each.
    l1_penalty : (float, float)
        The same for l1_regularization.
    nonnegative : (bool, bool)
        Whether factors of rows and of columns are.
    learning_rate : float or None
        The largest step of any row or column.
    pace : (float or array, float or array) or None
        The steps of rows and of columns over the largest; None when there is one step for all.
    max_epochs : int or None
    max_seconds : float
    seed : int
    callback : callable or None
    """

    rank: int
    loss: str
    biases: bool
    penalty: tuple[Any, Any] | None
    l1_penalty: tuple[float, float]
    nonnegative: tuple[bool, bool]
    learning_rate: float | None
    pace: tuple[Any, Any] | None
    max_epochs: int | None
    max_seconds: float
    seed: int
    callback: Callable[[Any], Any] | None


def check_integer(value: Any, name: str, minimum: int, maximum: int = (1 << 63) - 1) -> int:
    """Return `value` as an int; TypeError or ValueError, naming the argument, where it is none or out of range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if int(value) > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {show_integer(int(value))}")
    return int(value)


def show_integer(value: int) -> str:
    """Return an integer as text, a long one by how long it is."""
    return str(value) if value.bit_length() < 200 else f"an integer of {value.bit_length()} bits"


def check_seed(seed: Any) -> int:
    """Return a seed as an int of 64 bits; see `check_integer`."""
    return check_integer(seed, "seed", 0, (1 << 64) - 1)


def check_real(value: Any, name: str, *, strict: bool = False) -> float:
    """Return `value` as a finite float of at least (`strict`: above) 0, or raise naming the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        value = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be in the range of float64, got {show_integer(int(value))}") from None
    if not math.isfinite(value) or value < 0 or (strict and value == 0):
        raise ValueError(f"{name} must be finite and {'above' if strict else 'at least'} 0, got {value}")
    return value


def check_share(value: Any, name: str) -> float:
    """Return a share of the entries to set aside, above 0 and below 1, or raise naming the argument."""
    share = check_real(value, name, strict=True)
    if share >= 1:
        raise ValueError(f"{name} must be a share below 1, got {value}")
    return share


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """Return `value`, one of `choices`, or raise a ValueError that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def check_loss(loss: Any) -> str:
    """Return the name by which a `Spec` knows `loss`, a name or a `Loss`; or raise an error that lists the names."""
    if isinstance(loss, Loss):
        return register_loss(loss)
    if not isinstance(loss, str):
        raise TypeError(f"loss must be one of {', '.join(map(repr, LOSSES))} or a fastfactor.Loss, got {loss!r}")
    return check_choice(loss, "loss", tuple(LOSSES))


def check_penalty(value: Any, name: str) -> tuple[float, float]:
    """Return a penalty of rows and one of columns, from one number for both or a pair."""
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number or a pair (row, column), got {value!r}")
    return check_real(pair[0], name), check_real(pair[1], name)


def check_row_penalties(value: Any, name: str) -> tuple[Any, Any]:
    """Return the penalties of rows and of columns, each a number or an array of them: see `check_penalty`."""
    if not (isinstance(value, tuple | list) and len(value) == 2 and any(np.ndim(side) for side in value)):
        return check_penalty(value, name)
    sides: list[Any] = []
    for side, what in zip(value, ("rows", "columns"), strict=True):
        if not np.ndim(side):
            sides.append(check_real(side, f"{name} of {what}"))
            continue
        penalties = np.array(side, np.float64)  # a copy: what the caller does to theirs later changes nothing
        if penalties.ndim != 1:
            raise ValueError(
                f"{name} of {what} must be a number or one for each, got an array of shape {np.shape(side)}"
            )
        bad = np.flatnonzero(~(np.isfinite(penalties) & (penalties >= 0)))
        if len(bad):
            raise ValueError(f"{name} of {what} must be finite and at least 0, got {penalties[bad[0]]} at {bad[0]}")
        sides.append(penalties)
    return sides[0], sides[1]


def is_auto(value: Any) -> bool:
    """Whether an argument is left to the fit."""
    return isinstance(value, str) and value == "auto"


def check_learning_rate(value: Any) -> tuple[float | None, tuple[Any, Any] | None]:
    """Return the largest step and the pace of rows and columns, as `Options` has them."""
    if is_auto(value):
        return None, None
    if not isinstance(value, tuple | list):
        return check_real(value, "learning_rate", strict=True), None
    sides = check_row_penalties(value, "learning_rate")
    for side, what in zip(sides, ("rows", "columns"), strict=True):
        if np.min(side, initial=np.inf) <= 0:
            raise ValueError(f"learning_rate of {what} must be above 0, got {np.min(side)} at {np.argmin(side)}")
    largest = float(max(np.max(side, initial=0.0) for side in sides))
    return largest, (sides[0] / largest, sides[1] / largest)


def check_lengths(options: Options, shape: tuple[int, int]) -> None:
    """Raise a ValueError if penalties or steps were given for each row or column, but not as many as X has."""
    for name, pair in (("regularization", options.penalty), ("learning_rate", options.pace)):
        for side, n, what in zip(pair or (), shape, ("rows", "columns"), strict=False):
            if np.ndim(side) and len(side) != n:
                raise ValueError(f"{name} has {len(side)} numbers for the {n} {what} of X")


def is_same(value: Any, usual: Any) -> bool:
    """Whether an argument is what it usually is; arrays, models and the like are no number and no word."""
    return value is usual or (np.isscalar(value) and bool(value == usual))


def check_flag(value: Any, name: str) -> bool:
    """Return a bool, False for None; or raise a TypeError that names it."""
    if value is not None and not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True, False or None, got {value!r}")
    return bool(value)


def check_flags(value: Any, name: str) -> tuple[bool, bool]:
    """Return whether something holds for rows and for columns, from one bool for both or a pair."""
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(flag, bool | np.bool_) for flag in pair):
        raise ValueError(f"{name} must be True, False or a pair (row, column) of them, got {value!r}")
    return bool(pair[0]), bool(pair[1])


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def check_memory(value: Any) -> float:
    """Return `max_memory` in bytes, from a number or from text like "400MB" or "1.5 GiB"; infinity for None."""
    if value is None:
        return math.inf
    if not isinstance(value, str):
        return check_real(value, "max_memory", strict=True)
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([kmgt]i?)?b?\s*", value, re.IGNORECASE)
    if match is None:
        raise ValueError(f"max_memory must be a number of bytes or text like '400MB' or '2GiB', got {value!r}")
    return check_real(float(match[1]) * _UNITS[(match[2] or "").lower()], "max_memory", strict=True)


def refuse_beyond(limit: float, needed: Mapping[str, float], advice: str = "", what: str = "this fit") -> None:
    """Raise a MemoryError that says what a fit (or `what`) needs, unless that is within `limit`."""
    total = sum(needed.values())
    if total > limit:
        parts = ", ".join(f"{size / 1e6:,.0f} MB for {name}" for name, size in needed.items() if size >= 1e5)
        raise MemoryError(
            f"max_memory is {limit / 1e6:,.0f} MB, but {what} needs {total / 1e6:,.0f} MB: {parts}{advice}"
        )


def check_weak(options: Options, learning_rate: Any) -> None:
    """Refuse what a fit of implicit feedback has no place for: with the squared loss it solves for whole rows."""
    steps = (
        ("nonnegative", options.nonnegative, ((False, False),)),
        ("l1_regularization", options.l1_penalty, ((0.0, 0.0),)),
        ("learning_rate", learning_rate, ("auto",)),
    )
    for name, value, allowed in (
        ("loss", options.loss, ("squared", *(name for name, traits in TRAITS.items() if traits.pairs))),
        ("biases", options.biases, (False,)),
        *(() if find_traits(options.loss).pairs else steps),
    ):
        if not isinstance(value, float | str | bool | tuple | None) or value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise ValueError(f"{name} must be {choices} where unobserved='weak', got {value!r}")


def check_sampling(posterior_samples: Any, arguments: Mapping[str, Any]) -> int:
    """Return how many samples to average, 0 for an ordinary fit; refuse other arguments that sampling cannot obey."""
    n_samples = check_integer(posterior_samples, "posterior_samples", 0)
    if not n_samples:
        return 0
    allowed: dict[str, tuple[Any, ...]] = {
        "unobserved": ("missing",),
        "loss": ("squared",),
        "regularization": ("auto",),
        "l1_regularization": (0,),
        "biases": ("auto", True),
        "nonnegative": (False,),
        "dtype": (None, "float32", np.float32),
        **dict.fromkeys(_UNSAMPLED, (None,)),
    }
    for name, choices in allowed.items():
        value = arguments[name]
        if not any(is_same(value, choice) for choice in choices):
            listed = " or ".join(dict.fromkeys(map(repr, choices[:2])))
            raise ValueError(f"{name} must be {listed} where posterior_samples is given, got {value!r}")
    return n_samples


def refuse_sampled(model: Any, name: str) -> None:
    """Refuse a mean of samples where only the factors of one fit will do."""
    if model.posterior:
        raise ValueError(f"{name} cannot take a model of posterior_samples={model.posterior['n_samples']}: fit without")


def check_stored(unobserved: str, sample_weight: Any, n_samples: int) -> None:
    """Refuse what a fit of a grid on disk has no place for."""
    if unobserved != "missing":
        better = (
            "fastfactor.svd solves that problem" if unobserved == "zero" else "fastfactor.io.read gives one in memory"
        )
        raise ValueError(f"unobserved must be 'missing' where X is a grid on disk, got {unobserved!r}: {better}")
    if sample_weight is not None:
        raise ValueError("sample_weight must be None where X is a grid on disk: its blocks hold no weights")
    if n_samples:
        raise ValueError(f"posterior_samples must be 0 where X is a grid on disk, got {n_samples}")


def check_weight(unobserved_weight: Any, unobserved: str, loss: str) -> float | None:
    """Return the weight of what is not stored, None being automatic; only implicit feedback has one."""
    if unobserved_weight is None:
        return None
    if find_traits(loss).pairs:
        raise ValueError(f"unobserved_weight must be None where loss={loss!r}, got {unobserved_weight!r}")
    if unobserved != "weak":
        raise ValueError(f"unobserved_weight goes with unobserved='weak', not with {unobserved!r}")
    return check_real(unobserved_weight, "unobserved_weight", strict=True)


def check_dtype(dtype: Any, data_dtype: np.dtype[Any], default: Any) -> np.dtype[Any]:
    """Return the dtype to compute in: of the asked-for precision (`default` when None), complex if the data are.

    Raises
    ------
    TypeError
        If it is not float32, float64 or one of their complex companions.
    """
    try:
        dtype = np.dtype(default if dtype is None else dtype)
    except TypeError as error:
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from error
    if dtype.name not in ("float32", "float64", "complex64", "complex128"):
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    single = dtype.name in ("float32", "complex64")
    if data_dtype.kind == "c" or dtype.kind == "c":
        return np.dtype(np.complex64 if single else np.complex128)
    return np.dtype(np.float32 if single else np.float64)


def check_options(given: Mapping[str, Any]) -> Options:
    """Check arguments that need no look at the data.

    Parameters
    ----------
    given : mapping
        Arguments of `fit` by their names; others are not looked at.

    Raises
    ------
    TypeError, ValueError
        Naming the argument and the value.
    """
    unobserved, biases, callback = given["unobserved"], given["biases"], given["callback"]
    max_epochs, max_seconds = given["max_epochs"], given["max_seconds"]
    if not (is_auto(biases) or isinstance(biases, bool | np.bool_)):
        raise ValueError(f"biases must be True, False or 'auto', got {biases!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {callback!r}")
    penalty: tuple[Any, Any] | None = None
    if not is_auto(given["regularization"]):
        penalty = check_row_penalties(given["regularization"], "regularization")
    elif unobserved == "zero":
        penalty = (0.0, 0.0)
    known = check_loss(given["loss"])
    if find_traits(known).pairs and unobserved != "weak":
        raise ValueError(f"loss={given['loss']!r} goes with unobserved='weak', not with {unobserved!r}")
    signs = check_flags(given["nonnegative"], "nonnegative")
    rate, pace = check_learning_rate(given["learning_rate"])
    l1_penalty = check_penalty(given["l1_regularization"], "l1_regularization")
    if pace is not None and any(l1_penalty):
        raise ValueError("learning_rate must be one number, or 'auto', where there is an l1_regularization")
    return Options(
        rank=check_integer(given["rank"], "rank", 1, MOST_COLUMNS),
        loss=known,
        biases=unobserved == "missing" and not any(signs) if is_auto(biases) else bool(biases),
        penalty=penalty,
        l1_penalty=l1_penalty,
        nonnegative=signs,
        learning_rate=rate,
        pace=pace,
        max_epochs=None if max_epochs is None else check_integer(max_epochs, "max_epochs", 1),
        max_seconds=math.inf if max_seconds is None else check_real(max_seconds, "max_seconds", strict=True),
        seed=check_seed(given["seed"]),
        callback=callback,
    )
