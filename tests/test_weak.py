"""Implicit feedback: every row's problem against its solution written out, whole fits against the objective."""

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.kernels.ridge import N_SCRATCH, Ridge, solve_rows
from fastfactor.kernels.simd import Static
from fastfactor.matrix.positives import store_rows, transpose_rows
from fastfactor.solvers.memory import choose_spec
from fastfactor.threads import launch

PLAIN = {"unobserved": "weak", "unobserved_weight": 0.1, "regularization": 0.02, "dtype": "float64"}


def weigh(X, others, weights=None):
    """The weight of every entry, and the target, as dense arrays."""
    stored = X.toarray() > 0
    own = np.ones(X.shape) if weights is None else weights
    return np.where(stored, own, others), stored.astype(float)


# --- the kernel


@pytest.mark.parametrize(("rank", "dtype"), [(5, "float32"), (13, "float64"), (144, "float64")])
@pytest.mark.parametrize("others", [0.0, 0.2])
def test_rows_solve_their_ridge_problem(rng, rank, dtype, others):
    n_rows, n_cols = 23, 200
    x = np.where(rng.random((n_rows, n_cols)) < 0.1, rng.random((n_rows, n_cols)), 0.0)
    x[3] = 0
    X = sp.csr_array(x)
    spec, width = choose_spec(rank, biases=False)
    U, V = np.zeros((n_rows, width), dtype), np.zeros((n_cols, width), dtype)
    V[:, :rank] = np.linalg.qr(rng.standard_normal((n_cols, rank)))[0] * (1 + rng.random(rank))
    U[:, :rank] = rng.standard_normal((n_rows, rank))
    weights, reg = rng.random(X.nnz) + 0.5, rng.random(n_rows) + 0.3
    real = np.dtype(dtype).type
    stored = store_rows(X.indptr.astype(np.int64), X.indices, X.data, weights, dtype)
    ridge = Ridge((V**2).sum(axis=0), reg.astype(dtype), real(others), real(0), real(1e-30))
    n_slices = len(stored.starts) - 1
    scratch, losses = np.zeros((n_slices, N_SCRATCH, width), dtype), np.zeros(n_slices)
    before = U.astype(float)
    launch(solve_rows, U, V, stored, ridge, 80, scratch, np.empty(X.nnz, dtype), losses, Static(spec))
    W = np.full(X.shape, others)
    W[x > 0] = weights
    W64 = V.astype(float)
    for r in range(n_rows):
        left = (W64.T * W[r]) @ W64 + reg[r] * np.eye(width)
        np.testing.assert_allclose(U[r], np.linalg.solve(left, W64.T @ (W[r] * x[r])), rtol=1e-3, atol=1e-5)
    p = before @ W64.T
    seen = x > 0
    np.testing.assert_allclose(losses.sum(), (W * ((x - p) ** 2 - x**2) - others * p**2)[seen].sum(), rtol=1e-4)


def test_transposing_keeps_entries(tastes):
    stored = store_rows(tastes.indptr.astype(np.int64), tastes.indices, np.arange(tastes.nnz), None, "float64")
    by_col = transpose_rows(stored, tastes.shape[1])
    wanted = sp.csr_array((np.arange(tastes.nnz), tastes.indices, tastes.indptr), shape=tastes.shape).T.tocsr()
    np.testing.assert_array_equal(by_col.indptr, wanted.indptr)
    np.testing.assert_array_equal(by_col.indices, wanted.indices)
    np.testing.assert_array_equal(by_col.targets, wanted.data)
    assert by_col.starts[0] == 0
    assert by_col.starts[-1] == tastes.shape[1]


# --- whole fits


