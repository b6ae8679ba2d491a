"""New rows against columns that do not move: exactly where that is a ridge problem, else by descent on each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fastfactor.blas import aligned_empty, one_blas_thread
from fastfactor.kernels.folding import fold_rows
from fastfactor.kernels.losses import find_traits, register_loss
from fastfactor.kernels.ridge import N_SCRATCH, Ridge, Stored, solve_rows
from fastfactor.kernels.rivals import Rivals
from fastfactor.kernels.simd import Static
from fastfactor.kernels.update import Factors
from fastfactor.matrix.domains import check_domain, check_labels, locate_in
from fastfactor.matrix.inputs import Observations, as_dense, as_observations, is_sparse, without_ids
from fastfactor.matrix.labelled import Labelled
from fastfactor.matrix.positives import Positives, as_positives, store_rows
from fastfactor.matrix.structure import as_index, check_structure
from fastfactor.model import Factorization
from fastfactor.options import refuse_sampled
from fastfactor.solvers.memory import choose_spec
from fastfactor.solvers.recipe import Recipe
from fastfactor.threads import launch, using_threads

Array = NDArray[Any]

_RATES = 0.1 * (1.0 - np.arange(2000) / 2000) ** 2  # of descent, for standardised values
_UPDATES = (60, 2000, 20_000)  # of a row: see kernels/folding.py
_LARGEST = 1e150  # value of a new row
_TOLERANCE = 1e-26  # of the squared residual, over the first


def fold_in(model: Factorization, X: Any, n_threads: int | None = None) -> Factorization:
    """Return a model of the rows of `X` beside the model's columns; see `Factorization.fold_in`."""
    refuse_sampled(model, "fold_in")
    recipe = Recipe.read(model.recipe, bool(model.row_bias.any() or model.col_bias.any()))
    fold = _Fold(model, recipe)
    matrix, shape = without_ids(X, None)
    observed = fold.read(matrix, shape)
    if observed.shape[1] != model.shape[1]:
        raise ValueError(f"X_new has {observed.shape[1]} columns, the model has {model.shape[1]}")
    own, new = model.col_labels, X.col_labels if isinstance(X, Labelled) else None
    if own is not None and new is not None and not new.begins_with(own):
        raise ValueError("X_new has other column ids than the model, or in another order: read it with like=model")
    if observed.data.dtype.kind == "c" and model.U.dtype.kind != "c":
        raise TypeError("X_new is complex, the model is real")
    with using_threads(n_threads), np.errstate(over="ignore", invalid="ignore"):
        U, row_bias = fold.solve(observed) if fold.is_ridge else fold.descend(observed)
    if not (np.isfinite(U).all() and np.isfinite(row_bias).all() and fold.is_in_range(observed)):
        raise ValueError(f"X_new has values whose factors are out of the range of dtype {U.dtype}")
    labels = X.row_labels if isinstance(X, Labelled) else None
    return replace(model, U=U, row_bias=row_bias, row_labels=labels, history={}, selection={})


