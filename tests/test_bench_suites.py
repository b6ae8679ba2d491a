"""The suites that need no peer run, on small matrices that stand in for the real ones."""

import ast
import hashlib
import importlib
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import bench
import fastfactor as ff
from bench import generate, record, tables, timing
from bench.scale import Setting, fit_constants, predict
from bench.suites import accuracy, disk, implicit, own_loss, per_entry, posterior


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    A = rng.standard_normal((90, 3)) @ rng.standard_normal((3, 70)) + 0.1 * rng.standard_normal((90, 70))
    np.savez(tmp_path / "olivetti.npz", dense=A)
    sp.save_npz(tmp_path / "ml-100k.npz", sp.csr_matrix(np.where(rng.random(A.shape) < 0.5, 3 + A, 0)))
    monkeypatch.setenv("FASTFACTOR_DATA", str(tmp_path))
    monkeypatch.setattr(timing, "SETTLED", 0.0)  # no time is judged here
    return record.Recorder(quick=True)


def figures_of(recorder):
    return {(item.case, item.peer, item.metric): item for item in recorder.measurements}


def test_per_entry_follows_each_solver_to_the_optimum(recorder, monkeypatch):
    monkeypatch.setattr(per_entry, "RANK", 8)
    monkeypatch.setattr(per_entry, "EPOCHS", (2, 12))
    monkeypatch.setattr(per_entry, "TOLERANCES", {"fastfactor.svd": (0.3, 1e-6), "scipy": (0.3, 0.0)})
    per_entry.run(recorder)
    curves = {curve.peer: curve for curve in recorder.curves}
    assert set(curves) == {"per-entry SGD", "fastfactor.svd", "scipy arpack", "scipy propack"}
    for peer, curve in curves.items():
        assert len(curve.seconds) == len(curve.errors)
        assert -1e-6 < curve.errors[-1] < (0.5 if peer == "per-entry SGD" else 1e-5)
    assert curves["per-entry SGD"].errors[1] < curves["per-entry SGD"].errors[0]
    assert figures_of(recorder)["olivetti", "any", "smallest_relative_error"].exact


BENCH = Path(bench.__file__).parent


@pytest.mark.parametrize("path", sorted(BENCH.rglob("*.py")), ids=lambda path: str(path.relative_to(BENCH)))
def test_what_is_imported_within_functions_is_there(path):
    """Those imports run in processes that are measured, so that no other test would see them fail."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "fastfactor":
            module = importlib.import_module(node.module)
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@pytest.mark.parametrize("where", disk.WHERE)
def test_passes_and_fits_are_measured_wherever_the_matrix_is(tmp_path, where):
    if not timing.can_measure_peaks():
        pytest.skip("resetting the peak of resident memory needs Linux")
    matrix = sp.random_array((300, 200), density=0.1, rng=np.random.default_rng(0), format="csr", dtype=np.float32)
    np.savez(tmp_path / "matrix.npz", data=matrix.data, indices=matrix.indices, indptr=matrix.indptr)
    ff.io.build_grid(matrix, tmp_path / "grid")
    assert disk.measure_pass(str(tmp_path), where, 1)["pass"] > 0
    model = ff.fit(matrix, disk.RANK, max_epochs=6, regularization=0.05, validation=False)
    digest = hashlib.sha256(model.U.tobytes() + model.V.tobytes()).hexdigest()
    assert disk.measure_fit(str(tmp_path), where, 1)["digest"] == digest


def test_accuracy_beats_the_mean_and_names_what_is_missing(recorder):
    accuracy.run(recorder)
    found = figures_of(recorder)
    assert found["ml-100k", accuracy.OURS, "test_rmse"].value < 0.8 * found["ml-100k", "mean", "test_rmse"].value
    assert any("filmtrust" in line for line in recorder.skipped)


def test_the_table_of_the_docs_is_written_between_its_marks(recorder, tmp_path):
    recorder.suite = "accuracy"
    for case, error in (("small", 0.9), ("large", 0.8)):
        for peer, excess in ((accuracy.MEAN, 0.3), ("libmf", 0.0), (accuracy.OURS, -0.009 * (case == "small"))):
            recorder.add(case, peer, "test_rmse", error + excess, "")
        recorder.add(case, f"{accuracy.OURS}/best peer", "rmse_ratio", 0.99 if case == "small" else 1.0, "x")
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(ValueError, match=r"page\.md has no lines"):
        tables.write_tables("accuracy", recorder.to_json(), page)
    begin, end = tables.find_marks("accuracy")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for _ in range(2):
        tables.write_tables("accuracy", recorder.to_json(), page)
        text = page.read_text()
        assert text.startswith(f"before\n{begin}\n\n| set |")
        assert text.endswith(f"\n{end}\nafter\n")
        assert "old" not in text
        assert "| small | 1.2000 | 0.9000 | 0.8910 | 0.9900 |" in text
        assert "Geometric mean over the better peer: 0.9950." in text


def test_averaging_is_measured_beside_the_plain_fit(recorder, monkeypatch):
    monkeypatch.setattr(posterior, "N_SAMPLES", 8)
    recorder.suite = "posterior"
    posterior.run(recorder)
    found = figures_of(recorder)
    plain, averaged = (found["ml-100k", label, "test_rmse"].value for label in (posterior.PLAIN, posterior.AVERAGED))
    ratio = found["ml-100k", f"{posterior.AVERAGED}/{posterior.PLAIN}", "rmse_ratio"].value
    assert ratio == pytest.approx(averaged / plain)
    assert 0.5 < found["ml-100k", posterior.AVERAGED, "coverage"].value < 0.95
    assert f"| ml-100k | {plain:.4f} | {averaged:.4f} | {ratio:.4f} |" in tables.format_posterior(recorder.to_json())


def test_lists_from_implicit_feedback_are_judged_on_what_was_hidden(recorder, tmp_path):
    """Two kinds of users, each of which likes another half of the items: half of an unseen item's own kind is hit."""
    likes = np.kron(np.eye(2), np.ones((60, 45)))
    hidden = np.random.default_rng(0).random(likes.shape) < 0.3
    for name, where in (("gowalla", ~hidden), ("gowalla-test", hidden)):
        sp.save_npz(tmp_path / f"{name}.npz", sp.csr_matrix(likes * where))
    recorder.suite, recorder.left_out = "implicit", frozenset([implicit.RIVAL])
    implicit.run(recorder)
    found = figures_of(recorder)
    for name in (implicit.OURS, implicit.GIVEN):
        assert found[implicit.CASE, name, "recall@20"].value > 0.95
        assert found[implicit.CASE, name, "ndcg@20"].value > 0.95
    assert "| 1.0000 |" in tables.format_implicit(recorder.to_json())


