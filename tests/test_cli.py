"""The command line: what each command writes and prints, exit codes, signals, a terminal and a pipe."""

import bz2
import gzip
import json
import os
import signal
import threading
import time
from subprocess import DEVNULL, PIPE

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from conftest import run_python, start_python

import fastfactor as ff

pytest.importorskip("click")
pytest.importorskip("rich")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from fastfactor.cli.app import run  # noqa: E402
from fastfactor.cli.outcomes import Code  # noqa: E402
from fastfactor.cli.stopping import Interrupted, Stopping  # noqa: E402

FIT = ["--rank", "3", "--regularization", "0.05", "--validation", "none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, ratings):
    """A table of string ids, one of entries held out, and a model of the first."""
    path = tmp_path_factory.mktemp("cli")
    train, test = ff.model_selection.random_split(ratings, 0.2)
    for name, part in (("train", train.tocoo()), ("test", test.tocoo())):
        rows, cols = part.coords
        table = {"user": [f"u{r}" for r in rows], "film": [f"f{c}" for c in cols], "stars": part.data}
        pq.write_table(pa.table(table), path / f"{name}.parquet")
    assert run(["fit", str(path / "train.parquet"), str(path / "model"), *FIT, "--max-epochs", "30", "--quiet"]) == 0
    return path


@pytest.fixture
def call(capsys):
    """Run a command; return its exit code, what it printed (as JSON where it is), and what it said."""

    def run_it(*arguments):
        capsys.readouterr()
        code = run(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments else out, err

    return run_it


def test_fit_is_the_fit_of_the_library(call, folder, tmp_path):
    code, result, err = call(
        "fit", folder / "train.parquet", tmp_path / "m", *FIT, "--max-epochs", 5, "--seed", 3, "--json"
    )
    model = ff.load(tmp_path / "m", verify=True)
    X = ff.io.read(folder / "train.parquet")
    same = ff.fit(X, 3, regularization=0.05, validation=False, max_epochs=5, seed=3)
    assert code == 0
    assert (model.U == same.U).all()
    assert model.row_ids.tolist() == X.row_ids.tolist()
    assert result["shape"] == list(model.shape)
    assert result["epochs"] == 5
    assert result["train_loss"] == pytest.approx(same.history["train_loss"][-1])
    assert result["validation_loss"] is None
    assert not result["stopped"]
    assert set(result["seconds"]) == {"read", "fit", "save"}
    assert err.splitlines()[0].startswith(f"read {X.n_entries:,} entries")
    assert "epoch 5/5, loss " in err
    assert "M entries/s, 0 s left" in err


def test_fit_takes_the_options_of_the_library(call, folder, tmp_path):
    path = tmp_path / "m"
    options = ["--unobserved", "zero", "--biases", "--nonnegative", "--learning-rate", "0.1", "--dtype", "float64"]
    code, _, err = call("fit", folder / "train.parquet", path, "--rank", 2, "--max-epochs", 2, "--quiet", *options)
    assert (code, err) == (0, "")
    model = ff.load(path)
    assert model.U.dtype == np.float64
    assert min(model.U.min(), model.V.min(), model.row_bias.min()) >= 0
    assert model.row_bias.any()
    code, result, _ = call(
        "fit", folder / "train.parquet", path, *FIT[:4], "--validation", "0.2", "--max-epochs", 2, "--json"
    )
    assert result["validation_loss"] > 0
    code, result, _ = call("fit", folder / "train.parquet", path, *FIT, "--max-seconds", "1e-9", "--json")
    assert (code, result["epochs"]) == (0, 0)


def test_fit_starts_from_a_model(call, folder, tmp_path):
    more = pa.table({"user": ["u1", "new"], "film": ["f2", "f3"], "stars": [3.0, 4.0]})
    pq.write_table(more, tmp_path / "more.parquet")
    code, _, _ = call(
        "fit", tmp_path / "more.parquet", tmp_path / "m", *FIT, "--max-epochs", 1, "--init", folder / "model"
    )
    before, after = ff.load(folder / "model"), ff.load(tmp_path / "m")
    assert code == 0
    assert after.row_ids.tolist() == [*before.row_ids.tolist(), "new"]


def test_recommendations(call, folder, tmp_path):
    model, seen = ff.load(folder / "model"), ff.io.read(folder / "train.parquet")
    out = tmp_path / "out.parquet"
    code, _, _ = call("recommend", folder / "model", "--output", out, "-n", 3, "--exclude", folder / "train.parquet")
    table = pq.read_table(out)
    cols, _ = model.recommend(range(60), 3, seen.to_csr())
    assert code == 0
    assert table["col"].to_pylist() == model.col_ids[cols.ravel()].tolist()
    code, result, _ = call("recommend", folder / "model", "u7", "u3", "-n", 2, "--json")
    assert [entry["id"] for entry in result["results"]] == ["u7", "u3"]
    best, scores = model.recommend(model.rows_of(["u7"]), 1)
    assert result["results"][0]["found"][0] == {"id": model.col_ids[best[0, 0]], "score": pytest.approx(scores[0, 0])}
    (tmp_path / "rows.txt").write_text("u3\n")
    code, printed, _ = call("recommend", folder / "model", "--rows", tmp_path / "rows.txt", "-n", 2)
    assert [line.split("\t")[0] for line in printed.splitlines()] == ["u3", "u3"]


def test_ids_from_a_file(call, folder, tmp_path):
    """One a line, with a byte order mark or without; other characters that end lines elsewhere are part of an id."""
    path = tmp_path / "rows.txt"
    expected = call("recommend", folder / "model", "u3", "u4", "-n", 2)[1]
    for content in (b"u3\nu4\n", b"\xef\xbb\xbfu3\r\nu4"):
        path.write_bytes(content)
        assert call("recommend", folder / "model", "--rows", path, "-n", 2)[1] == expected
    for content, word in (("u3\u2028u4\n".encode(), "'u3\\u2028u4'"), (b"u3\n\xff\n", "rows.txt is not UTF-8")):
        path.write_bytes(content)
        code, _, err = call("recommend", folder / "model", "--rows", path)
        assert (code, word in err) == (Code.BAD_INPUT, True)


def test_predictions(call, folder, tmp_path):
    model = ff.load(folder / "model")
    (tmp_path / "pairs.csv").write_text("user,film\nu5,f6\nnobody,f6\n")
    arguments = [folder / "model", tmp_path / "pairs.csv", tmp_path / "out.csv", "--columns", "user,film"]
    code, result, _ = call("predict", *arguments, "--json")
    assert (code, result["pairs"], result["unknown"]) == (0, 2, 1)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[2] == '"nobody","f6",'
    expected = model.predict(model.rows_of(["u5"]), model.cols_of(["f6"]))[0]
    assert float(lines[1].split(",")[2]) == pytest.approx(expected, rel=1e-6)


def test_neighbours(call, folder, tmp_path):
    model = ff.load(folder / "model")
    code, result, _ = call("similar", folder / "model", "f4", "--side", "cols", "-n", 3, "--json")
    found, _ = model.similar_cols(model.cols_of(["f4"]), 3)
    assert code == 0
    assert [one["id"] for one in result["results"][0]["found"]] == model.col_ids[found[0]].tolist()
    code, _, _ = call("similar", folder / "model", "--output", tmp_path / "all.parquet", "-n", 2)
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 120


def test_evaluation(call, folder):
    model, test = ff.load(folder / "model"), ff.io.read(folder / "test.parquet", like=ff.load(folder / "model"))
    options = ["--top", 5, "--exclude", folder / "train.parquet", "--json"]
    code, result, _ = call("evaluate", folder / "model", folder / "test.parquet", *options)
    rows, cols, values = test.triplets
    assert code == 0
    assert result["entries"] == len(values)
    assert result["rmse"] == pytest.approx(ff.metrics.rmse(values, model.predict(rows, cols)))
    assert result["mae"] == pytest.approx(ff.metrics.mae(values, model.predict(rows, cols)))
    seen = ff.io.read(folder / "train.parquet", like=model).to_csr()
    best, _ = model.recommend(np.arange(60), 5, seen)
    assert result["recall_at_5"] == pytest.approx(ff.metrics.recall_at_k(best, test.to_csr(), 5))
    assert result["ndcg_at_5"] == pytest.approx(ff.metrics.ndcg_at_k(best, test.to_csr(), 5))


def test_svd(call, folder, tmp_path):
    code, result, _ = call("svd", folder / "train.parquet", tmp_path / "out", "-k", 4, "--json")
    X = ff.io.read(folder / "train.parquet")
    s = np.linalg.svd(X.to_csr().toarray(), compute_uv=False)[:4]
    assert code == 0
    assert result["singular_values"] == pytest.approx(s.tolist(), rel=1e-4)
    U, saved, Vt = (np.load(tmp_path / "out" / f"{name}.npy") for name in ("U", "s", "Vt"))
    assert (U.shape, Vt.shape) == ((60, 4), (4, 40))
    assert saved == pytest.approx(s, rel=1e-4)
    assert pq.read_table(tmp_path / "out" / "row_ids.parquet")["id"].to_pylist() == X.row_ids.tolist()


def test_export_and_info(call, folder, tmp_path):
    model = ff.load(folder / "model")
    assert call("export", folder / "model", tmp_path / "V.npy", "--side", "cols")[0] == 0
    assert (np.load(tmp_path / "V.npy") == model.V).all()
    code, result, _ = call("info", folder / "model", "--verify", "--json")
    assert code == 0
    assert result["shape"] == [60, 40]
    assert result["ids"] == {"rows": "text", "columns": "text"}
    assert result["verified"]
    assert result["bytes"] > 60 * 3 * 4
    assert "rows text, columns text" in call("info", folder / "model")[1]


def test_a_model_without_ids_takes_positions(call, tmp_path, ratings):
    sp.save_npz(tmp_path / "a.npz", ratings)
    assert call("fit", tmp_path / "a.npz", tmp_path / "m", *FIT, "--max-epochs", 2)[0] == 0
    model = ff.load(tmp_path / "m")
    assert call("recommend", tmp_path / "m", "3", "-n", 1, "--exclude", tmp_path / "a.npz")[1].startswith("3\t")
    (tmp_path / "pairs.csv").write_text("3,5\n0,99\n")
    assert call("predict", tmp_path / "m", tmp_path / "pairs.csv", tmp_path / "out.csv", "--no-header")[0] == 0
    table = (tmp_path / "out.csv").read_text().splitlines()
    assert float(table[1].split(",")[2]) == pytest.approx(model.predict(3, 5), rel=1e-6)
    assert table[2] == "0,99,"
    code, _, err = call("recommend", tmp_path / "m", "60")
    assert (code, "60 is not among the positions 0..59" in err) == (Code.BAD_INPUT, True)
    (tmp_path / "pairs.csv").write_text("ann,5\n")
    code, _, err = call("predict", tmp_path / "m", tmp_path / "pairs.csv", tmp_path / "out.csv", "--no-header")
    assert (code, "'ann' is no integer" in err) == (Code.BAD_INPUT, True)
    (tmp_path / "pairs.csv").write_text("3,5\n-2,7\n")
    code, _, err = call("predict", tmp_path / "m", tmp_path / "pairs.csv", tmp_path / "out.csv", "--no-header")
    assert (code, "holds row -2, the model has 60 from 0 on" in err) == (Code.BAD_INPUT, True)


def test_packed_files_are_told_by_their_format(call, tmp_path, ratings):
    """Positions of a model without ids are read from text as integers, however it is packed, and from nothing else."""
    sp.save_npz(tmp_path / "a.npz", ratings)
    assert call("fit", tmp_path / "a.npz", tmp_path / "m", *FIT, "--max-epochs", 2)[0] == 0
    scipy.io.mmwrite(tmp_path / "a.mtx", ratings)
    for name, pack in (("a.mtx.gz", gzip.compress), ("a.mtx.bz2", bz2.compress)):
        (tmp_path / name).write_bytes(pack((tmp_path / "a.mtx").read_bytes()))
    entries = ratings.tocoo()
    lines = "\n".join(f"{r},{c},{x}" for r, c, x in zip(*entries.coords, entries.data, strict=True))
    for name, pack in (("a.csv.gz", gzip.compress), ("a.CSV.bz2", bz2.compress)):
        (tmp_path / name).write_bytes(pack(f"row,col,value\n{lines}\n".encode()))
    found = {call("evaluate", tmp_path / "m", path)[:2] for path in sorted(tmp_path.glob("a.*"))}
    assert len(found) == 1
    assert found.pop()[0] == Code.DONE


def test_demo_is_the_one_of_the_package(call):
    code, _, err = call("demo", "no_such_package")
    assert code == Code.USAGE
    assert "found 0 usable modules" in err


BAD = [
    (["fit", "{train}"], Code.USAGE, "Missing argument"),
    (["fit", "{train}", "{out}", "--rank", "0"], Code.USAGE, "--rank"),
    (["fit", "{train}", "{out}", "--regularization", "big"], Code.USAGE, "'big' is neither a number nor 'auto'"),
    (["fit", "none.csv", "{out}"], Code.BAD_INPUT, "none.csv"),
    (["fit", "{bad}", "{out}"], Code.BAD_INPUT, "bad.csv, line 3: stars: 'many' is no finite number"),
    (["fit", "{train}", "{out}", "--regularization", "-1"], Code.BAD_INPUT, "regularization must be"),
    (["fit", "{train}", "{out}", "--columns", "user,movie"], Code.BAD_INPUT, "'movie'"),
    (["info", "{folder}"], Code.BAD_INPUT, "there is no saved model"),
    (["recommend", "{model}", "nobody"], Code.BAD_INPUT, "1 of 1 row ids are not in the model: 'nobody'"),
    (["recommend", "{model}"], Code.USAGE, "for all rows give --output"),
    (["recommend", "{model}", "--output", "x.xls"], Code.USAGE, "must end in .parquet"),
    (["recommend", "{model}", "--output", "{folder}/no/x.csv"], Code.FAILED, "No such file"),
    (["similar", "{model}"], Code.USAGE, "for all rows give --output"),
    (["evaluate", "{model}", "{bad}"], Code.BAD_INPUT, "line 3"),
    (["warmup", "--unobserved", "weak", "--loss", "huber"], Code.USAGE, "loss must be 'squared' or 'bpr'"),
    (["nothing"], Code.USAGE, "No such command 'nothing'"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD, ids=str)
def test_errors_have_codes_and_one_line(call, folder, tmp_path, arguments, code, words):
    (tmp_path / "bad.csv").write_text("user,film,stars\nu1,f1,3\nu1,f2,many\n")
    names = {
        "train": "train.parquet",
        "model": "model",
        "folder": "",
        "bad": tmp_path / "bad.csv",
        "out": tmp_path / "m",
    }
    given = [part.format(**{name: folder / value for name, value in names.items()}) for part in arguments]
    got, out, err = call(*given)
    assert got == code
    assert out == ""
    assert words in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    got, result, _ = call(*given, "--json")
    assert result["exit_code"] == got == code
    assert words in result["error"]
    assert not (tmp_path / "m").exists()


def test_skipped_lines_are_reported(call, tmp_path):
    lines = [f"u{r},f{c},{r * c % 5}" for r in range(12) for c in range(10)]
    (tmp_path / "a.csv").write_text("\n".join(["user,film,stars", *lines, "u1,f1"]) + "\n")
    options = ["--on-bad-line", "skip", "--max-epochs", 1, "--json"]
    code, result, err = call("fit", tmp_path / "a.csv", tmp_path / "m", *FIT, *options)
    assert (code, result["skipped_lines"]) == (0, 1)
    assert "warning: 1 bad line was skipped; the first: " in err


def test_a_divergence_has_a_code(call, folder, tmp_path, monkeypatch):
    def diverge(*_, **__):
        raise ff.DivergenceError("far away")

    monkeypatch.setattr("fastfactor.api.fit", diverge)
    code, _, err = call("fit", folder / "train.parquet", tmp_path / "m")
    assert (code, "error: far away" in err) == (Code.DIVERGED, True)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_without_a_model(call, folder, tmp_path, monkeypatch, signum):
    def kill(*_, **__):
        os.kill(os.getpid(), signum)
        time.sleep(30)

    before = signal.getsignal(signum)
    monkeypatch.setattr("fastfactor.api.fit", kill)
    code, _, err = call("fit", folder / "train.parquet", tmp_path / "m")
    assert code == 128 + signum
    assert "nothing was saved" in err
    assert not (tmp_path / "m").exists()
    assert signal.getsignal(signum) == before


def test_a_second_signal_does_not_wait():
    with Stopping() as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping()
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


MAIN = "from fastfactor.cli import main; main()"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_model_so_far(folder, tmp_path, signum):
    arguments = ["fit", folder / "train.parquet", tmp_path / "m", *FIT, "--max-epochs", 10_000_000, "--json"]
    process = start_python(MAIN, *arguments, stdout=PIPE, stderr=PIPE)
    guard = threading.Timer(240, process.kill)
    guard.start()
    try:
        for line in process.stderr:
            if line.startswith("epoch"):
                break
        process.send_signal(signum)
        out, err = process.communicate()
    finally:
        guard.cancel()
    assert process.returncode == Code.STOPPED, err
    result = json.loads(out)
    assert result["stopped"]
    model = ff.load(tmp_path / "m", verify=True)
    assert 0 < result["epochs"] == len(model.history["epoch"]) < 10_000_000
    assert np.isfinite(model.U).all()


@pytest.mark.parametrize("unobserved", ["missing", "weak"])
def test_a_signal_while_penalties_are_tried_saves_the_best_model(call, folder, tmp_path, monkeypatch, unobserved):
    """The signal comes in the second epoch of the third trial, or of the first."""

    class Signalled(Stopping):
        def __call__(self, epoch):
            answer = super().__call__(epoch)
            if (epoch.trial, epoch.epoch) == (1 if unobserved == "weak" else 3, 2):
                os.kill(os.getpid(), signal.SIGTERM)
            return answer

    monkeypatch.setattr("fastfactor.cli.training.Stopping", Signalled)
    train = folder / "train.parquet"
    if unobserved == "weak":
        train = tmp_path / "positives.parquet"
        rows, cols = np.nonzero(np.random.default_rng(0).random((60, 40)) < 0.3)
        pq.write_table(pa.table({"row": rows, "col": cols, "value": np.ones(len(rows))}), train)
    options = ["--rank", 3, "--max-epochs", 12, "--unobserved", unobserved, "--json"]
    code, result, err = call("fit", train, tmp_path / "m", *options, "--checkpoint", tmp_path / "kept")
    assert code == Code.STOPPED
    assert result["stopped"]
    model = ff.load(tmp_path / "m", verify=True)
    if unobserved == "missing":
        trials = model.selection["trials"]
        best = min(trial["validation_loss"] for trial in trials)
        assert len(trials) == 2
        assert model.selection["from_trial"]
        assert model.history["validation_loss"].min() <= best * (1 + 1e-9)
    assert "trial 1, epoch 1/" in err
    monkeypatch.undo()
    code, result, _ = call("fit", train, tmp_path / "m", *options, "--checkpoint", tmp_path / "kept")
    assert code == 0
    again = ff.load(tmp_path / "m")
    expected = ff.fit(ff.io.read(train), 3, max_epochs=12, unobserved=unobserved)
    assert again.U.tobytes() == expected.U.tobytes()
    np.testing.assert_equal(again.selection, expected.selection)


def test_a_signal_early_in_the_last_fit_saves_the_best_trial(call, folder, tmp_path, monkeypatch):
    class Signalled(Stopping):
        def __call__(self, epoch):
            if epoch.trial == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(epoch)

    monkeypatch.setattr("fastfactor.cli.training.Stopping", Signalled)
    code, _, _ = call("fit", folder / "train.parquet", tmp_path / "m", "--rank", 3, "--max-epochs", 12, "--json")
    model = ff.load(tmp_path / "m")
    assert code == Code.STOPPED
    assert model.selection["from_trial"]
    assert len(model.history["epoch"]) > 5  # not the one epoch of the last fit
    test = ff.io.read(folder / "test.parquet", like=model)
    rows, cols, values = test.triplets
    assert ff.metrics.rmse(values, model.predict(rows, cols)) < np.std(values)


def test_a_checkpoint_that_cannot_be_written(call, folder, tmp_path):
    arguments = ["fit", folder / "train.parquet", tmp_path / "m", *FIT, "--max-epochs", 2, "--checkpoint"]
    code, _, err = call(*arguments, tmp_path / "m")
    assert (code, "another folder" in err) == (Code.USAGE, True)
    (tmp_path / "file").write_text("")
    code, _, err = call(*arguments, tmp_path / "file" / "below")
    assert (code, "checkpoint must be a folder" in err) == (Code.FAILED, True)
    assert call(*arguments, tmp_path / "kept")[0] == 0
    code, _, err = call(*arguments, tmp_path / "kept", "--seed", 4)
    assert (code, "is of another fit: seed was 0, is 4" in err) == (Code.BAD_INPUT, True)


def test_a_terminal_sees_a_bar(folder, tmp_path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    arguments = ["fit", folder / "train.parquet", tmp_path / "m", *FIT, "--max-epochs", 3]
    process = start_python(MAIN, *arguments, env={"TERM": "xterm", "COLUMNS": 150}, stderr=theirs, stdout=DEVNULL)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    assert "\u2501".encode() in seen
    assert b"epoch 3/3, loss " in seen


def test_without_the_extra_there_is_a_hint():
    result = run_python("import sys; sys.modules['click'] = None\n" + MAIN)
    assert result.returncode == 1
    assert "click is missing: pip install 'fastfactor[cli]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_loads_no_compiler(python):
    code = "import sys; from fastfactor.cli.app import run; assert run(['--help']) == 0; print('numba' in sys.modules)"
    assert python(code).splitlines()[-1] == "False"
