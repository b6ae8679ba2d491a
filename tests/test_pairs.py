"""Ranking by pairs (loss="bpr"): the step against the oracle and differences, whole fits, new rows."""

import numpy as np
import pytest
import reference
from sweeping import LR, REG, TOLERANCE, draw

import fastfactor as ff
from fastfactor.kernels.rivals import TRIES, Rivals, draw_rival
from fastfactor.kernels.update import Step, update_pair
from fastfactor.matrix.pairs import PairGrid
from fastfactor.matrix.positives import Positives, store_rows
from fastfactor.solvers.sgd import compute_shrink

BPR = {"unobserved": "weak", "loss": "bpr"}
QUICK = {**BPR, "regularization": 0.01, "max_epochs": 5}


def lay_out(X, dtype, weights=None):
    ones = np.ones(X.nnz)
    stored = store_rows(X.indptr.astype(np.int64), X.indices, ones, weights, dtype)
    return PairGrid.of(Positives.of(stored, X.shape[1]), seed=5)


def sweep(grid, factors, static, diagonals, prox=None, pace=None):
    real = factors.U.dtype.type
    losses = np.zeros((grid.n_stripes, grid.n_stripes))
    paces = (None, None) if pace is None else tuple(side.astype(real) for side in pace)
    rates = (LR, LR) if pace is None else (LR * pace[0], LR * pace[1])
    shrink = (compute_shrink(lr, reg, real) for lr, reg in zip(rates, REG, strict=True))
    scaled = None if prox is None else np.array([LR * prox[0], LR * prox[1], *prox[2:]], real)
    grid.sweep(factors, diagonals, losses, Step(real(LR), *shrink, None, scaled, *paces), static)
    return losses.sum()