@pytest.mark.parametrize("weighted", [False, True])
def test_fit_ends_where_the_gradient_is_zero(tastes, weighted):
    own = np.random.default_rng(1).random(tastes.shape) + 0.5 if weighted else None
    model = ff.fit(tastes, 3, max_epochs=400, sample_weight=own, **PLAIN)
    W, x = weigh(tastes, 0.1, own)
    e = W * (x - model.U @ model.V.T)
    left = e @ model.V - 0.02 * W.sum(axis=1)[:, None] * model.U
    right = e.T @ model.U - 0.02 * W.sum(axis=0)[:, None] * model.V
    assert np.abs(left).max() < 1e-4 * np.abs(e @ model.V).max()
    assert np.abs(right).max() < 1e-4 * np.abs(e.T @ model.U).max()
    expected = (W * (x - model.U @ model.V.T) ** 2).sum() / W.sum()
    np.testing.assert_allclose(model.history["train_loss"][-1], expected, rtol=1e-6)


def test_zeros_of_full_weight_give_the_truncated_svd(tastes):
    model = ff.fit(tastes, 3, unobserved="weak", unobserved_weight=1.0, regularization=0.0, max_epochs=200)
    u, s, vt = np.linalg.svd(tastes.toarray())
    np.testing.assert_allclose(model.reconstruct(), (u[:, :3] * s[:3]) @ vt[:3], atol=2e-3)


def test_values_do_not_matter_and_formats_are_one(tastes):
    rows, cols = tastes.nonzero()
    order = np.random.default_rng(2).permutation(len(rows))
    triplets = rows[order], cols[order], np.arange(1, len(rows) + 1)
    wanted = ff.fit(tastes, 8, max_epochs=3, **PLAIN).reconstruct()
    for X in (tastes.toarray(), tastes.tocsc(), tastes.tocoo(), triplets, 7 * tastes):
        shape = tastes.shape if isinstance(X, tuple) else None
        got = ff.fit(X, 8, max_epochs=3, shape=shape, **PLAIN)
        np.testing.assert_array_equal(got.reconstruct(), wanted)


