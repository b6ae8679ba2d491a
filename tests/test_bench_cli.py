import json
import sys

import pytest

from bench import __main__ as cli
from bench import record, suites


@pytest.fixture
def call(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        return cli.main()

    return run


def save_result(path, samples):
    recorder = record.Recorder(suite="epochs")
    recorder.add("20M, rank 32", "peer", "updates_per_second", samples, "M/s", "higher")
    recorder.skip("rival", "not <installed>")
    recorder.suite = "time_to_rmse"
    recorder.add_curve("20M", "peer", [1.0, 2.0], [0.9, 0.8])
    record.save(recorder, path)


def test_list_names_suites_peers_and_the_data_variable(call, capsys, monkeypatch):
    monkeypatch.delenv("FASTFACTOR_DATA", raising=False)
    assert call("list") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*suites.NAMES, "numba_loops", "FASTFACTOR_DATA"))


def test_every_suite_describes_itself():
    for name in suites.NAMES:
        suite = suites.load(name)
        assert suite.DESCRIPTION
        assert callable(suite.run)


def test_compare_fails_when_something_got_slower(call, capsys, tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    save_result(old, [100.0, 101.0])
    save_result(new, [50.0, 51.0])
    assert call("compare", old, new) == 1
    assert "WORSE" in capsys.readouterr().out
    assert call("compare", old, old) == 0
    assert call("--compare", old, new) == 1


def test_what_is_no_result_ends_with_a_line_and_a_code_of_its_own(call, capsys, tmp_path):
    for text in ("", '{"format": 1}'):
        (tmp_path / "old.json").write_text(text)
        with pytest.raises(SystemExit, match="2"):
            call("compare", tmp_path / "old.json", tmp_path / "old.json")
        assert "old.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "nothing"), "error: there is no suite 'nothing'; there are epochs, "),
        (("figures", "nothing"), "error: there is no picture 'nothing'; there are best-approximation, "),
        (("tune", "nothing", "ours"), "error: nothing: there is no nothing.npz"),
        (("tune", "1M", "nobody"), "error: nobody is no completion peer"),
    ],
)
def test_names_of_nothing_end_with_a_line(call, capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setenv("FASTFACTOR_DATA", str(tmp_path))
    assert call(*arguments) == 2
    assert capsys.readouterr().err.startswith(words)


def test_threads_are_at_least_one(call, capsys):
    with pytest.raises(SystemExit, match="2"):
        call("run", "epochs", "--threads", "0")
    assert "must be at least 1, got 0" in capsys.readouterr().err


def test_kept_results_can_be_read():
    for path in cli.RESULTS.glob("*.json"):
        assert record.load(path)["measurements"], path


def test_report_is_one_page_with_everything(call, tmp_path):
    pytest.importorskip("matplotlib")
    old, new, page = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "page.html"
    save_result(old, [100.0, 101.0])
    save_result(new, [50.0, 51.0])
    assert call("report", new, "--compare", old, "--output", page) == 0
    text = page.read_text()
    for part in ("<h2>Where</h2>", record.load(new)["machine"]["processor"], "updates_per_second", "50.5 M/s", "WORSE"):
        assert part in text
    assert text.count("data:image/png;base64,") == 2
    assert "not &lt;installed&gt;" in text
    assert "http" not in text
    assert call("report", new) == 0
    assert "WORSE" not in (tmp_path / "new.html").read_text()


def test_run_writes_a_result(call, tmp_path, monkeypatch):
    class Suite:
        DESCRIPTION = "one figure"

        @staticmethod
        def run(recorder):
            assert recorder.quick
            recorder.add("case", "peer", "seconds", [1.0])

    monkeypatch.setattr(suites, "load", lambda name: Suite)
    assert call("run", "--quick", "epochs", "--output", tmp_path / "r.json") == 0
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["measurements"][0]["suite"] == "epochs"


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from bench import plots

    save_result(tmp_path / "r.json", [1.0, 2.0])
    drawn = plots.save_all(record.load(tmp_path / "r.json"), tmp_path / "r")
    assert [path.name for path in drawn] == ["r-time-to-rmse.png", "r-epochs.png"]
    assert all(path.stat().st_size > 10_000 for path in drawn)
