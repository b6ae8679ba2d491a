"""Bad input is a clear error that names the argument and the value, before anything is computed."""

import re

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.solvers import fitting, weak

GOOD = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, 4.0]])


def csr(data=(1.0, 2.0, 3.0), indices=(0, 2, 1), indptr=(0, 2, 3), shape=(2, 3), kind=sp.csr_array):
    """A matrix whose arrays are put in place after scipy's own checks."""
    X = kind(shape, dtype=float)
    X.data, X.indices, X.indptr = np.array(data), np.array(indices), np.array(indptr)
    return X


def csc(indices=(0, 1, 0), indptr=(0, 1, 2, 3)):
    return csr(indices=indices, indptr=indptr, kind=sp.csc_array)


def coo(rows=(0, 1, 1), cols=(0, 1, 2), data=(1.0, 2.0, 3.0)):
    X = sp.coo_array(([1.0] * 3, ([0, 1, 1], [0, 1, 2])), shape=(2, 3))
    X.coords, X.data = (np.array(rows), np.array(cols)), np.array(data)
    return X


def dense(value, at=(1, 0)):
    X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).astype(np.result_type(float, type(value)))
    X[at] = value
    return X


WEAK = {"X": csr(), "unobserved": "weak"}
WEAK_TABLE = [
    ({"loss": "huber"}, ValueError, ["loss", "'squared'", "weak", "'huber'"]),
    ({"biases": True}, ValueError, ["biases", "weak", "True"]),
    ({"nonnegative": True}, ValueError, ["nonnegative", "weak", "True"]),
    ({"l1_regularization": 0.1}, ValueError, ["l1_regularization", "weak", "0.1"]),
    ({"learning_rate": 0.1}, ValueError, ["learning_rate", "weak", "0.1"]),
    ({"unobserved_weight": 0}, ValueError, ["unobserved_weight", "above 0", "0"]),
    ({"unobserved_weight": np.nan}, ValueError, ["unobserved_weight", "nan"]),
    ({"unobserved_weight": "small"}, TypeError, ["unobserved_weight", "'small'"]),
    ({"sample_weight": dense(-1.0, at=(1, 1))}, ValueError, ["sample_weight[1, 1]", "-1.0"]),
    ({"X": csr(data=(1.0, 0.0, 3.0))}, ValueError, ["X[0, 2]", "0.0", "positive"]),
    ({"X": dense(-2.0)}, ValueError, ["X[1, 0]", "-2.0", "positive"]),
    ({"X": dense(np.nan)}, ValueError, ["X[1, 0]", "nan"]),
    ({"X": dense(1j)}, TypeError, ["X", "complex"]),
    ({"X": np.zeros((2, 3))}, ValueError, ["X", "no observed entry"]),
]

UNSAMPLED = [
    {"unobserved": "zero"},
    {"loss": "huber"},
    {"regularization": 0.1},
    {"l1_regularization": 0.1},
    {"biases": False},
    {"nonnegative": True},
    {"nonnegative": (True, False)},
    {"dtype": np.float64},
    {"validation": 0.1},
    {"sample_weight": np.ones((2, 3))},
    {"init": 3},
    {"max_seconds": 5},
    {"max_memory": "1GB"},
    {"callback": print},
    {"checkpoint": "folder"},
]

