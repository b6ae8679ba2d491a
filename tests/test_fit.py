"""What fit() promises as a whole: the optimum, equal bits, equal units, stopping, recovery."""

import numpy as np
import pytest
import reference
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.exceptions import DivergenceError
from fastfactor.solvers import fitting, sgd
from fastfactor.solvers.memory import draw_factors
from fastfactor.solvers.schedule import Load, Penalty, Schedule

QUICK = {"regularization": 0.05, "max_epochs": 3, "validation": False}


def relative_error(A, model):
    return np.linalg.norm(A - model.reconstruct()) / np.linalg.norm(A)


# --- the optimum


@pytest.mark.parametrize("unobserved", ["missing", "zero"])
def test_fully_observed_matrix_is_fitted_to_the_optimum(decaying, unobserved):
    model = ff.fit(
        decaying, 8, unobserved=unobserved, regularization=0, biases=False, validation=False, dtype="float64",
        max_epochs=1500,
    )  # fmt: skip
    assert np.linalg.norm(decaying - model.U @ model.V.T) <= 1.01 * reference.optimal_error(decaying, 8)
    assert np.linalg.norm(decaying - model.U @ model.V.T) >= (1 - 1e-9) * reference.optimal_error(decaying, 8)


def test_complex_matrix_is_fitted_to_the_optimum(decaying):
    Z = decaying * np.exp(2j * np.pi * np.random.default_rng(0).random(decaying.shape[1]))
    Z = Z + 0.02j * np.random.default_rng(1).standard_normal(Z.shape)
    model = ff.fit(Z, 8, unobserved="zero", max_epochs=1500)
    assert model.U.dtype == np.complex128
    assert np.linalg.norm(Z - model.U @ model.V.conj().T) <= 1.01 * reference.optimal_error(Z, 8)


def test_defaults_recover_what_was_hidden(rng):
    """A third of a matrix of rank 2 plus offsets is hidden: its error is far below that of predicting the mean."""
    A = rng.standard_normal((90, 2)) @ rng.standard_normal((2, 70)) + rng.standard_normal((90, 1))
    hidden = rng.random(A.shape) < 1 / 3
    model = ff.fit(np.where(hidden, np.nan, A), 8)
    error = model.predict(*np.nonzero(hidden)) - A[hidden]
    assert np.sqrt(np.mean(error**2)) < 0.4 * np.std(A[hidden])
    assert model.selection["regularization"][0] > 0
    assert len(model.selection["trials"]) >= 3


# --- bits


def bits(model):
    return b"".join(np.ascontiguousarray(M).tobytes() for M in (model.U, model.V, model.row_bias, model.col_bias))


@pytest.mark.parametrize("unobserved", ["missing", "zero"])
def test_seeds(ratings, unobserved):
    X = ratings if unobserved == "missing" else ratings.toarray().astype("float32")
    models = [ff.fit(X, 16, unobserved=unobserved, seed=seed, **QUICK) for seed in (3, 3, 4)]
    assert bits(models[0]) == bits(models[1])
    assert bits(models[0]) != bits(models[2])


THREADS = """
import hashlib, numpy as np, scipy.sparse as sp, fastfactor as ff
rng = np.random.default_rng(0)
X = sp.random(600, 500, 0.2, format="csr", random_state=1)
for arguments in (dict(validation=0.2), dict(validation=None, regularization="auto"), dict(unobserved="zero")):
    arguments = dict(rank=16, max_epochs=4, regularization=0.05, dtype="float32") | arguments
    digests = set()
    for n_threads in (1, 2, 2, None):
        m = ff.fit(X, n_threads=n_threads, **arguments)
        arrays = (m.U, m.V, m.row_bias, m.col_bias, m.history["train_loss"], m.history["validation_loss"])
        digests.add(hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
    print(len(digests))
import numba
print(numba.config.NUMBA_NUM_THREADS)
"""


def test_number_of_threads_does_not_change_a_bit(python):
    assert python(THREADS, env={"NUMBA_NUM_THREADS": 2}).split() == ["1", "1", "1", "2"]


# --- units


