"""Hand bad matrices to everything that takes one, and judge what comes of it: for test_fuzz_matrices.py.

As a program: `bad_calls.py FIRST COUNT PROGRESS WIDE` (see campaign.py).
"""

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from bad_matrices import FLOATS, KINDS, draw_values, pick, snapshot
from bad_stage import Fault, Stage, check_finite, check_model
from campaign import work_off
from scipy.sparse.linalg import ArpackNoConvergence

import fastfactor as ff
from fastfactor.exceptions import ConvergenceWarning, DivergenceError
from fastfactor.model import Factorization
from fastfactor.solvers import dispatch

PATIENT = dispatch.LAPACK_WORK
PLAIN = {"max_epochs": 2, "regularization": 0.1, "validation": False}
DOCUMENTED = (ValueError, TypeError, NotImplementedError, MemoryError, DivergenceError, ArpackNoConvergence)
# Of a message that says which argument is meant.
NAMES = re.compile(
    r"\bX\b|X_new|\bA\b|`[Ak]`|\bk\b|shape|duplicates|sample_weight|validation|\bdtype\b|loss|exclude|n_components|"
    r"source|rows|cols|features|samples|indptr|\.npz|\.npy|init|frame|ndim|"
    r"No convergence|diverge|Allocation failed|type not understood"
)
SPOKEN = re.compile(r"all stored values of X equal|triplets reached|Exited at iteration|bad line")


def shape_of(case):
    return getattr(case.X, "shape", case.truth.shape)


def call_missing(stage):
    X, rng = stage.draw(), stage.rng
    options = dict(PLAIN)
    loss = pick(rng, ("squared",) * 5 + ("absolute", "huber", "logistic", "poisson")) if stage.is_wide else "squared"
    if "duplicates" in stage.case.traits or rng.random() < 0.1:
        options["duplicates"] = pick(rng, ("error", "sum", "mean", "last"))
    if isinstance(X, tuple):
        options["shape"] = stage.case.truth.shape
    if stage.is_wide:
        vary_fit(stage, options)
    rank = int(rng.integers(1, 5))
    stage.need("empty", "wild", "duplicates")
    stage.must_work &= loss == "squared"
    model = ff.fit(X, rank, loss=loss, **options)
    check_model(model, stage.case.truth.shape, rank)


def vary_fit(stage, options):
    rng = stage.rng
    if rng.random() < 0.3:
        options["dtype"] = pick(rng, ("float32", "float64"))
    if rng.random() < 0.2:
        options["biases"] = False
        stage.must_work = False
    if rng.random() < 0.2:
        options["regularization"], options["validation"] = "auto", pick(rng, (None, 0.3))
        stage.must_work = False  # there may be too few entries to hold some out
    if rng.random() < 0.1:
        options["nonnegative"], options["l1_regularization"] = True, 0.01
        stage.must_work = False


def call_zero(stage):
    X = stage.draw(needs_all=True)
    stage.need("wild", "triplets")
    model = ff.fit(X, 3, unobserved="zero", max_epochs=2)
    check_model(model, stage.case.truth.shape, 3)


def call_weak(stage):
    X = stage.draw(needs_all=True)
    stage.must_work = False
    if (np.nan_to_num(stage.case.truth) < 0).any() if stage.case.truth.dtype.kind != "c" else True:
        stage.case.faults.add("negative value")
    if "wild" in stage.case.traits:
        stage.case.faults.discard("negative value")
    options = {"loss": "bpr"} if stage.rng.random() < 0.5 else {"unobserved_weight": 0.1}
    if isinstance(X, tuple):
        options["shape"] = stage.case.truth.shape
    model = ff.fit(X, 3, unobserved="weak", max_epochs=2, regularization=0.1, **options)
    check_model(model, stage.case.truth.shape, 3)


def call_sampled(stage):
    X, rng = stage.draw(), stage.rng
    stage.must_work = False
    options = {"shape": stage.case.truth.shape} if isinstance(X, tuple) else {}
    model = ff.fit(X, 3, posterior_samples=int(rng.integers(1, 4)), max_epochs=2, **options)
    check_model(model, stage.case.truth.shape, 3)
    with np.errstate(over="ignore", invalid="ignore"):
        value, std = model.predict(0, 0, return_std=True)
        low, high = model.predict_interval(0, 0)
    if np.isfinite(value) and not (std >= 0 and low <= high):
        raise Fault(f"{value} +- {std}, between {low} and {high}")