def test_a_loss_of_ones_own_is_timed_beside_the_built_in_one(recorder, monkeypatch):
    small = generate.rating_matrix(300, 200, 5_000)
    monkeypatch.setattr(own_loss.generate, "standard_ratings", lambda size: small)
    monkeypatch.setattr(own_loss, "RANKS", (4,))
    monkeypatch.setattr(own_loss.data, "load", lambda name: small)
    recorder.suite = "own_loss"
    own_loss.run(recorder)
    found = figures_of(recorder)
    for case in ("5M, rank 4", "ml-1m, rank 4"):
        times = [found[case, label, "epoch"].value for label in (own_loss.OWN, own_loss.BUILT_IN)]
        ratio = found[case, f"{own_loss.OWN}/{own_loss.BUILT_IN}", "time_ratio"].value
        assert ratio == pytest.approx(times[0] / times[1])
        assert f"{ratio:.3f} |" in tables.format_own_loss(recorder.to_json())
    models = [ff.fit(small, 4, loss=loss, max_epochs=3, validation=False) for loss in own_loss.LOSSES.values()]
    np.testing.assert_allclose(models[0].U @ models[0].V.T, models[1].U @ models[1].V.T, atol=1e-4)


def test_the_scale_model_finds_the_constants_it_was_made_with():
    constants = {"epoch_ms": 4.0, "entry_ns": 3.0, "number_ns": 0.05, "task_ms": 2.0, "byte_ns": 1.5}
    settings = [
        Setting(1000 * n, 500 * n, 10**6 * n * n, rank, workers, 2)
        for n, rank, workers in [(1, 16, 1), (3, 32, 2), (2, 64, 4), (9, 16, 2), (5, 32, 1), (7, 64, 2)]
    ]
    found = fit_constants(settings, [predict(setting, constants) for setting in settings])
    assert found == pytest.approx(constants, rel=1e-6)


def test_what_a_cluster_sends_an_epoch():
    setting = Setting(1000, 600, 10**6, 31, 4, 8, bandwidth=1e9)
    assert setting.n_tasks == 48
    assert setting.gathered == 4 * 32 * 1600
    assert setting.passed_on == 4 * 32 * 450
    nothing = dict.fromkeys(("epoch_ms", "entry_ns", "number_ns", "task_ms", "byte_ns"), 0.0)
    assert predict(setting, nothing) == pytest.approx((4 * 32 * 2050) / 1e9)
