"""What a fit will take is predicted from sizes, and max_memory is held to it."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import run_python

import fastfactor as ff
from fastfactor.matrix.labelled import Labelled
from fastfactor.options import check_memory

PLAIN = {"rank": 8, "max_epochs": 1, "regularization": 0.1, "validation": False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("400MB", 4e8), ("1.5 GiB", 1.5 * 2**30), ("2gb", 2e9), ("7", 7), (12, 12), ("3k", 3000), (None, np.inf)],
)
def test_amounts_of_memory(text, expected):
    assert check_memory(text) == expected


@pytest.mark.parametrize("bad", ["much", "-3MB", "3 PB", "", "1e3", 0, -5, np.nan, True, [3]])
def test_bad_amounts_are_named(bad, ratings):
    with pytest.raises((ValueError, TypeError), match="max_memory must be"):
        ff.fit(ratings, max_memory=bad)


def test_a_fit_that_fits_is_the_same(ratings):
    np.testing.assert_array_equal(ff.fit(ratings, **PLAIN, max_memory="1GB").U, ff.fit(ratings, **PLAIN).U)


@pytest.mark.parametrize("form", ["csr", "triplets", "dense", "disk", "zero", "zero, read", "zero, a table"])
def test_what_does_not_fit_is_refused_before_it_begins(ratings, form, tmp_path, monkeypatch):
    options = PLAIN | {"unobserved": "zero" if "zero" in form else "missing"}
    X = {
        "csr": lambda: ratings,
        "triplets": lambda: (*ratings.tocoo().coords, ratings.data),
        "dense": ratings.toarray,
        "zero": lambda: ratings,
        "zero, read": lambda: ff.io.label(ratings),
        "zero, a table": lambda: Labelled((*ratings.tocoo().coords, ratings.data), ratings.shape),
        "disk": lambda: ff.io.build_grid(ratings, tmp_path),
    }[form]()

    def never(*args, **kwargs):
        raise AssertionError("work began")

    for name in ("as_observations", "as_dense"):
        monkeypatch.setattr(f"fastfactor.problems.{name}", never)
    with pytest.raises(MemoryError, match=r"max_memory is 1 MB, but this fit needs [0-9]+ MB: [0-9]+ MB for ") as error:
        ff.fit(X, **options, max_memory="1MB")
    assert ("build_grid" in str(error.value)) == ("zero" not in form and form != "disk")
    with pytest.raises(AssertionError, match="work began"):
        ff.fit(X, **options, max_memory="1GB")


def test_bad_input_keeps_its_own_message():
    with pytest.raises(ValueError, match="2-D"):
        ff.fit(np.ones(3), max_memory=1)
    with pytest.raises(TypeError, match="must hold numbers"):
        ff.fit(np.array([["a"]]), max_memory=1)
    places, values = np.arange(3), np.ones(3)
    for bad, shape, error, message in (
        ((places, places, values), (10,), ValueError, r"shape must be 2-D, got shape \(10,\)"),
        ((places, places, values), "ab", TypeError, "shape must be two integers, got 'ab'"),
        ((np.array(["ann", "bob", "cy"]), places, values), None, TypeError, "X: rows must hold integers"),
        ((3, places, values), None, ValueError, "X: rows must be 1-D"),
        ((places, places, "abc"), None, TypeError, "X must hold numbers"),
        ((places, places, values[:, None]), None, ValueError, "rows, cols and values must be 1-D of one length"),
    ):
        with pytest.raises(error, match=message):
            ff.fit(bad, shape=shape, max_memory=1)


def test_large_fits_are_predicted_without_their_matrices():
    X = sp.csr_array((480_000, 17_800), dtype=np.float32)
    X.data = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (10**8,), (0,))
    X.indices = np.lib.stride_tricks.as_strided(np.zeros(1, np.int32), (10**8,), (0,))
    X.indptr = np.linspace(0, 10**8, 480_001).astype(np.int32)
    message = r"needs (9[0-9][0-9]|1,0[0-9][0-9]) MB: .*grid on disk .* it needs 2[0-9][0-9] MB"
    with pytest.raises(MemoryError, match=message):
        ff.fit(X, 32, max_epochs=5, regularization=0.1, validation=False, max_memory="400MB")


def test_predictions_hold(tmp_path):
    """Peaks are measured in one process, fit after fit, each after one that has compiled."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("resetting the peak of resident memory needs Linux")
    code = (Path(__file__).parent / "memory_use.py").read_text()
    # Without these the C library keeps freed memory, and the next fit has it for nothing.
    env = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    result = run_python(code, tmp_path / "grid", env=env)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found) == 14
    allowance = 24e6  # of fixed things: thread stacks, what the C library keeps, pages of code
    for name, (predicted, measured) in found.items():
        assert measured <= predicted, name
        assert predicted <= 1.5 * measured + allowance, name