def call_screened(stage):
    """Rows and columns enough to be ruled out by 8-bit integers, of all sizes: as when all scores are computed."""
    rng, stage.must_work = stage.rng, False
    dtype, rank, shape = np.dtype(pick(rng, FLOATS[:2])), int(rng.integers(1, 20)), (17, pick(rng, (600, 1100)))
    factors = [draw_values(rng, dtype, pick(rng, KINDS), n * rank)[0].reshape(n, rank) for n in shape]
    model = Factorization(*factors, dtype.type(0), *(np.zeros(n, dtype) for n in shape))
    exclude = sp.csr_array(rng.random(shape) < pick(rng, (0.0, 0.3, 0.99)))
    n = pick(rng, (1, 30, 140))
    many = model.recommend(range(17), n, exclude)
    few = [model.recommend(rows, n, exclude) for rows in (range(9), range(9, 17))]
    for found, parts in zip(many, zip(*few, strict=True), strict=True):
        if not np.array_equal(found, np.vstack(parts), equal_nan=found.dtype.kind == "f"):
            raise Fault("columns were lost")


def call_beside(stage):
    """A good matrix, and a bad one for weights, validation or what is excluded."""
    bad, role = stage.draw(), pick(stage.rng, ("sample_weight", "validation", "exclude"))
    shape = stage.case.truth.shape
    stage.must_work = False
    if 0 in shape or bad is None:
        stage.case.faults.clear()
        return
    rows, cols = np.nonzero(~np.isnan(stage.case.truth))
    entries = rows, cols, np.arange(len(rows)) + 1.0
    if role == "sample_weight" and len(rows):
        if isinstance(bad, np.ndarray | list):
            stage.case.faults.discard("not finite")  # it may stand where X has nothing
        good = sp.coo_array((entries[2], (rows, cols)), shape=shape)
        check_model(ff.fit(good.tocsr(), 3, sample_weight=bad, **PLAIN), shape, 3)
    elif role == "validation" and len(rows):
        options = {"shape": shape} | PLAIN | {"validation": bad}
        check_model(ff.fit(entries, 3, **options), shape, 3)
    else:
        stage.case.faults.discard("not finite")  # only places matter
        model = make_model(*shape)
        cols, _ = model.recommend(range(shape[0]), 3, exclude=bad)
        if ((cols >= shape[1]) | (cols < -1)).any():
            raise Fault("recommended what is not there")


def make_model(m, n, unobserved="missing"):
    A = np.random.default_rng(m).random((m, n)) + 0.1
    return ff.fit(A, 3, unobserved=unobserved, max_epochs=1, regularization=0.1)


def call_new_rows(stage):
    unobserved = pick(stage.rng, ("missing", "zero"))
    X = stage.draw(needs_all=unobserved == "zero")
    m, n = stage.case.truth.shape
    method = pick(stage.rng, ("transform", "fold_in", "partial_fit"))
    stage.must_work = False
    if isinstance(X, tuple):
        stage.case.faults -= {"outside", "far outside"}  # rows that are new
    model = make_model(max(m - 1, 1), max(n, 1), unobserved)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found = getattr(model, method)(X)
    if method == "transform":
        check_finite(found)
    else:
        check_finite(found.U, found.V, found.row_bias, found.col_bias)


def call_pairs(stage):
    """Positions that are wrong in some way, for everything that takes them."""
    rng, case = stage.rng, None
    shape = pick(rng, ((), (3,), (2, 2), (0,)))
    kind = pick(rng, ("?", "b", "u1", "u8", "i4", "i8", "f8", "c16", "U", "O"))
    stage.case, stage.must_work = case, False
    with np.errstate(invalid="ignore"):
        rows = rng.choice([0, 1, 2, 3, 4, -1, 5, 2**31, 2**62] if rng.random() < 0.5 else [0, 1, 4], shape).astype(kind)
    stage.before = snapshot(rows)
    model = make_model(5, 4)
    try:
        if rng.random() < 0.5:
            check_finite(model.predict(rows, rng.integers(0, 4, pick(rng, ((), (3,), (2, 1))))))
        elif rng.random() < 0.5:
            model.recommend(rows, 2)
        else:
            check_finite(model.reconstruct(rows))
    except IndexError as error:
        if "outside" not in str(error):
            raise
    if snapshot(rows) != stage.before:
        raise Fault("the input was changed")


def compare_values(s, truth, tol):
    """Raise unless the singular values are the leading ones of the truth."""
    largest = max(np.abs(truth.real).max(initial=0.0), np.abs(truth.imag).max(initial=0.0)) or 1.0
    scale = 2.0 ** -np.clip(np.frexp(largest)[1], -1000, 1000)
    exact = np.linalg.svd(truth * scale, compute_uv=False)[: len(s)]
    grain = 4 * np.finfo(s.dtype).smallest_subnormal * scale
    if not np.allclose(np.asarray(s, np.float64) * scale, exact, rtol=tol, atol=tol * exact[0] + grain):
        raise Fault(f"singular values {s} for {exact / scale}")