# keyword arguments, exception, words that the message must have
TABLE = [
    # rank and other single arguments
    ({"rank": 0}, ValueError, ["rank", "0"]),
    ({"rank": -3}, ValueError, ["rank", "-3"]),
    ({"rank": 2.5}, TypeError, ["rank", "2.5"]),
    ({"rank": "4"}, TypeError, ["rank", "'4'"]),
    ({"rank": True}, TypeError, ["rank", "True"]),
    ({"rank": None}, TypeError, ["rank", "None"]),
    ({"unobserved": "unknown"}, ValueError, ["unobserved", "'unknown'", "missing", "zero"]),
    ({"loss": "hinge"}, ValueError, ["loss", "'hinge'", "squared"]),
    ({"regularization": -0.1}, ValueError, ["regularization", "-0.1"]),
    ({"regularization": np.nan}, ValueError, ["regularization", "nan"]),
    ({"regularization": "big"}, TypeError, ["regularization", "'big'"]),
    ({"regularization": (1, 2, 3)}, ValueError, ["regularization", "(1, 2, 3)"]),
    ({"regularization": (0.1, -2.0)}, ValueError, ["regularization", "-2"]),
    ({"l1_regularization": -0.1}, ValueError, ["l1_regularization", "-0.1"]),
    ({"l1_regularization": "auto"}, TypeError, ["l1_regularization", "'auto'"]),
    ({"nonnegative": 1}, ValueError, ["nonnegative", "1"]),
    ({"nonnegative": (True, None)}, ValueError, ["nonnegative", "None"]),
    ({"nonnegative": True, "X": GOOD * 1j}, TypeError, ["nonnegative", "complex"]),
    ({"l1_regularization": 0.1, "X": GOOD * 1j}, TypeError, ["l1_regularization", "complex"]),
    ({"biases": "yes"}, ValueError, ["biases", "'yes'"]),
    ({"learning_rate": 0}, ValueError, ["learning_rate", "0"]),
    ({"learning_rate": -1.0}, ValueError, ["learning_rate", "-1"]),
    ({"learning_rate": np.inf}, ValueError, ["learning_rate", "inf"]),
    ({"learning_rate": "fast"}, TypeError, ["learning_rate", "'fast'"]),
    ({"max_epochs": 0}, ValueError, ["max_epochs", "0"]),
    ({"max_epochs": 1.5}, TypeError, ["max_epochs", "1.5"]),
    ({"max_seconds": 0}, ValueError, ["max_seconds", "0"]),
    ({"max_seconds": "1 h"}, TypeError, ["max_seconds", "'1 h'"]),
    ({"seed": -1}, ValueError, ["seed", "-1"]),
    ({"seed": "a"}, TypeError, ["seed", "'a'"]),
    ({"n_threads": 0}, ValueError, ["n_threads", "0"]),
    ({"n_threads": 1.5}, TypeError, ["n_threads", "1.5"]),
    ({"n_threads": True}, TypeError, ["n_threads", "True"]),
    ({"dtype": "int32"}, TypeError, ["dtype", "int32", "float32"]),
    ({"dtype": "float16"}, TypeError, ["dtype", "float16"]),
    ({"dtype": "nonsense"}, TypeError, ["dtype", "'nonsense'"]),
    ({"callback": 3}, TypeError, ["callback", "3"]),
    ({"duplicates": "first"}, ValueError, ["duplicates", "'first'", "last"]),
    ({"duplicates": "first", "unobserved": "zero", "X": dense(1.0)}, ValueError, ["duplicates", "'first'"]),
    ({"shape": (5, 5)}, ValueError, ["shape", "(5, 5)", "(2, 3)"]),
    ({"shape": (5, 5), "unobserved": "zero", "X": dense(1.0)}, ValueError, ["shape", "(5, 5)", "(2, 3)"]),
    ({"duplicates": "mean", "unobserved": "zero", "X": dense(1.0)}, ValueError, ["duplicates", "'mean'"]),
    *((WEAK | arguments, error, words) for arguments, error, words in WEAK_TABLE),
    ({"sample_weight": np.ones(4)}, ValueError, ["sample_weight", "(4,)", "(2, 3)"]),
    ({"sample_weight": dense(-1.0)}, ValueError, ["sample_weight[1, 0]", "-1.0"]),
    ({"sample_weight": dense(np.nan)}, ValueError, ["sample_weight[1, 0]", "nan"]),
    ({"sample_weight": dense(np.inf)}, ValueError, ["sample_weight[1, 0]", "inf"]),
    ({"sample_weight": np.zeros((2, 3))}, ValueError, ["sample_weight", "0"]),
    ({"sample_weight": dense(1j)}, TypeError, ["sample_weight", "complex"]),
    ({"sample_weight": sp.csr_array(np.eye(2, 3))}, ValueError, ["sample_weight", "4 entries"]),
    ({"sample_weight": [1.0], "X": ([0, 1], [0, 0], [1.0, 2.0])}, ValueError, ["sample_weight", "(1,)", "2 entries"]),
    ({"sample_weight": csr(), "X": dense(1.0), "unobserved": "zero"}, ValueError, ["sample_weight", "dense", "zero"]),
    (
        {"sample_weight": dense(1.0), "X": dense(1.0), "unobserved": "zero", "max_memory": "1GB"},
        NotImplementedError,
        ["max_memory", "1GB", "unobserved='zero' with a sample_weight"],
    ),
    ({"unobserved": "weak", "max_memory": "1GB"}, NotImplementedError, ["max_memory", "1GB", "unobserved='weak'"]),
    ({"unobserved_weight": 0.1}, ValueError, ["unobserved_weight", "'missing'"]),
    ({"init": (np.ones((2, 2)), np.ones((3, 2)))}, TypeError, ["init", "tuple"]),
    ({"posterior_samples": -1}, ValueError, ["posterior_samples", "-1"]),
    ({"posterior_samples": 2.5}, TypeError, ["posterior_samples", "2.5"]),
    *((arguments | {"posterior_samples": 5}, ValueError, [*arguments, "posterior_samples"]) for arguments in UNSAMPLED),
    ({"max_memory": "much"}, ValueError, ["max_memory", "much"]),
    ({"progress": "bar"}, TypeError, ["progress", "'bar'"]),
    ({"checkpoint": 3}, TypeError, ["checkpoint", "3"]),
    # X: dense
    ({"X": None}, (TypeError, ValueError), ["X"]),
    ({"X": np.ones(3)}, ValueError, ["X", "2-D", "(3,)"]),
    ({"X": np.ones((2, 2, 2))}, ValueError, ["X", "2-D", "(2, 2, 2)"]),
    ({"X": np.ones((0, 3))}, ValueError, ["X", "empty", "(0, 3)"]),
    ({"X": np.ones((3, 0))}, ValueError, ["X", "empty", "(3, 0)"]),
    ({"X": np.full((2, 3), np.nan)}, ValueError, ["X", "no observed entry"]),
    ({"X": np.array([[1, None], [2, 3]], object)}, TypeError, ["X", "object"]),
    ({"X": np.array([["a", "b"]])}, TypeError, ["X", "<U1"]),
    ({"X": np.array([["2020-01-01"]], "datetime64[D]")}, TypeError, ["X", "datetime64"]),
    ({"X": dense(np.inf)}, ValueError, ["X[1, 0]", "inf"]),
    ({"X": dense(-np.inf)}, ValueError, ["X[1, 0]", "-inf"]),
    ({"X": dense(complex(np.inf, 0))}, ValueError, ["X[1, 0]", "inf"]),
    ({"X": dense(np.nan), "unobserved": "zero"}, ValueError, ["X[1, 0]", "nan"]),
    ({"X": dense(np.inf), "unobserved": "zero"}, ValueError, ["X[1, 0]", "inf"]),
    ({"X": dense(complex(0, np.nan)), "unobserved": "zero"}, ValueError, ["X[1, 0]", "nan"]),
    ({"X": np.ones(3), "unobserved": "zero"}, ValueError, ["X", "2-D"]),
    ({"X": np.ones((0, 3)), "unobserved": "zero"}, ValueError, ["X", "empty"]),
    ({"X": np.array([[1, None]], object), "unobserved": "zero"}, TypeError, ["X", "object"]),
    ({"X": dense(1.0) * 1e200}, ValueError, ["X", "e+200", "dtype float32"]),
    ({"X": dense(1.0) * 1e-200}, ValueError, ["X", "e-200", "dtype float32"]),
    ({"X": dense(1.0) * 1e200, "unobserved": "zero", "dtype": "float32"}, ValueError, ["X", "e+200", "float32"]),
    # X: sparse
    ({"X": csr(data=(1.0, np.nan, 3.0))}, ValueError, ["X", "nan", "1"]),
    ({"X": csr(data=(1.0, 2.0, np.inf))}, ValueError, ["X", "inf", "2"]),
    ({"X": csr(data=(1.0, np.nan, 3.0)), "unobserved": "zero"}, ValueError, ["X", "nan"]),
    ({"X": coo(data=(1.0, np.nan, 3.0))}, ValueError, ["X", "nan"]),
    ({"X": csc(), "rank": 0}, ValueError, ["rank"]),
    ({"X": csr(indices=(0, 3, 1))}, ValueError, ["X", "column index", "3", "0..2"]),
    ({"X": csr(indices=(0, -1, 1))}, ValueError, ["X", "column index", "-1"]),
    ({"X": csr(indptr=(0, 3, 2))}, ValueError, ["X.indptr"]),
    ({"X": csr(indptr=(-1, 2, 3))}, ValueError, ["X.indptr", "-1"]),
    ({"X": csr(indptr=(1, 2, 3))}, ValueError, ["X.indptr", "1"]),
    ({"X": csr(indptr=(0, 2))}, ValueError, ["X.indptr", "2"]),
    ({"X": csr(indptr=(0, 2, 9))}, ValueError, ["X.indptr", "9"]),
    ({"X": csr(indptr=(0.0, 2.0, 3.0))}, TypeError, ["X.indptr", "float64"]),
    ({"X": csc(indices=(0, 1, 5))}, ValueError, ["X", "row index", "5", "0..1"]),
    ({"X": csc(indices=(0, -2, 1))}, ValueError, ["X", "row index", "-2"]),
    ({"X": csc(indptr=(0, 2, 1, 3))}, ValueError, ["X.indptr"]),
    ({"X": csc(indptr=(0, 1, 2, 10**6))}, ValueError, ["X.indptr", "1000000"]),
    ({"X": csr(indices=(0, 10**6, 1)), "unobserved": "zero"}, ValueError, ["X", "column index", "1000000"]),
    ({"X": csr(indptr=(0, 2, 10**6)), "unobserved": "zero"}, ValueError, ["X.indptr", "1000000"]),
    ({"X": csc(indices=(0, 1, 10**6)), "unobserved": "zero"}, ValueError, ["X", "row index", "1000000"]),
    ({"X": coo(rows=(0, 5, 1))}, ValueError, ["X", "rows", "5", "0..1"]),
    ({"X": coo(cols=(0, 1, -4))}, ValueError, ["X", "cols", "-4"]),
    ({"X": coo(rows=(0, 10**6, 1)), "unobserved": "zero"}, ValueError, ["X", "rows", "1000000"]),
    ({"X": sp.csr_array((3, 4))}, ValueError, ["X", "no observed entry"]),
    ({"X": sp.csr_array(([1.0, 2.0], [1, 1], [0, 2]), shape=(1, 2))}, ValueError, ["X", "(0, 1)", "duplicates"]),
    # X: triplets
    ({"X": ([0], [0])}, ValueError, ["X", "2"]),
    ({"X": ([0, 1], [0], [1.0, 2.0])}, ValueError, ["X", "2", "1"]),
    ({"X": ([], [], [])}, ValueError, ["X", "no observed entry"]),
    ({"X": ([0.5], [0], [1.0])}, TypeError, ["X: rows", "float64"]),
    ({"X": ([[0]], [0], [1.0])}, ValueError, ["X: rows", "2-D"]),
    ({"X": ([-1], [0], [1.0])}, ValueError, ["X: rows", "-1"]),
    ({"X": ([0], [7], [1.0]), "shape": (2, 3)}, ValueError, ["X: cols", "7", "0..2"]),
    ({"X": ([0], [0], ["a"])}, TypeError, ["X"]),
    ({"X": ([0], [0], [np.nan])}, ValueError, ["X", "nan"]),
    ({"X": ([0], [0], [1.0]), "shape": (2, 3, 4)}, ValueError, ["shape", "(2, 3, 4)"]),
    ({"X": ([0], [0], [1.0]), "shape": (0, 3)}, ValueError, ["shape", "(0, 3)"]),
    ({"X": ([0], [0], [1.0]), "shape": 5}, TypeError, ["shape", "5"]),
    ({"X": ([0], [0], [1.0]), "shape": (2.5, 3)}, TypeError, ["shape", "2.5"]),
    ({"X": ([0], [0], [1.0]), "unobserved": "zero"}, TypeError, ["X", "triplets"]),
    # validation
    ({"validation": np.ones((3, 3))}, ValueError, ["validation", "(3, 3)", "(2, 3)"]),
    ({"validation": 1.0}, ValueError, ["validation", "1.0"]),
    ({"validation": 0.0}, ValueError, ["validation", "0"]),
    ({"validation": -0.1}, ValueError, ["validation", "-0.1"]),
    ({"validation": np.nan}, ValueError, ["validation", "nan"]),
    ({"validation": True}, (TypeError, ValueError), ["validation"]),
    ({"validation": "some"}, (TypeError, ValueError), ["validation"]),
    ({"validation": 1e-9}, ValueError, ["validation", "1e-09", "4"]),
    ({"validation": 1 - 1e-9}, ValueError, ["validation", "4"]),
    ({"validation": ([5], [0], [1.0])}, ValueError, ["validation: rows", "5"]),
    ({"validation": sp.csr_array((2, 3))}, ValueError, ["validation", "no observed entry"]),
    ({"validation": np.array([[np.inf, 1, 2], [1, 2, 3]])}, ValueError, ["validation[0, 0]", "inf"]),
    ({"validation": 0.1, "unobserved": "zero", "X": dense(1.0)}, ValueError, ["validation", "zero"]),
]


