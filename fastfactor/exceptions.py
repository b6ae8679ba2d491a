"""Warnings and errors of fastfactor's own."""

from __future__ import annotations

import os
import sys
import warnings

_PACKAGE = os.path.dirname(__file__) + os.sep


class ConvergenceWarning(UserWarning):
    """A result is less exact than was asked for; the message says by how much."""


class DivergenceError(ArithmeticError):
    """A fit grew without bound, also after its step was halved repeatedly; the message names epoch and step."""


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called this package, however many calls lie between."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
