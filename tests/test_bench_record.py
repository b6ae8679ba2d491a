import json

import pytest

from bench import record


def result(samples, metric="seconds", better="lower"):
    recorder = record.Recorder(suite="speed")
    recorder.add("case", "peer", metric, samples, better=better)
    return recorder.to_json()


def test_result_survives_the_file(tmp_path):
    recorder = record.Recorder(quick=True, n_threads=1, suite="speed")
    assert recorder.add("case", "peer", "seconds", [3.0, 1.0, 2.0]) == 2.0
    recorder.add_curve("case", "peer", [1.0], [0.9])
    recorder.skip("other", "not installed")
    recorder.skip("other", "other: not installed")  # the same, from an error that names it
    record.save(recorder, tmp_path / "new" / "r.json")
    content = record.load(tmp_path / "new" / "r.json")
    assert content["measurements"][0]["value"] == 2.0
    assert content["curves"][0]["errors"] == [0.9]
    assert content["skipped"] == ["speed: other: not installed"]
    assert {"machine", "versions", "thread_pools", "date", "n_threads"} <= content.keys()
    assert content["versions"]["numpy"]


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match="no result of this benchmark in format 2"):
        record.load(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("old", "new", "better", "beyond"),
    [
        ([1.0, 1.1, 1.2], [2.0, 2.1, 2.2], "lower", True),
        ([1.0, 1.1, 2.5], [2.0, 2.1, 2.2], "lower", False),  # samples overlap
        ([1.0, 1.01], [1.02, 1.03], "lower", False),  # apart, but by too little to matter
        ([1.0], [1.1], "lower", False),  # one sample each: no spread is known
        ([1.0], [1.3], "lower", True),
        ([5.0, 6.0], [1.0, 2.0], "higher", True),
    ],
)
def test_compare_takes_noise_into_account(old, new, better, beyond):
    (change,) = record.compare(result(old, better=better), result(new, better=better))
    assert change.beyond_noise is beyond
    assert change.factor < 1.0


def test_compare_skips_what_only_one_has_and_what_is_only_told():
    assert record.compare(result([1.0]), result([1.0], metric="other")) == []
    assert record.compare(result([1.0], better=""), result([2.0], better="")) == []


def test_exact_figures_have_no_noise():
    def measured(error):
        recorder = record.Recorder(suite="accuracy")
        recorder.add("case", "peer", "test_rmse", error, "", exact=True)
        return recorder.to_json()

    (change,) = record.compare(measured(0.9), measured(0.91))
    assert change.beyond_noise
    (change,) = record.compare(measured(0.9), measured(0.9 + 1e-6))
    assert not change.beyond_noise