def is_array_like(A):
    """Whether a tuple of lists was drawn: for functions that take no triplets it is a matrix of three rows."""
    return isinstance(A, tuple) and not any(isinstance(part, np.ndarray) for part in A)


def tolerance(s):
    return 1e-4 if s.dtype == np.float32 else 1e-8


def call_svds(stage):
    A, rng = stage.draw(needs_all=True), stage.rng
    if is_array_like(A):
        stage.case.faults.clear()
        return
    smaller = min(stage.case.truth.shape)
    k = int(rng.integers(1, max(min(smaller, 4), 2)))
    solver, which = pick(rng, ("arpack", "propack", "lobpcg")), pick(rng, ("LM", "LM", "SM"))
    stage.need("triplets", "converted", "list")
    stage.must_work &= smaller > k and "wild" not in stage.case.traits
    u, s, vh = ff.svds(A, k, solver=solver, which=which)
    check_finite(u, s, vh)
    if which == "LM":
        compare_values(s[::-1], np.nan_to_num(stage.case.truth, posinf=np.inf, neginf=-np.inf), tolerance(s))


def draw_with_rank(stage):
    """Return a matrix and how many triplets to ask of it, or None for a tuple of lists, which is no triplets here."""
    A = stage.draw(needs_all=True)
    if is_array_like(A):
        stage.case.faults.clear()
        return None
    smaller = min(stage.case.truth.shape)
    stage.need("triplets", "converted", "list", "wild")
    return A, int(stage.rng.integers(1, max(min(smaller, 5), 1) + 1))


def call_svd(stage):
    if (drawn := draw_with_rank(stage)) is None:
        return
    A, k = drawn
    result = ff.svd(A, k)
    check_finite(*result, result.residuals)
    if result.converged:
        compare_values(result.s, np.nan_to_num(stage.case.truth), tolerance(result.s))


def call_pca(stage):
    if (drawn := draw_with_rank(stage)) is None:
        return
    (A, k), rng = drawn, stage.rng
    center, scale = bool(rng.random() < 0.8), bool(rng.random() < 0.3)
    result = ff.pca(A, k, center=center, scale=scale)
    check_finite(*result, result.residuals, result.mean, result.scale)
    if "wild" not in stage.case.traits:  # their squares are numbers too
        check_finite(result.explained_variance, result.explained_variance_ratio)
    if result.converged and not scale:
        truth = np.nan_to_num(stage.case.truth)
        with np.errstate(over="ignore", invalid="ignore"):
            truth = truth - truth.mean(axis=0) if center else truth
        largest = np.abs(stage.case.truth).max(initial=0.0, where=~np.isnan(stage.case.truth))
        if "wild" not in stage.case.traits and np.abs(truth).max(initial=0.0) > 1e-6 * largest:
            compare_values(result.s, truth, tolerance(result.s))


def call_estimators(stage):
    from fastfactor import sklearn

    rng = stage.rng
    which = pick(rng, ("TruncatedSVD", "PCA", "MatrixFactorization", "RatingRegressor"))
    X = stage.draw(needs_all=which != "MatrixFactorization")
    stage.case.faults -= {"masked", "no numbers"}  # scikit-learn's own checks let these through
    if isinstance(X, tuple):
        stage.case.faults.clear()
    stage.must_work = False
    if which == "RatingRegressor":
        rows, cols = np.nonzero(~np.isnan(stage.case.truth))
        pairs = np.column_stack([rows, cols]).astype(pick(rng, ("i8", "f4", "u2", "O")))
        values = stage.case.truth[rows, cols]
        stage.case.faults.clear()
        model = sklearn.RatingRegressor(3, regularization=0.1, max_epochs=2).fit(pairs, values)
        check_finite(model.predict(pairs))
    elif which == "MatrixFactorization":
        model = sklearn.MatrixFactorization(3, regularization=0.1, max_epochs=2).fit(X)
        check_finite(model.components_, model.transform(X))
    else:
        model = getattr(sklearn, which)(1).fit(X)
        check_finite(model.components_)
        largest = np.abs(np.nan_to_num(stage.case.truth)).max(initial=0.0)
        if largest < 1e307:  # scikit-learn adds up before it takes the mean away
            check_finite(model.transform(X))