def test_scale_and_shift_of_the_values_do_not_matter(ratings):
    def predictions(scale, shift, **arguments):
        X = ratings.copy()
        X.data = ratings.data * scale + shift
        model = ff.fit(X, 8, dtype="float64", seed=1, **arguments)
        return (model.reconstruct() - shift) / scale

    for arguments in ({"max_epochs": 20}, {"max_epochs": 20, "validation": 0.2}):
        base = predictions(1.0, 0.0, **arguments)
        for scale, shift in ((1000.0, 0.0), (1e-3, 5.0), (1e-6, 0.0)):
            other = predictions(scale, shift, **arguments)
            np.testing.assert_allclose(other, base, atol=1e-3 * np.abs(base).max())


def test_given_penalty_and_step_are_in_the_users_units(ratings):
    """J of 10 X with 10 reg is 100 J of X at factors times sqrt(10); a step of lr / 10 then walks the same path."""
    arguments = {"biases": False, "validation": False, "max_epochs": 5, "dtype": "float64"}
    base = ff.fit(ratings, 8, regularization=0.3, learning_rate=0.01, **arguments)
    other = ff.fit(10 * ratings, 8, regularization=3.0, learning_rate=0.001, **arguments)
    np.testing.assert_allclose(other.U, base.U * 10**0.5, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.history["train_loss"], base.history["train_loss"] * 100, rtol=1e-9)
    np.testing.assert_allclose(base.history["learning_rate"][0], 0.01)


def test_penalties_of_rows_and_of_columns(ratings):
    rows, cols = (
        ff.fit(ratings, 8, regularization=pair, validation=False, max_epochs=10) for pair in ((1.0, 0.0), (0.0, 1.0))
    )
    assert np.abs(rows.row_bias).sum() < 0.75 * np.abs(cols.row_bias).sum()
    assert np.abs(cols.col_bias).sum() < 0.75 * np.abs(rows.col_bias).sum()
    strong = ff.fit(ratings, 8, regularization=100.0, validation=False, max_epochs=30)
    assert np.std(strong.reconstruct()) < 0.1 * np.std(ratings.data)


# --- types


def test_dtypes(ratings, decaying):
    assert ff.fit(ratings, 8, **QUICK).U.dtype == np.float32
    assert ff.fit(ratings, 8, dtype="float64", **QUICK).U.dtype == np.float64
    assert ff.fit(decaying, 8, unobserved="zero", max_epochs=1).U.dtype == np.float64
    assert ff.fit(decaying.astype("f4"), 8, unobserved="zero", max_epochs=1).U.dtype == np.float32
    assert ff.fit(ratings * 1j, 8, **QUICK).U.dtype == np.complex64
    assert ff.fit(ratings * 1j, 8, dtype="float64", **QUICK).U.dtype == np.complex128


def test_biases(ratings):
    assert ff.fit(ratings, 8, **QUICK).row_bias.any()
    without = ff.fit(ratings, 8, biases=False, **QUICK)
    assert not without.row_bias.any()
    assert not without.col_bias.any()
    assert without.mean == 0
    zero = ff.fit(ratings, 8, unobserved="zero", max_epochs=2, dtype="float32")
    assert not zero.row_bias.any()
    assert zero.mean == 0


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float16", "longdouble"])
def test_other_number_types_are_converted(ratings, dtype):
    values = np.round(ratings.data).clip(0, 9)
    X = *ratings.tocoo().coords, values.astype(dtype)
    expected = *ratings.tocoo().coords, values.astype(dtype).astype("float32")
    np.testing.assert_allclose(ff.fit(X, 8, **QUICK).U, ff.fit(expected, 8, **QUICK).U, rtol=1e-4, atol=1e-6)


# --- validation, history, stopping


class RecordingGrid:
    """Stands in for a grid, and notes which diagonals it is asked to sweep."""

    n_stripes, shape, n_entries = 8, (10, 10), 100

    def __init__(self):
        self.launches, self.announced = [], []

    def begin_epoch(self, epoch, order):
        self.announced.append(list(order))

    def sweep(self, factors, diagonals, losses, step, static):
        self.launches.append(list(diagonals))
        losses[:, diagonals] += 1.0


