"""Posterior averaging: the draws against a NumPy oracle, and what the averaged model says of its errors."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.kernels.posterior import CHUNKS, Conditional, draw_normals, draw_side
from fastfactor.kernels.simd import Static
from fastfactor.solvers.averaging import Average
from fastfactor.solvers.sampling import Sample, Side, draw_prior

NOISE = 0.5


@pytest.fixture(scope="module")
def truth():
    """A noisy matrix of rank 3; the last rows have two entries in the training part, the others many."""
    rng = np.random.default_rng(3)
    clean = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 80)) / np.sqrt(3)
    clean += 0.5 * rng.standard_normal((200, 1)) + 10.0
    seen = rng.random(clean.shape) < 0.3
    seen[180:, 2:] = False
    noisy = clean + NOISE * rng.standard_normal(clean.shape)
    return clean, noisy, seen


@pytest.fixture(scope="module")
def matrix(truth):
    _, noisy, seen = truth
    rows, cols = np.nonzero(seen)
    return sp.csr_array((noisy[rows, cols], (rows, cols)), shape=noisy.shape)


@pytest.fixture(scope="module")
def model(matrix):
    return ff.fit(matrix, rank=6, posterior_samples=30)


def test_draws_have_the_exact_conditional_distribution():
    """Means and covariances of many equal rows; rows of few entries and of many take different roads."""
    rng = np.random.default_rng(0)
    size, width, n_others, copies = 5, 16, 40, 4000
    W = np.zeros((n_others, width), np.float32)
    W[:, :size] = rng.standard_normal((n_others, size)) / 2
    offsets, other = rng.standard_normal(n_others).astype(np.float32), rng.uniform(0.5, 2, n_others).astype(np.float32)
    for m in (0, 3, 30):
        cols = rng.permutation(n_others)[:m].astype(np.int32)
        x = rng.standard_normal(m).astype(np.float32)
        prior = np.zeros((copies, width), np.float32)
        prior[:, :size] = rng.standard_normal(size)
        own = np.full(copies, 1.7, np.float32)
        indptr, starts = np.arange(copies + 1) * m, np.array([0, copies // 2, copies])
        own_units, units = np.full(copies, 0.8, np.float32), rng.uniform(0.5, 2, n_others).astype(np.float32)
        known = indptr, np.tile(cols, copies), np.tile(x, copies), starts
        given = Conditional(*known, W, offsets, own, other, own_units, units)
        x = 0.8 * x * units[cols]
        Z, means = np.zeros_like(prior), np.zeros_like(prior)
        draw_side(given, prior, size, np.uint64(11), Z, means, Static(CHUNKS))

        A, p = W[cols, :size].astype(float), 1.7 * other[cols]
        covariance = np.linalg.inv(np.eye(size) + (A * p[:, None]).T @ A)
        start = prior[0, :size].astype(float)
        mean = start + covariance @ (A.T @ (p * (x - offsets[cols] - A @ start)))
        draws = Z[:, :size].astype(float)
        np.testing.assert_allclose(means[:, :size], np.tile(mean, (copies, 1)), atol=1e-5)
        root = np.linalg.cholesky(np.linalg.inv(covariance))
        white = (draws - mean) @ root
        assert np.abs(white.mean(axis=0)).max() < 4 / np.sqrt(copies)
        assert np.abs(white.T @ white / copies - np.eye(size)).max() < 6 / np.sqrt(copies)
        assert not Z[:, size:].any()


def test_normals_are_normal_and_depend_on_the_seed():
    first, again, other = (np.empty(100_001) for _ in range(3))
    for seed, out in ((1, first), (1, again), (2, other)):
        draw_normals(np.uint64(seed), len(out), out)
    assert (first == again).all()
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.02
    moments = [np.mean(first**k) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.1)
    assert abs(np.mean(np.abs(first) < 1.96) - 0.95) < 0.005


def test_mean_of_samples_is_better_than_one_fit(truth, matrix, model):
    clean, _, seen = truth
    errors = [np.sqrt(np.mean((m.reconstruct() - clean)[~seen] ** 2)) for m in (model, ff.fit(matrix, rank=6))]
    assert errors[0] < 0.95 * errors[1]


def test_intervals_hold_what_they_say(truth, model):
    _, noisy, seen = truth
    rows, cols = np.nonzero(~seen)
    for coverage, slack in ((0.5, 0.05), (0.8, 0.03), (0.95, 0.02)):
        lower, upper = model.predict_interval(rows, cols, coverage=coverage)
        held = np.mean((noisy[rows, cols] >= lower) & (noisy[rows, cols] <= upper))
        assert abs(held - coverage) < slack, coverage


def test_noise_is_found_and_rows_with_few_entries_are_less_certain(model):
    _, std = model.predict(np.arange(200)[:, None], np.arange(80), return_std=True)
    assert std.shape == (200, 80)
    assert NOISE * 0.9 < std[:180].mean() < NOISE * 1.4
    assert std[180:].mean() > 1.2 * std[:180].mean()


def test_spread_of_the_draws_and_noise_make_the_error(model):
    kept = model.posterior
    assert (kept["n_samples"], model.rank) == (30, 6)
    assert kept["row_draws"].shape == (200, 16, 8)
    R, C = kept["row_draws"].astype(float), kept["col_draws"].astype(float)
    each = np.einsum("rsk,csk->src", R[..., :-2], C[..., :-1]) + R[..., -2].T[:, :, None]
    each += np.einsum("rs,cs->src", R[..., -1], C[..., -1])
    _, std = model.predict(np.arange(200)[:, None], np.arange(80), return_std=True)
    noise = np.outer(kept["row_noise"], kept["col_noise"])
    np.testing.assert_allclose(std, kept["std"] * np.sqrt(each.var(axis=0) + noise), rtol=1e-3)


def test_average_is_the_mean_of_what_was_expected():
    rng = np.random.default_rng(2)

    def draw(n):
        return rng.standard_normal((n, 4)).astype(np.float32)

    sweeps = [
        Sample(
            (draw(9), draw(7)),
            ((draw(9), draw(7)), (draw(9), draw(7))),
            rng.uniform(0.5, 2, 9).astype(np.float32),
            (rng.uniform(1, 2, 9), rng.uniform(1, 2, 7)),
        )
        for _ in range(3)
    ]
    each = [
        sweep.scale[:, None] * (R[:, :-1] @ C[:, :-1].T + R[:, -1:] + C[:, -1])
        for sweep in sweeps
        for R, C in sweep.expected
    ]
    average = Average(sweeps, 3, 2)
    U, V = rng.standard_normal((9, 3)).astype(np.float32), rng.standard_normal((7, 3)).astype(np.float32)
    left, right = average.blend(U, V, 0.6, 7)
    found = left @ right.T + 0.6 * (average.row_bias[:, None] + average.col_bias)
    np.testing.assert_allclose(found, 0.6 * np.mean(each, axis=0) + 0.4 * U @ V.T, atol=1e-5)
    assert average.row_draws.shape == (9, 2, 5)
    np.testing.assert_allclose(average.row_noise, np.mean([sweep.noise[0] for sweep in sweeps], axis=0))


@pytest.mark.parametrize("alpha", [0.1, 4.0])
def test_precision_of_what_the_pattern_says_is_found(alpha):
    rng = np.random.default_rng(6)
    n, n_features, D = 4000, 30, 5
    F = np.hstack([np.ones((n, 1)), rng.standard_normal((n, 1)), 0.3 * rng.standard_normal((n, n_features))])
    B = np.vstack([rng.standard_normal((2, D)), rng.standard_normal((n_features, D)) / np.sqrt(alpha)])
    numbers = (F @ B + rng.standard_normal((n, D))).astype(np.float32)
    side = Side(None, F, numbers, np.ones(n, np.float32), np.ones(n, np.float32))
    drawn = []
    for _ in range(40):
        found, _ = draw_prior(side, rng)
        drawn.append(side.alpha)
    assert 0.7 < np.mean(drawn[5:]) / alpha < 1.4
    assert np.abs(found - B).max() < 0.5


def test_scales_of_rows_are_found():
    rng = np.random.default_rng(4)
    scales = np.exp(rng.uniform(-0.7, 0.7, 150))
    A = scales[:, None] * (rng.standard_normal((150, 2)) @ rng.standard_normal((2, 60)) + rng.standard_normal(60))
    A[rng.random(A.shape) < 0.5] = np.nan
    kept = ff.fit(A + 0.3 * scales[:, None] * rng.standard_normal(A.shape), rank=4, posterior_samples=20).posterior
    found = kept["row_draws"][..., -1].astype(float).mean(axis=1)
    assert np.corrcoef(np.log(found), np.log(scales))[0, 1] > 0.8


def test_equal_seeds_give_equal_bits_with_any_number_of_threads(matrix, model):
    one = ff.fit(matrix, rank=6, posterior_samples=30, n_threads=1)
    for name in ("U", "V", "row_bias", "col_bias"):
        assert (getattr(one, name) == getattr(model, name)).all(), name
    other = ff.fit(matrix, rank=6, posterior_samples=30, seed=1)
    assert (other.U != model.U).any()


def test_scale_does_not_matter(matrix, model):
    scaled = matrix.copy()
    scaled.data = scaled.data * 1024.0
    fitted = ff.fit(scaled, rank=6, posterior_samples=30)
    rows, cols = matrix.nonzero()
    expected, std = model.predict(rows, cols, return_std=True)
    found, found_std = fitted.predict(rows, cols, return_std=True)
    np.testing.assert_allclose(found / 1024, expected, rtol=0.05)
    np.testing.assert_allclose(found_std / 1024, std, rtol=0.2)


def test_saved_model_says_the_same(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = ff.load(tmp_path / "model", verify=True)
    pairs = np.arange(50), np.arange(50)
    for ours, theirs in zip(model.predict_interval(*pairs), loaded.predict_interval(*pairs), strict=True):
        assert (ours == theirs).all()
    assert (model.recommend([0, 1], n=5)[0] == loaded.recommend([0, 1], n=5)[0]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"n_samples": 0},
        {"n_samples": True},
        {"std": np.nan},
        {"row_draws": np.ones((200, 8), np.float16)},
        {"col_draws": np.ones((80, 16, 8), np.float16)},
        {"col_noise": np.ones(80)},
        {"quantiles": np.ones(3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_samples_that_do_not_fit_are_not_loaded(model, tmp_path, change):
    replace(model, posterior={**model.posterior, **change}).save(tmp_path)
    with pytest.raises(ValueError, match=rf"posterior\.{next(iter(change))}"):
        ff.load(tmp_path)


def test_model_without_samples_knows_no_errors(matrix, model):
    plain = ff.fit(matrix, rank=2, max_epochs=2, regularization=0.1)
    with pytest.raises(ValueError, match=r"return_std.*posterior_samples"):
        plain.predict(0, 0, return_std=True)
    with pytest.raises(ValueError, match=r"predict_interval.*posterior_samples"):
        plain.predict_interval(0, 0)
    for coverage in (0, 1, np.nan):
        with pytest.raises(ValueError, match="coverage"):
            model.predict_interval(0, 0, coverage=coverage)


def test_mean_of_samples_is_not_what_new_rows_are_fitted_to(matrix, model):
    for name, ask in (
        ("fold_in", lambda: model.transform(matrix[:2])),
        ("partial_fit", lambda: model.partial_fit(matrix)),
        ("init", lambda: ff.fit(matrix, rank=6, init=model)),
    ):
        with pytest.raises(ValueError, match=f"{name}.*posterior_samples"):
            ask()


@pytest.mark.parametrize(
    "X",
    [
        np.outer(np.arange(1.0, 9.0), np.arange(1.0, 6.0)),  # no noise at all
        np.ones((1, 6)) * np.arange(6.0),
        np.array([[1.0, np.nan], [np.nan, 1e6], [np.nan, np.nan]]),
    ],
    ids=["exact", "one row", "empty row"],
)
def test_odd_matrices_give_finite_models(X):
    found, std = ff.fit(X, rank=6, posterior_samples=5).predict(
        np.arange(len(X))[:, None], np.arange(X.shape[1]), return_std=True
    )
    assert np.isfinite(found).all()
    assert (std > 0).all()


def test_constant_matrix_is_predicted():
    with pytest.warns(UserWarning, match="all stored values"):
        model = ff.fit(np.full((6, 5), 3.0), rank=6, posterior_samples=5)
    assert np.isfinite(model.reconstruct()).all()
