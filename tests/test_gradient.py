"""The step of the kernels goes down the gradient of J, found by finite differences; complex ones included."""

import numpy as np
import pytest
import reference
from sweeping import draw, make_dense, make_triplets

from fastfactor.kernels.update import Step
from fastfactor.matrix.grid import DenseGrid, Making, build_grid
from fastfactor.matrix.inputs import as_observations

TINY = 1e-7  # step size at which the steps on all entries add up to the full gradient
REG = (0.3, 0.7)
SHAPE = (6, 5)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("problem", ["missing", "zero"])
def test_sweep_descends_along_the_gradient(problem, dtype):
    biases = problem == "missing"
    if biases:
        entries = make_triplets(dtype, SHAPE)
        grid = build_grid(as_observations(entries, shape=SHAPE), Making(0.0, 1.0, np.dtype(dtype), 0))
        rows, cols = np.argsort(grid.row_order)[entries[0]], np.argsort(grid.col_order)[entries[1]]
        entries = list(zip(rows, cols, entries[2], strict=True))
    else:
        A = make_dense(dtype, SHAPE)
        grid = DenseGrid.of(A)
        entries = [(r, c, A[r, c]) for r, c in np.ndindex(SHAPE)]
    factors, static = draw(SHAPE, 16, dtype, biases)
    names = ("U", "V", "row_bias", "col_bias") if biases else ("U", "V")
    before = [M.copy() for M in factors]
    expected = {
        name: reference.gradient(lambda: reference.objective(*before, entries, REG, biases), M)
        for name, M in zip(factors._fields, before, strict=True)
        if name in names
    }
    losses = np.zeros((grid.n_stripes, grid.n_stripes))
    step = Step(TINY, 1 - TINY * REG[0], 1 - TINY * REG[1])
    grid.sweep(factors, np.arange(grid.n_stripes), losses, step, static)
    for name, old in zip(factors._fields, before, strict=True):
        if name in names:
            descent = (getattr(factors, name) - old) / TINY
            np.testing.assert_allclose(descent, -expected[name], rtol=1e-4, atol=1e-4)
    assert max(np.abs(g).max() for g in expected.values()) > 0.1  # there was something to compare
