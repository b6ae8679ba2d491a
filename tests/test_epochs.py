"""Epochs and trials: their order, what is held out, histories, callbacks, progress, and what ends a fit."""

import numpy as np
import pytest
import scipy.sparse as sp
from test_fit import QUICK, bits

import fastfactor as ff
from fastfactor.solvers import fitting, sgd
from fastfactor.solvers.memory import draw_factors
from fastfactor.solvers.schedule import Load, Penalty, Schedule


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