def name_of(case):
    arguments, _, words = case
    return "-".join([*arguments, *words])


@pytest.mark.parametrize("case", TABLE, ids=name_of)
def test_bad_input(case, monkeypatch):
    arguments, error, words = case
    monkeypatch.setattr(fitting, "fit_factors", lambda *_: pytest.fail("the fit began"))
    monkeypatch.setattr(weak.Alternation, "run", lambda *_: pytest.fail("the fit began"))
    with pytest.raises(error, match=".*".join(map(re.escape, words[:1]))) as caught:
        ff.fit(**({"X": GOOD, "rank": 8} | arguments))
    for word in words:
        assert word in str(caught.value)


def test_the_good_case_is_good():
    """The table's defaults would pass, so each row fails because of what it says."""
    for X, unobserved in (
        (GOOD, "missing"),
        (dense(1.0), "zero"),
        (csr(), "missing"),
        (csc(), "zero"),
        (coo(), "zero"),
    ):
        assert ff.fit(X, 8, unobserved=unobserved, max_epochs=1).shape == (2, 3)


@pytest.mark.parametrize("values", [2.5 * np.ones((3, 4)), (0.1 + 0.3j) * np.ones((3, 4)), 7 * np.ones((3, 4), int)])
def test_equal_values_warn_and_name_weak(values):
    with pytest.warns(UserWarning, match="all stored values of X equal .*unobserved='weak'") as caught:
        model = ff.fit(values, 8, regularization=0.1)
    assert caught[0].filename == __file__  # the line that called
    np.testing.assert_allclose(model.predict(1, 2), values[1, 2], atol=0.05)


def test_slow_dense_fit_warns_before_it_starts(monkeypatch):
    monkeypatch.setattr("fastfactor.problems._SLOW_DENSE_WORK", 10)
    with pytest.warns(UserWarning, match=r"2 x 3.* s on.*fastfactor\.svd"):
        ff.fit(dense(1.0), 8, unobserved="zero", max_epochs=1)
