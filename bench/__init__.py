"""The benchmark: `python -m bench`."""


class UnknownNameError(ValueError):
    """Nothing has the name that was given; the message says what there is, and ends the command line with code 2."""