def call_io(stage):
    """Through a file, a grid on disk, or a frame."""
    X, rng = stage.draw(), stage.rng
    stage.must_work = False
    how = pick(rng, ("grid", "npz", "npy", "frame", "label", "mapped"))
    folder, shape = stage.folder, stage.case.truth.shape
    if isinstance(X, str):  # a path
        stage.case.faults.clear()
    elif how == "grid":
        grid = ff.io.build_grid(X, folder / "grid", shape=shape if isinstance(X, tuple) else None)
        check_model(ff.fit(grid, 3, **PLAIN), shape, 3)
    elif (
        how == "npz"
        and not stage.case.faults & {"fractions", "fractional indptr"}
        and sp.issparse(X)
        and X.format not in ("dok", "lil")
    ):
        sp.save_npz(folder / "X.npz", X, compressed=False)
        check_model(ff.fit(ff.io.read(folder / "X.npz"), 3, **PLAIN), shape, 3)
    elif how == "npy" and type(X) is np.ndarray and not X.dtype.hasobject:
        np.save(folder / "X.npy", X)
        check_model(ff.fit(ff.io.read(folder / "X.npy"), 3, **PLAIN), shape, 3)
    elif how == "frame" and isinstance(X, tuple) and len(X) == 3 and not stage.case.faults - {"not finite"}:
        import pandas as pd

        found = ff.io.from_frame(pd.DataFrame(dict(zip("rcv", map(np.asarray, X), strict=True))))
        check_model(ff.fit(found, 3, duplicates="mean", **PLAIN), found.shape, 3)
    elif how == "label" and not isinstance(X, tuple) and np.ndim(X) == 2 and shape_of(stage.case) == shape:
        labelled = ff.io.label(X, range(shape[0]), [f"c{i}" for i in range(shape[1])])
        check_model(ff.fit(labelled, 3, **PLAIN), shape, 3)
    elif how == "mapped" and sp.issparse(X) and X.format in ("csr", "csc") and len(X.indices) and len(X.data):
        call_mapped(stage, X)
    else:
        stage.case.faults.clear()


def call_mapped(stage, X):
    """Arrays in files: what is read piece by piece."""
    for name in ("data", "indices", "indptr"):
        np.save(stage.folder / f"{name}.npy", getattr(X, name))
    mapped = type(X)(X.shape, dtype=X.dtype)
    for name in ("data", "indices", "indptr"):
        setattr(mapped, name, np.load(stage.folder / f"{name}.npy", mmap_mode="r"))
    if stage.rng.random() < 0.5:
        result = ff.svd(mapped, 1)
        check_finite(*result)
    else:
        check_model(ff.fit(mapped, 3, **PLAIN), X.shape, 3)


CALLS = (
    [call_missing] * 4
    + [call_svds, call_svd, call_pca] * 2
    + [call_zero, call_weak, call_sampled, call_beside, call_new_rows, call_pairs, call_screened]
    + [call_estimators, call_io]
)


def judge(stage, call):
    """Return what came of it, or raise a Fault."""
    try:
        call(stage)
        outcome = "answer"
    except Fault:
        raise
    except DOCUMENTED as error:
        outcome = type(error).__name__
        if call is not call_estimators and not NAMES.search(str(error)):  # scikit-learn has its own words
            raise Fault(f"names no argument: {outcome}: {error}") from error
        if stage.must_work and stage.case.is_sound:
            raise Fault(f"refused though sound: {outcome}: {error}") from error
    case = stage.case
    if case is not None:
        if outcome == "answer" and case.faults:
            raise Fault("a fault was accepted")
        if snapshot(case.X) != stage.before:
            raise Fault("the input was changed")
    return outcome


def try_case(number, is_wide, folder):
    """Return what came of a case, and the fault if there is one."""
    stage = Stage(number, is_wide, folder)
    call = pick(stage.rng, CALLS)
    dispatch.LAPACK_WORK = 0 if stage.rng.random() < 0.4 else PATIENT  # else small matrices never see the kernels
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            outcome = judge(stage, call)
            for each in said:
                own = issubclass(each.category, ConvergenceWarning) or SPOKEN.search(str(each.message))
                # Variances of numbers beyond 1e154 overflow in scikit-learn's attributes too.
                own = own or (call is call_estimators and "wild" in stage.case.traits)
                if not own and "/sklearn/" not in each.filename:
                    raise Fault(f"{each.category.__name__}: {each.message} ({Path(each.filename).name}:{each.lineno})")
    except Exception as error:
        kind = str(error) if isinstance(error, Fault) else f"undocumented {type(error).__name__}: {error}"
        return "fault", {"call": call.__name__, "fault": kind, "X": str(stage.case)}
    return f"{call.__name__}: {outcome}", None


if __name__ == "__main__":
    first, count, progress, is_wide = sys.argv[1:]
    work_off(lambda number, folder: try_case(number, is_wide == "1", folder), int(first), int(count), progress)
