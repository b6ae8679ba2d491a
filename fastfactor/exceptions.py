"""Warnings that callers may want to filter or turn into errors."""


class ConvergenceWarning(UserWarning):
    """A result is returned, but it is not as accurate as was asked for."""
