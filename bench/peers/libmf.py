"""LIBMF: parallel SGD with an adaptive step per row, C++.

Its C functions are called directly: the Python wrapper copies and leaks the triplets, stores indices as float32, and
prints when imported. Nothing but the line that LIBMF writes and flushes tells when an epoch ended, so the lines are
read through a pipe and stamped. The training error in them is summed up during the sweep and costs nothing; the
validation error is one more pass over those entries.

It can wait for ever at the end of a fit: when its threads finish a whole further epoch between the main thread's
`resume` and `terminate`, they sleep and nobody wakes them. That takes an epoch of well under a millisecond, as small
matrices have (seen once in some 300 fits of 20,000 entries). Those are fitted in a process of their own, which is
killed when it does not return, and the fit is tried again. The times are taken in there, the start of it left out.
"""

import ctypes
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bench.apart import Apart
from bench.peers.base import CompletionPeer, Predictor, Recipe, Run, factor_predictor

_NODE = np.dtype([("row", np.int32), ("col", np.int32), ("value", np.float32)])
_int, _float, _bool = ctypes.c_int, ctypes.c_float, ctypes.c_bool


class _Problem(ctypes.Structure):
    _fields_ = (("m", _int), ("n", _int), ("nnz", ctypes.c_longlong), ("nodes", ctypes.c_void_p))


class _Parameter(ctypes.Structure):
    _fields_ = (
        *((name, _int) for name in ("fun", "k", "nr_threads", "nr_bins", "nr_iters")),
        *((name, _float) for name in ("lambda_p1", "lambda_p2", "lambda_q1", "lambda_q2", "eta")),
        *((name, _bool) for name in ("do_nmf", "quiet", "copy_data")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, _int) for name in ("fun", "m", "n", "k")),
        ("b", _float),
        ("P", ctypes.POINTER(_float)),
        ("Q", ctypes.POINTER(_float)),
    )


_ProblemPointer, _ModelPointer = ctypes.POINTER(_Problem), ctypes.POINTER(_Model)


def _load_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("libmf")
    if spec is None or spec.origin is None:
        raise ImportError("libmf is not installed")
    library = ctypes.CDLL(str(next(Path(spec.origin).parents[1].glob("libmf*.so"))))
    library.mf_get_default_param.restype = _Parameter
    library.mf_train_with_validation.argtypes = (_ProblemPointer, _ProblemPointer, _Parameter)
    library.mf_train_with_validation.restype = _ModelPointer
    library.mf_destroy_model.argtypes = (ctypes.POINTER(_ModelPointer),)
    return library


_LIBRARY = _load_library()


_SAFE = 500_000  # entries from which a fit is trusted to return
_PATIENCE = 60  # seconds; a fit of fewer takes one or two

Factors = tuple[NDArray[np.float32], NDArray[np.float32], float]


def train_model(
    train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None
) -> tuple[list[float], list[float], Factors]:
    """Return the ends of the epochs, their test errors where there are test entries, and the factors."""
    nodes = _to_nodes(train.tocoo())
    test_nodes = np.empty(0, _NODE) if test is None else _to_nodes(test)
    problems = [_Problem(*train.shape, len(part), part.ctypes.data) for part in (nodes, test_nodes)]
    parameter = _to_parameter(recipe)
    start = time.perf_counter()
    model, lines = _call_and_stamp_lines(lambda: _LIBRARY.mf_train_with_validation(*problems, parameter))
    epochs = [(stamp - start, line.split()) for stamp, line in lines if line.split()[0].isdigit()]
    errors = [float(cells[2]) for _, cells in epochs] if test is not None else []
    return [end for end, _ in epochs], errors, _take_factors(model)


_train_apart = Apart(train_model, _PATIENCE)


class Libmf(CompletionPeer):
    name = "libmf"

    def fit(self, train: sp.csr_matrix, recipe: Recipe, test: sp.coo_matrix | None = None) -> Run:
        ends, errors, factors = (train_model if train.nnz >= _SAFE else _train_apart)(train, recipe, test)
        return Run(range(1, len(ends) + 1), ends, _as_predictor(*factors), errors)

    def warm_up(self, recipe: Recipe) -> None:
        return None  # nothing is compiled


def _to_nodes(entries: sp.coo_matrix) -> NDArray[np.void]:
    nodes = np.empty(entries.nnz, _NODE)
    nodes["row"], nodes["col"], nodes["value"] = entries.row, entries.col, entries.data
    return nodes


def _to_parameter(recipe: Recipe) -> _Parameter:
    parameter = _LIBRARY.mf_get_default_param()
    parameter.k, parameter.nr_iters, parameter.nr_threads = recipe.rank, recipe.n_epochs, recipe.n_threads
    parameter.lambda_p2 = parameter.lambda_q2 = recipe.regularization
    parameter.eta = recipe.learning_rate
    return parameter


def _take_factors(model: Any) -> Factors:
    """Copy the factors, and the mean of the values, out of LIBMF's memory and free it."""
    content = model.contents
    U = np.ctypeslib.as_array(content.P, (content.m, content.k)).copy()
    V = np.ctypeslib.as_array(content.Q, (content.n, content.k)).copy()
    mean = float(content.b)
    _LIBRARY.mf_destroy_model(ctypes.byref(model))
    return U, V, mean


def _as_predictor(U: NDArray[np.float32], V: NDArray[np.float32], mean: float) -> Predictor:
    """Predict as LIBMF does: the mean where a row or column had no entries, which is NaN in the factors."""
    known = factor_predictor(U, V)

    def predict(rows: NDArray[np.integer], cols: NDArray[np.integer]) -> NDArray[np.floating]:
        return np.nan_to_num(known(rows, cols), nan=mean)

    return predict


def _call_and_stamp_lines(call: Callable[[], Any]) -> tuple[Any, list[tuple[float, str]]]:
    """Run `call` with the process's standard output sent into a pipe; return its result and (time, line) pairs."""
    sys.stdout.flush()
    read_end, write_end = os.pipe()
    saved = os.dup(1)
    os.dup2(write_end, 1)
    os.close(write_end)
    lines: list[tuple[float, str]] = []

    def read() -> None:
        with os.fdopen(read_end) as stream:
            lines.extend((time.perf_counter(), line) for line in stream if line.strip())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        result = call()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        reader.join()
    return result, lines


PEERS = [Libmf()]
