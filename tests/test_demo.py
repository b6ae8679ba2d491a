"""The demo in a small form: three packages of the standard library."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastfactor
from fastfactor import demo
from fastfactor.__main__ import main
from fastfactor.model import Factorization

STDLIB = Path(sysconfig.get_path("stdlib"))


def write_modules(folder, sources):
    for name, source in sources.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def test_identifiers_are_counted_once_per_use():
    source = b"import os.path as p\ndef f(x, *, y=1):\n    x.close(key=x)\nclass C: pass\n# comment\n'text'\n"
    assert sorted(demo.list_identifiers(source)) == sorted(["os.path", "f", "x", "y", "x", "close", "key", "x", "C"])


def test_tests_and_installed_packages_are_left_out(tmp_path):
    write_modules(tmp_path, dict.fromkeys(["a", "b/__init__", "b/c", "b/__main__", "test/d", "site-packages/e"], ""))
    assert [name for name, _ in demo.find_modules(tmp_path)] == ["a", "b", "b.c"]
    assert [name for name, _ in demo.find_modules(tmp_path, ["b"])] == ["b", "b.c"]


def test_library_counts_what_at_least_three_modules_use(tmp_path):
    names = " ".join(f"n{i}," for i in range(20))
    write_modules(tmp_path, {"a": f"{names} n0, rare", "b": names, "c": names, "small": "n0", "broken": "("})
    library = demo.read_library(tmp_path)
    assert library.modules == ["a", "b", "c"]
    assert library.identifiers == sorted(f"n{i}" for i in range(20))
    assert library.counts.toarray().sum(axis=1).tolist() == [21, 20, 20]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="found 0 usable modules"):
        demo.read_library(tmp_path)


def test_weighted_rows_have_length_one():
    library = demo.read_library(STDLIB, ["json", "email"])
    W = demo.compute_weights(library)
    lengths = np.sqrt((W.toarray() ** 2).sum(axis=1))
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_similarity_is_the_cosine_of_rows_of_the_product():
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((5, 2)), rng.standard_normal((7, 2))
    U[3] = 0
    model = Factorization(U, V, 0.0, np.zeros(5), np.zeros(7))
    product = U @ V.T
    lengths = np.linalg.norm(product, axis=1)
    lengths[3] = 1
    np.testing.assert_allclose(
        demo.compute_similarity(model), product @ product.T / np.outer(lengths, lengths), atol=1e-12
    )


def test_demo_runs_on_three_packages(capsys):
    assert main(["demo", "json", "email", "asyncio", "--rank", "8"]) == 0
    out = capsys.readouterr().out
    for line in ("shape", "M updates/s", "predicting the mean", "the optimum, from svds", "asyncio.base_events"):
        assert line in out
    assert all(len(line) <= 120 for line in out.splitlines())


def test_unknown_package_is_named_as_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "no_such_package"])
    assert stop.value.code == 2
    assert "found 0 usable modules" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--rank", "0"), "--rank: must be at least 1, got 0"),
        (("--threads", "-2"), "--threads: must be at least 1, got -2"),
        (("--seed", "-1"), "--seed: must be at least 0, got -1"),
        (("--rank", "many"), "--rank: invalid integer value: 'many'"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_read(capsys, monkeypatch, option, words):
    monkeypatch.setattr(demo, "run", lambda *_, **__: pytest.fail("the demo began"))
    with pytest.raises(SystemExit) as stop:
        main(["demo", *option])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_without_a_command_usage_is_printed():
    done = subprocess.run([sys.executable, "-m", "fastfactor"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m fastfactor")
    assert "demo" in done.stdout


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"fastfactor {fastfactor.__version__}\n"