def test_bits_do_not_depend_on_threads(tastes):
    one, two = (ff.fit(tastes, 8, unobserved="weak", n_threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.U, two.U)
    np.testing.assert_array_equal(one.V, two.V)
    assert one.selection == two.selection
    assert not np.array_equal(ff.fit(tastes, 8, unobserved="weak", seed=1).V, one.V)


def test_what_is_open_is_chosen_by_held_out_positives(tastes):
    train, test = ff.model_selection.random_split(tastes, 0.2)
    model = ff.fit(train, 8, unobserved="weak")
    lists, _ = model.recommend(np.arange(150), 10, exclude=train)
    popular = np.tile(np.argsort(-train.sum(axis=0), kind="stable")[:10], (150, 1))
    assert ff.metrics.recall_at_k(lists, test, 10) > 1.4 * ff.metrics.recall_at_k(popular, test, 10)
    trials = model.selection["trials"]
    assert len({(t["unobserved_weight"], t["regularization"]) for t in trials}) == len(trials) >= 4
    best = max(trials, key=lambda trial: trial["validation_gain"])
    for name in ("unobserved_weight", "regularization"):
        assert model.selection[name] == best[name]
    half = ff.fit(train, 8, unobserved="weak", unobserved_weight=0.3)
    assert {trial["unobserved_weight"] for trial in half.selection["trials"]} == {0.3}
    plain = ff.fit(train, 8, unobserved="weak", validation=False)
    assert plain.selection["trials"] == []
    assert plain.selection["unobserved_weight"] == pytest.approx(10 * train.nnz / (150 * 90), abs=0.5)


def test_history_callback_time_and_start(tastes, tmp_path):
    seen = []
    model = ff.fit(tastes, 8, callback=lambda epoch: seen.append(epoch.epoch) or epoch.epoch == 4, **PLAIN)
    assert seen == model.history["epoch"].tolist() == [1, 2, 3, 4]
    assert (np.diff(model.history["train_loss"]) < 0).all()
    assert np.isnan(model.history["learning_rate"]).all()
    model.save(tmp_path)
    np.testing.assert_array_equal(ff.load(tmp_path).reconstruct(), model.reconstruct())
    more = sp.csr_array((tastes.data, tastes.indices, np.append(tastes.indptr, tastes.nnz)), shape=(151, 90))
    warm = ff.fit(more, 8, init=model, max_epochs=2, **PLAIN)
    assert warm.history["train_loss"][0] < model.history["train_loss"][2]
    assert np.abs(warm.U[150]).max() < 1e-3  # a row that has nothing
    short = ff.fit(tastes, 8, max_seconds=1e-9, **PLAIN)
    assert len(short.history["epoch"]) == 0
    assert np.isfinite(short.reconstruct()).all()


@pytest.mark.parametrize("X", [np.ones((1, 1)), np.ones((6, 5)), np.eye(30), np.eye(3, 40)])
def test_odd_matrices_give_finite_models(X):
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        for regularization in ("auto", 0.0, 100.0):
            model = ff.fit(X, 8, unobserved="weak", regularization=regularization)
            assert np.isfinite(model.reconstruct()).all()


# --- judged by positives that the caller holds out


@pytest.mark.parametrize("own", [{"unobserved_weight": 0.1}, {"loss": "bpr"}], ids=["squared", "bpr"])
def test_validation_keeps_the_best_epoch(tastes, own):
    train, test = ff.model_selection.random_split(tastes, 0.2)
    plain = {"unobserved": "weak", "regularization": 1e-4, "max_epochs": 30, **own}
    model = ff.fit(train, 8, validation=test, **plain)
    rows = np.flatnonzero(np.diff(test.indptr))
    lists, _ = model.recommend(rows, 20, exclude=train)
    missed = model.history["validation_loss"]
    assert 1 - ff.metrics.ndcg_at_k(lists, test[rows], 20) == pytest.approx(missed.min(), abs=1e-6)
    assert len(missed) == min(30, np.argmin(missed) + 6)
    assert model.selection["trials"] == []
    triplets = *test.nonzero(), test.data
    again = ff.fit(train, 8, validation=triplets, **plain)
    np.testing.assert_array_equal(again.history["validation_loss"], missed)


def test_validation_chooses_what_is_open(tastes):
    model = ff.fit(tastes, 8, unobserved="weak", validation=0.3)
    assert len(model.selection["trials"]) > 3
    assert np.isfinite(model.history["validation_loss"]).all()


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (1.5, "validation must be a share below 1, got 1.5"),
        (1e-9, "validation=1e-09 holds out 0 of the"),
        (np.ones((2, 3)), r"validation has shape \(2, 3\), X has \(150, 90\)"),
        (np.ones((150, 90)), r"validation\[0, [0-9]+\] is stored in X too"),
        (np.eye(150, 90, k=1) - np.eye(150, 90), r"validation\[0, 0\] is -1.0"),
    ],
)
def test_bad_validation_is_named(tastes, validation, message):
    with pytest.raises(ValueError, match=message):
        ff.fit(tastes, 8, unobserved="weak", validation=validation)


# --- other machines, real data


WITHOUT_COMPILER = """
import numpy as np, fastfactor as ff
X = np.random.default_rng(0).random((25, 12)) < 0.3
model = ff.fit(X, 3, unobserved="weak", max_epochs=2)
print(repr([model.history["train_loss"].tolist(), model.selection["unobserved_weight"]]))
"""


def test_fit_without_compiler_is_the_same_fit(python):
    compiled, plain = (eval(python(WITHOUT_COMPILER, env={"NUMBA_DISABLE_JIT": flag})) for flag in ("0", "1"))
    assert plain[0] == pytest.approx(compiled[0], rel=1e-4)
    assert plain[1] == compiled[1]


def test_gowalla(data):
    train, test = data.load("gowalla").tocsr(), data.load("gowalla-test").tocsr()
    model = ff.fit(train, rank=64, unobserved="weak")
    lists, _ = model.recommend(np.arange(train.shape[0]), 20, exclude=train)
    assert ff.metrics.recall_at_k(lists, test, 20) >= 0.145
    assert ff.metrics.ndcg_at_k(lists, test, 20) >= 0.124