def orders(seed, n_entries=100):
    grid, factors = RecordingGrid(), draw_factors((10, 10), 8, 8, "float32", 0.1, 0)
    grid.n_entries = n_entries
    run = sgd.Run(
        spec=None, schedule=Schedule(0.1, 10), penalty=Penalty(0.1, 0.1), draw=None, load=Load(10.0, 10.0), seed=seed
    )
    losses = [sgd.update_epoch(grid, factors, run, epoch, None) for epoch in range(4)]
    assert losses == [64 / n_entries] * 4
    assert [k for group in grid.announced for k in group] == [k for group in grid.launches for k in group]
    return grid.launches


def test_each_epoch_visits_every_diagonal_once_in_an_order_of_its_own():
    first = orders(seed=1)
    assert all(sorted(order) == list(range(8)) for order in first)
    assert len({tuple(order) for order in first}) == 4
    assert orders(seed=1) == first
    assert orders(seed=2) != first
    short = orders(seed=1, n_entries=10**8)  # more work than one launch may hold
    assert len(short) == 8
    assert [a + b for a, b in zip(short[::2], short[1::2], strict=True)] == first


def test_history(ratings):
    history = ff.fit(ratings, 8, **QUICK).history
    assert list(history) == ["epoch", "seconds", "learning_rate", "train_loss", "validation_loss"]
    assert history["epoch"].tolist() == [1, 2, 3]
    assert (np.diff(history["seconds"]) >= 0).all()
    assert (np.diff(history["learning_rate"]) < 0).all()
    assert (np.diff(history["train_loss"]) < 0).all()
    assert np.isnan(history["validation_loss"]).all()


def validation_of(ratings, form):
    coo = ratings.tocoo()
    half = coo.nnz // 2
    triplets = coo.row[:half], coo.col[:half], coo.data[:half]
    matrix = sp.csr_array((triplets[2], triplets[:2]), shape=coo.shape)
    dense = np.full(coo.shape, np.nan)
    dense[triplets[:2]] = triplets[2]
    return triplets, {"triplets": triplets, "csr": matrix, "csc": matrix.tocsc(), "dense": dense}[form]


@pytest.mark.parametrize("form", ["triplets", "csr", "csc", "dense"])
def test_validation_entries_are_used_as_given(ratings, form):
    (rows, cols, values), validation = validation_of(ratings, form)
    model = ff.fit(ratings, 8, regularization=0.05, max_epochs=4, validation=validation)
    loss = np.mean((model.predict(rows, cols) - values) ** 2)
    np.testing.assert_allclose(model.history["validation_loss"].min(), loss, rtol=1e-4)


def test_validation_share_is_held_out_and_the_best_epoch_kept(ratings):
    noise = ratings.copy()
    noise.data = np.random.default_rng(0).standard_normal(ratings.nnz)  # nothing to learn: it soon gets worse
    epochs = []
    model = ff.fit(noise, 16, regularization=0.0, validation=0.3, max_epochs=60, callback=epochs.append)
    losses = model.history["validation_loss"]
    best = int(losses.argmin())
    at_saddle = Schedule(0.05, 60).count_epochs_at_saddle(Load.of(noise.shape, epochs[0].n_entries))
    assert 0 < at_saddle < 20
    assert len(losses) == max(best + 1, at_saddle) + 5  # five more without a better one
    assert losses[-1] > losses[best]
    shorter = ff.fit(
        noise, 16, regularization=0.0, validation=0.3, max_epochs=60, callback=lambda e: e.epoch == best + 1
    )
    assert bits(shorter) == bits(model)


def test_validation_none_chooses_on_held_out_entries_then_fits_all(ratings, monkeypatch):
    sizes = []

    def spy(grid, run):
        sizes.append((grid.n_entries, run.validation is not None))
        return sgd.fit_factors(grid, run)

    monkeypatch.setattr(fitting, "fit_factors", spy)
    model = ff.fit(ratings, 8, max_epochs=6)
    trials = {t["regularization"]: t["validation_loss"] for t in model.selection["trials"]}
    np.testing.assert_allclose(min(trials, key=trials.get), model.selection["regularization"][0])
    assert sizes[-1] == (ratings.nnz, False)
    assert len(sizes) == len(trials) + 1 >= 4
    assert {n for n, held in sizes[:-1] if held} == {sizes[0][0]}
    assert abs(sizes[0][0] / ratings.nnz - 0.9) < 0.04
    assert np.isnan(model.history["validation_loss"]).all()