@pytest.mark.parametrize(
    ("rank", "dtype", "extra"),
    [
        (13, "float32", None),
        (16, "float32", "weights"),
        (16, "float64", "prox"),
        (16, "float64", "pace"),
        (144, "float32", None),
    ],
)
def test_sweep_equals_the_oracle(tastes, rank, dtype, extra):
    X, rng = tastes[:40], np.random.default_rng(1)
    weights = rng.random(X.nnz) * 2 if extra == "weights" else None
    prox = (0.1, 0.05, 0.0, -np.inf) if extra == "prox" else None
    pace = (rng.random(40), rng.random(90)) if extra == "pace" else None
    grid = lay_out(X, dtype, weights)
    factors, static = draw(X.shape, rank, dtype, False, "bpr")
    diagonals = rng.permutation(grid.n_stripes)
    grid.begin_epoch(3, diagonals)
    places = grid.row_order, grid.col_order, grid.blocks.row_starts, grid.blocks.col_starts
    seen = np.ones(X.nnz) if weights is None else weights / weights.mean()
    visits = reference.visit_pairs(*X.nonzero(), seen, places, diagonals, int(grid.drawn[0]))
    U, V, loss = reference.sweep_pairs(factors.U, factors.V, visits, LR, REG, prox, pace)
    got = sweep(grid, factors, static, diagonals, prox, pace)
    assert len(visits) == X.nnz
    for mine, wanted in ((factors.U, U), (factors.V, V), (got, loss)):
        np.testing.assert_allclose(mine, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_step_is_the_gradient_of_the_objective():
    factors, static = draw((3, 4), 5, "float64", False, "bpr")

    def objective():
        p = factors.U[1] @ (factors.V[0] - factors.V[2])
        sizes = REG[0] * (factors.U[1] ** 2).sum() + REG[1] * (factors.V[[0, 2]] ** 2).sum()
        return np.log(1 + np.exp(-p)) + sizes / 2

    wanted = [reference.gradient(objective, M) for M in (factors.U, factors.V)]
    before = [M.copy() for M in (factors.U, factors.V)]
    value = objective() - (REG[0] * (before[0][1] ** 2).sum() + REG[1] * (before[1][[0, 2]] ** 2).sum()) / 2
    step = Step(LR, *(1 - LR * reg for reg in REG))
    assert update_pair(factors, 1, 0, 2, 1.0, step, static) == pytest.approx(value)
    for old, new, slope in zip(before, (factors.U, factors.V), wanted, strict=True):
        np.testing.assert_allclose((old - new) / LR, slope, rtol=1e-6, atol=1e-8)


def test_rivals_are_uniform_over_what_a_row_has_not():
    names, has = np.array([3, 0, 4, 1, 2]), np.array([0, 2, 4])  # of the columns 0, 2 and 4 the positions are 1, 4, 2
    rivals = Rivals(np.uint64(7), names, has, np.array([0, 0]), np.array([3, 0]))
    drawn = np.array([[draw_rival(rivals, i, r) for i in range(3000)] for r in (0, 1)])
    found = drawn[0][drawn[0] >= 0]
    assert set(found) == {0, 3}
    assert len(found) == pytest.approx(3000 * (1 - 0.6**TRIES), rel=0.02)
    for numbers, n in ((found, 2), (drawn[1], 5)):
        counts = np.bincount(numbers, minlength=5)
        np.testing.assert_allclose(counts[counts > 0], len(numbers) / n, rtol=0.1)
    full = Rivals(np.uint64(7), names, np.arange(5), np.array([0]), np.array([5]))
    assert draw_rival(full, 0, 0) == -1


# --- whole fits


def recall(model, train, test):
    return ff.metrics.recall_at_k(model.recommend(np.arange(train.shape[0]), 10, exclude=train)[0], test, 10)


def test_hidden_positives_are_found(tastes):
    train, test = ff.model_selection.random_split(tastes, 0.2)
    model = ff.fit(train, 8, **BPR)
    popular = np.tile(np.argsort(-train.sum(axis=0), kind="stable")[:10], (150, 1))
    assert recall(model, train, test) > 1.4 * ff.metrics.recall_at_k(popular, test, 10)
    trials = model.selection["trials"]
    best = max(trials, key=lambda trial: trial["validation_gain"])
    assert len(trials) >= 3
    assert model.selection["regularization"] == (best["regularization"], best["regularization"])
    assert model.loss == "bpr"
    assert model.history["train_loss"][-1] < 0.8 * model.history["train_loss"][0]  # of other pairs in each epoch
    assert ff.fit(train, 8, validation=False, **BPR).selection["trials"] == []


def test_bits_follow_from_the_seed_alone(tastes):
    one, two = (ff.fit(tastes, 8, n_threads=n, **QUICK) for n in (1, 2))
    np.testing.assert_array_equal(one.U, two.U)
    np.testing.assert_array_equal(one.V, two.V)
    assert not np.array_equal(ff.fit(tastes, 8, seed=1, **QUICK).V, one.V)
    rows, cols = tastes.nonzero()
    order = np.random.default_rng(2).permutation(len(rows))
    triplets = rows[order], cols[order], np.arange(1, len(rows) + 1)
    np.testing.assert_array_equal(ff.fit(triplets, 8, shape=tastes.shape, **QUICK).U, one.U)


def test_equal_weights_multiply_the_loss_and_not_the_penalty(tastes):
    base, ones = ff.fit(tastes, 8, **QUICK), np.full(tastes.shape, 4.0)
    weighted = ff.fit(tastes, 8, sample_weight=ones, **QUICK | {"regularization": 0.04})
    np.testing.assert_allclose(weighted.U, base.U, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weighted.history["train_loss"], 4 * base.history["train_loss"], rtol=1e-5)


def test_new_rows_rank_as_the_old_ones(tastes, tmp_path):
    train, test = ff.model_selection.random_split(tastes, 0.2)
    model = ff.fit(train, 8, regularization=0.01, **BPR)
    assert recall(model.fold_in(train), train, test) > 0.8 * recall(model, train, test)
    model.save(tmp_path)
    np.testing.assert_array_equal(ff.load(tmp_path).transform(train), model.transform(train))
    more = model.partial_fit(train)
    assert recall(more, train, test) > 0.8 * recall(model, train, test)


@pytest.mark.parametrize("X", [np.ones((1, 1)), np.ones((6, 5)), np.eye(30), np.eye(3, 40)])
def test_odd_matrices_give_finite_models(X):
    for regularization in ("auto", 100.0):
        model = ff.fit(X, 8, regularization=regularization, **BPR)
        assert np.isfinite(model.reconstruct()).all()


def test_callback_time_and_signs(tastes):
    seen = []
    model = ff.fit(tastes, 8, callback=lambda epoch: seen.append(epoch.epoch) or epoch.epoch == 3, **QUICK)
    assert seen == model.history["epoch"].tolist() == [1, 2, 3]
    assert len(ff.fit(tastes, 8, max_seconds=1e-9, **QUICK).history["epoch"]) == 0
    assert ff.fit(tastes, 8, nonnegative=True, learning_rate=0.1, **QUICK).U.min() == 0


WITHOUT_COMPILER = """
import numpy as np, fastfactor as ff
X = np.random.default_rng(0).random((25, 12)) < 0.3
model = ff.fit(X, 3, unobserved="weak", loss="bpr", max_epochs=2, regularization=0.01)
print(repr(model.history["train_loss"].tolist()))
"""


def test_fit_without_compiler_is_the_same_fit(python):
    compiled, plain = (eval(python(WITHOUT_COMPILER, env={"NUMBA_DISABLE_JIT": flag})) for flag in ("0", "1"))
    assert plain == pytest.approx(compiled, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unobserved": "missing"}, "loss='bpr' goes with unobserved='weak', not with 'missing'"),
        ({"unobserved": "zero"}, "loss='bpr' goes with unobserved='weak', not with 'zero'"),
        ({"unobserved_weight": 0.1}, "unobserved_weight must be None where loss='bpr', got 0.1"),
        ({"biases": True}, "biases must be False where unobserved='weak', got True"),
    ],
)
def test_what_cannot_be_is_named(tastes, arguments, message):
    with pytest.raises(ValueError, match=message):
        ff.fit(tastes, 8, **BPR | arguments)
