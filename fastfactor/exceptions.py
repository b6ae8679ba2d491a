"""Warnings and errors of fastfactor's own."""

from __future__ import annotations


class ConvergenceWarning(UserWarning):
    """A result is less exact than was asked for; the message says by how much."""


class DivergenceError(ArithmeticError):
    """A fit grew without bound, also after its step was halved repeatedly; the message names epoch and step."""