@pytest.mark.parametrize("form", ["share", "triplets"])
def test_automatic_penalty_is_chosen_on_the_validation_entries_of_the_caller(ratings, form):
    validation = 0.3 if form == "share" else validation_of(ratings, "triplets")[1]
    model = ff.fit(ratings, 8, max_epochs=6, validation=validation)
    trials = {t["regularization"]: t["validation_loss"] for t in model.selection["trials"]}
    assert len(trials) >= 3
    np.testing.assert_allclose(min(trials, key=trials.get), model.selection["regularization"][0])
    np.testing.assert_allclose(model.history["validation_loss"].min(), min(trials.values()), rtol=1e-5)


def test_few_validation_entries_choose_no_penalty(ratings):
    rows, cols, values = validation_of(ratings, "triplets")[0]
    model = ff.fit(ratings, 8, max_epochs=3, validation=(rows[:19], cols[:19], values[:19]))
    assert model.selection["trials"] == []


def test_callback_sees_each_epoch_and_may_stop(ratings):
    seen = []
    model = ff.fit(ratings, 8, regularization=0.05, max_epochs=9, callback=lambda e: seen.append(e) or e.epoch == 4)
    assert [e.epoch for e in seen] == [1, 2, 3, 4]
    assert model.history["epoch"].tolist() == [1, 2, 3, 4]
    assert all(e.train_loss > 0 and e.learning_rate > 0 and e.seconds > 0 for e in seen)


def test_a_callback_that_hears_trials_ends_the_fit_with_the_best_of_them(ratings):
    class Ends:
        hears_trials = True

        def __init__(self, trial, epoch):
            self.last, self.seen = (trial, epoch), []

        def __call__(self, epoch):
            self.seen.append((epoch.trial, epoch.epoch))
            return self.seen[-1] == self.last

    whole = ff.fit(ratings, 8, max_epochs=6)
    for ends in (Ends(1, 4), Ends(3, 1)):
        model = ff.fit(ratings, 8, max_epochs=6, callback=ends)
        assert ends.seen[-1] == ends.last
        assert model.selection["trials"] == whole.selection["trials"][: ends.last[0] - 1]
        assert model.selection["from_trial"]
        rows, cols = ratings.nonzero()
        assert ff.metrics.rmse(ratings[rows, cols], model.predict(rows, cols)) < ratings.data.std()
    quiet = Ends(None, None)
    assert bits(ff.fit(ratings, 8, max_epochs=6, callback=quiet)) == bits(whole)
    assert {trial for trial, _ in quiet.seen} == {0, *range(1, len(whole.selection["trials"]) + 1)}


def test_a_deadline_while_penalties_are_tried_leaves_the_best_trial(ratings, monkeypatch):
    """The clock is replaced: each look at it is a second later."""
    clock = iter(range(10**9))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    model = ff.fit(ratings, 8, max_epochs=40, max_seconds=200)
    assert model.selection["from_trial"]
    assert len(model.history["epoch"]) == 40


@pytest.mark.parametrize("arguments", [{"max_epochs": 4}, {"max_epochs": 2, "unobserved": "zero"}])
def test_progress_and_log(ratings, capfd, caplog, arguments):
    with caplog.at_level("INFO", logger="fastfactor"):
        seen = []
        model = ff.fit(ratings, 8, **arguments, progress=True, callback=lambda e: seen.append(e.trial))
    n = arguments["max_epochs"]
    assert seen == [0] * n
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith(f"epoch {n}/{n}, loss ")
    assert lines[-1].endswith(" M entries/s, 0 s left")
    n_trials = len(model.selection["trials"])
    assert sum(line.startswith("trial ") for line in caplog.messages) == n_trials
    assert caplog.messages[-1] == f"fit of 60 x 40 at rank 8 ended after {n} epochs"
    assert lines[0].startswith("trial 1, epoch 1/") == (n_trials > 0)
    ff.fit(ratings, 8, **arguments)
    assert capfd.readouterr().err == ""


