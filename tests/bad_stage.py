"""What a call in bad_calls.py stands on: the case, what the function may refuse, and the looks at an answer."""

import warnings

import numpy as np
from bad_matrices import draw_case, snapshot


class Fault(AssertionError):
    """What must not be."""


class Stage:
    """One case: the functions below draw what they need from it."""

    def __init__(self, number, is_wide, folder):
        self.rng = np.random.default_rng(number)
        self.is_wide, self.folder = is_wide, folder
        self.must_work = True
        self.case = None

    def draw(self, needs_all=False):
        """Return a matrix. What it holds is compared with what it held afterwards."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.case = draw_case(self.rng, needs_all)
        self.before = snapshot(self.case.X)
        return self.case.X

    def need(self, *without):
        """Say which traits the function may refuse."""
        self.must_work = self.must_work and not (self.case.traits & set(without))


def check_finite(*arrays):
    for array in arrays:
        if not np.isfinite(array).all():
            raise Fault("not finite in silence")


def check_model(model, shape, rank):
    if model.U.shape != (shape[0], rank) or model.V.shape != (shape[1], rank):
        raise Fault(f"factors {model.U.shape} and {model.V.shape} for {shape}")
    check_finite(model.U, model.V, model.mean, model.row_bias, model.col_bias)
    with np.errstate(over="ignore", invalid="ignore"):  # values near the end of their range overflow in products
        model.predict(0, 0)