@dataclass(frozen=True)
class _Fold:
    """A model, and how its new rows are fitted."""

    model: Factorization
    recipe: Recipe

    @property
    def loss(self) -> str:
        """The name by which a `Spec` knows the loss."""
        return self.model.loss if isinstance(self.model.loss, str) else register_loss(self.model.loss)

    @property
    def is_ridge(self) -> bool:
        """Whether a row's problem is a ridge problem of real numbers."""
        is_real = self.model.U.dtype.kind != "c"
        return self.loss == "squared" and is_real and not self.has_prox

    @property
    def has_prox(self) -> bool:
        """Whether rows have an L1 penalty, or signs."""
        return self.recipe.l1 > 0 or self.recipe.nonnegative[0]

    @property
    def has_zeros(self) -> bool:
        """Whether the zeros are never visited: they are all alike where there are no offsets."""
        return self.recipe.unobserved == "weak" or (
            self.recipe.unobserved == "zero" and self.is_ridge and not self.recipe.biases
        )

    @staticmethod
    def is_in_range(X: Observations) -> bool:
        """Whether the squares of the values are numbers: conjugate gradients make zeros of others."""
        values = X.data[: X.n_entries]
        return max(abs(float(values.real.max())), abs(float(values.real.min()))) < _LARGEST

    def read(self, X: Any, shape: Any) -> Observations:
        """Return the entries of new rows that count, but for the zeros where these are not visited."""
        if isinstance(X, tuple) and shape is None and len(X) == 3 and len(rows := as_index(X[0], "X_new: rows")):
            shape = max(int(rows.max()), 0) + 1, self.model.shape[1]
        if self.recipe.unobserved == "weak":
            return as_positives(X, shape, "error", "X_new")
        if self.recipe.unobserved == "zero":
            if not (is_sparse(X) and self.has_zeros):
                X = as_dense(X, shape=shape, name="X_new")
            if self.has_zeros:
                X = sp.csr_array(check_structure(X, "X_new") if is_sparse(X) else X)
            return as_observations(X, duplicates="sum", name="X_new")
        return as_observations(X, shape=shape, name="X_new")

    def standardise(self, X: Observations) -> Array:
        """Return the values in the units of the fit, having checked that the loss is defined for them."""
        values, domain, recipe = X.data[: X.n_entries], find_traits(self.loss).domain, self.recipe
        if recipe.unobserved == "weak":
            return np.ones(X.n_entries)
        if domain == "binary":
            check_labels(recipe.labels, values, locate_in(X), "X_new")
        elif self.loss != "squared":
            check_domain(domain, values, locate_in(X), "X_new")
        return np.asarray((values - recipe.labels[0]) / recipe.labels[1])

    def penalise(self, X: Observations) -> NDArray[np.float64]:
        """Return the L2 penalty per entry of each row, in the units of the fit."""
        return self.recipe.penalise(np.diff(X.indptr))

    def solve(self, X: Observations) -> tuple[Array, Array]:
        """Return factors and offsets of the rows, by conjugate gradients in double precision."""
        model, scale, rank = self.model, self.recipe.scale, self.model.rank
        others = self.recipe.others if self.recipe.unobserved == "weak" else float(self.has_zeros)
        columns = [model.V.astype(np.float64) / scale**0.5]
        values = self.standardise(X) - model.col_bias[X.indices[: X.n_entries]] / scale
        if self.recipe.biases:
            columns.append(np.ones((model.shape[1], 1)))
        V = np.hstack(columns)
        if not np.isfinite(V).all():
            raise ValueError("the model's V holds NaN or infinity: it is damaged")
        curvature, Q = np.linalg.eigh(V.T @ V)
        spec, width = choose_spec(V.shape[1], biases=False)
        turned, U = (aligned_empty((n, width), np.float64) for n in (len(V), X.shape[0]))
        turned[:, V.shape[1] :] = U[:] = 0
        with one_blas_thread():
            np.matmul(V, Q, out=turned[:, : V.shape[1]])
        counts = np.diff(X.indptr)
        reg = self.penalise(X) * (counts + others * (X.shape[1] - counts))
        diagonal = np.pad(np.maximum(curvature, 0), (0, width - V.shape[1]))
        ridge = Ridge(diagonal, reg, others, _TOLERANCE, np.finfo(np.float64).tiny * 1e8)
        stored = store_rows(X.indptr, X.indices, values, None, np.float64)
        _launch_solve(U, turned, stored, ridge, Static(spec))
        solution = U[:, : V.shape[1]] @ Q.T
        offsets = solution[:, rank] * scale if self.recipe.biases else np.zeros(len(U))
        return (solution[:, :rank] * scale**0.5).astype(model.U.dtype), offsets.astype(model.U.dtype)

    def descend(self, X: Observations) -> tuple[Array, Array]:
        """Return factors and offsets of the rows, by many small steps on their entries."""
        model, recipe, dtype = self.model, self.recipe, self.model.U.dtype
        real = model.U.real.dtype
        spec, width = choose_spec(model.rank, biases=recipe.biases, loss=self.loss)
        U, V = (aligned_empty((n, width), dtype) for n in (X.shape[0], model.shape[1]))
        U[:] = V[:] = 0
        V[:, : model.rank] = model.V / real.type(recipe.scale**0.5)
        factors = Factors(U, V, np.zeros(len(U), dtype), (model.col_bias / real.type(recipe.scale)).astype(dtype))
        stored = store_rows(X.indptr, X.indices, self.standardise(X), None, dtype)
        squares = (np.abs(V) ** 2).sum(axis=1) + recipe.biases
        place = None if recipe.place is None else np.array(recipe.place, real)
        proxes = None
        if self.has_prox:
            least = 0.0 if recipe.nonnegative[0] else -np.inf
            proxes = np.tile([0.0, 0.0, least, -np.inf], (len(_RATES), 1))
            proxes[:, 0] = recipe.l1 * _RATES
        schedule = _RATES.astype(real), None if proxes is None else proxes.astype(real)
        reg = self.penalise(X).astype(real)
        problem = reg, squares.astype(real), _UPDATES, schedule, place, Static(spec)
        rivals = None
        if find_traits(self.loss).pairs:
            stored = Positives.of(stored, len(V)).sides[0]  # columns ascending
            rivals = Rivals(np.uint64(0), np.arange(len(V)), stored.indices, stored.indptr[:-1], stored.indptr[1:])
        launch(fold_rows, factors, stored, rivals, *problem)
        scale = real.type(recipe.scale)
        return np.ascontiguousarray(U[:, : model.rank]) * scale ** real.type(0.5), factors.row_bias * scale


def _launch_solve(U: Array, V: Array, stored: Stored, ridge: Ridge, static: Static) -> None:
    """Solve each row to the end: in as many steps as there are numbers, and some for rounding."""
    n_slices, width = len(stored.starts) - 1, U.shape[1]
    scratch, probes = np.zeros((n_slices, N_SCRATCH, width)), np.empty(len(stored.indices))
    launch(solve_rows, U, V, stored, ridge, 2 * width + 20, scratch, probes, np.zeros(n_slices), static)