def test_halved_steps_are_logged(ratings, caplog):
    with caplog.at_level("INFO", logger="fastfactor"):
        model = ff.fit(ratings, 8, regularization=0.05, learning_rate=3.0, max_epochs=20, validation=False)
    halved = [line for line in caplog.messages if "starting again with half the step" in line]
    assert len(halved) == (model.history["epoch"] == 1).sum() - 1 > 0


def test_callback_errors_reach_the_caller(ratings):
    with pytest.raises(KeyboardInterrupt):
        ff.fit(ratings, 8, callback=lambda e: (_ for _ in ()).throw(KeyboardInterrupt), **QUICK)


@pytest.mark.parametrize("arguments", [{}, {"validation": False, "regularization": 0.1}, {"unobserved": "zero"}])
def test_max_seconds_ends_a_fit_with_a_usable_model(ratings, monkeypatch, arguments):
    """The clock is replaced: each look at it is a second later, so this depends on no machine."""
    clock = iter(range(10**9))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    limited = ff.fit(ratings, 8, max_epochs=1000, max_seconds=200, dtype="float32", **arguments)
    assert len(limited.history["epoch"]) < 200
    assert np.isfinite(limited.reconstruct()).all()
    at_once = ff.fit(ratings, 8, max_epochs=1000, max_seconds=1e-9, dtype="float32", **arguments)
    assert len(at_once.history["epoch"]) == 0
    assert np.isfinite(at_once.reconstruct()).all()


def test_subnormal_numbers_are_left_as_they_were(ratings):
    """Sweeps switch them off in their thread, which is also the caller's; a matrix of zeros would breed them."""
    tiny = np.float32(1e-40)
    model = ff.fit(np.zeros((9, 8), "float32"), 8, unobserved="zero", regularization=19.0, max_epochs=200, n_threads=1)
    assert tiny * np.float32(0.5) != 0
    assert np.abs(model.reconstruct()).max() < 1e-6
    sizes = np.abs(np.concatenate([model.U.ravel(), model.V.ravel()]))
    assert not ((sizes > 0) & (sizes < np.finfo("float32").tiny)).any()


# --- divergence


def test_divergence_is_recovered_from_with_half_the_step(ratings):
    model = ff.fit(ratings, 8, regularization=0.05, learning_rate=3.0, max_epochs=20, validation=False)
    rates = model.history["learning_rate"]
    starts = rates[model.history["epoch"] == 1]
    assert len(starts) > 1
    assert np.flatnonzero(model.history["epoch"] == 1)[1] < 20  # a diverging attempt is given up before its end
    np.testing.assert_allclose(starts[1:], starts[:-1] / 2, rtol=1e-6)
    np.testing.assert_allclose(model.selection["learning_rate"], starts[-1], rtol=1e-6)
    assert np.isfinite(model.reconstruct()).all()
    error = model.reconstruct()[ratings.tocoo().coords] - ratings.data
    assert np.sqrt(np.mean(error**2)) < np.std(ratings.data)


@pytest.mark.parametrize("unobserved", ["missing", "zero"])
@pytest.mark.parametrize("validation", [False, 0.2])
def test_hopeless_divergence_raises(ratings, unobserved, validation):
    if unobserved == "zero" and validation:
        pytest.skip("no validation where every entry is fitted")
    with pytest.raises(DivergenceError, match=r"epoch \d+ at step .*9 attempts.*Likely causes"):
        ff.fit(
            ratings, 8, unobserved=unobserved, regularization=0.05, learning_rate=1e30, max_epochs=3, dtype="float32",
            validation=validation,
        )  # fmt: skip


@pytest.mark.parametrize("learning_rate", [1e5, 1e37])
def test_the_last_steps_of_a_fit_cannot_leave_nan(learning_rate):
    """With one entry and one epoch no loss sees the factors that the only step has left."""
    with pytest.raises(DivergenceError):
        ff.fit([[3.0]], 8, unobserved="zero", learning_rate=learning_rate, max_epochs=1, dtype="float32")


def test_huge_penalty_is_recovered_from_or_raises(ratings):
    try:
        model = ff.fit(ratings, 8, regularization=1e3, max_epochs=3, validation=False)
    except DivergenceError:
        return
    assert np.isfinite(model.reconstruct()).all()
