"""Every kernel on small inputs, as plain Python: for the coverage that `.ci/lanes nojit` measures.

What comes out is compared with the answers elsewhere (tests/test_lanes.py); here it must be finite.
"""

import json
import sys
import tempfile
import warnings

import numba
import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.manifest import MANIFEST
from fastfactor.model import Factorization
from fastfactor.solvers import dispatch, triplets

PLAIN = {"max_epochs": 2, "regularization": 0.1, "validation": False}
rng = np.random.default_rng(0)
A = rng.standard_normal((14, 11))
SPARSE = np.where(rng.random(A.shape) < 0.6, A, 0.0)
FULL = sp.csr_array(rng.standard_normal((32, 32)))  # 16 entries a block: more than runs that take turns


def check(*arrays):
    for array in arrays:
        assert np.isfinite(array).all()


def fit_each():
    for loss in ("squared", "absolute", "huber"):
        model = ff.fit(A, 3, loss=loss, **PLAIN)
        check(model.U, model.V, model.fold_in(A[:3]).U)
    logistic = ff.fit(A > 0, 3, loss="logistic", **PLAIN)
    check(logistic.U, logistic.predict(range(5), range(5)), ff.fit(FULL, 3, **PLAIN).U)
    own = ff.Loss(lambda x, p: (x - p) ** 2, lambda x, p: p - x)
    check(ff.fit(A, 3, loss=own, **PLAIN).U, ff.fit(A, 2, loss=own, **PLAIN).U)
    with pytest.raises(TypeError, match="must be callable"):
        ff.Loss(3, 4)
    check(ff.fit(np.round(np.abs(A)), 3, loss="poisson", **PLAIN).U)
    for values in (A + 1j * A[::-1], A.astype(np.float32), A):
        check(ff.fit(values, 3, unobserved="zero", max_epochs=2).U, ff.fit(values, 3, **PLAIN).U)
    check(ff.fit(A, 144, **PLAIN).U)
    check(ff.fit(A, 3, **(PLAIN | {"l1_regularization": 0.1})).U, ff.fit(A, 3, nonnegative=True, **PLAIN).U)
    check(ff.fit(A, 3, sample_weight=np.abs(A), **PLAIN).U, ff.fit(A, 3, max_epochs=3).U)
    check(ff.fit(A, 3, sample_weight=np.abs(A), **(PLAIN | {"validation": 0.2})).U)
    check(ff.fit(A, 3, learning_rate=(np.full(14, 0.1), 0.1), **PLAIN).U)
    check(ff.fit(A, 3, **(PLAIN | {"validation": 0.2})).U)
    weak = ff.fit(np.where(A > 0, 1.0, 0.0), 3, unobserved="weak", max_epochs=2, regularization=0.1)
    check(weak.U, weak.fold_in(np.where(A > 0, 1.0, 0.0)).U)
    pairs = ff.fit(np.where(A > 0, 1.0, 0.0), 3, unobserved="weak", loss="bpr", max_epochs=2, regularization=0.1)
    check(pairs.U, pairs.fold_in(np.where(A > 0, 1.0, 0.0)).U)
    check(logistic.fold_in(A[:3] > 0).U)
    for X, rank in ((A, 2), (sp.csr_array(SPARSE), 9)):  # rows of more entries than numbers, and of fewer
        check(*ff.fit(X, rank, posterior_samples=2, max_epochs=2).predict([0, 1], [1, 2], return_std=True))
    again = ff.fit(A, 3, **PLAIN)
    check(again.partial_fit(A, max_epochs=1).U, again.predict(range(5), range(5)))
    seen = sp.csr_array(SPARSE)
    for cols, _ in (again.recommend(range(14), 3, exclude=seen), again.recommend(range(14), 11)):
        check(ff.metrics.recall_at_k(cols, seen, 3), ff.metrics.ndcg_at_k(cols, seen, 3))
    check(ff.metrics.rmse(A, SPARSE), ff.metrics.mae(A, SPARSE))
    again.similar_rows([0, 1], 3)


def decompose_each():
    dispatch.LAPACK_WORK = dispatch.LAPACK_SIZE = triplets.GRAM_LIMIT = triplets.SHORT = 0
    wide = rng.standard_normal((70, 66)) * (rng.random((70, 66)) < 0.3)
    for matrix in (wide, wide + 1j * wide[::-1]):
        for each in (matrix, np.asfortranarray(matrix), *map(sp.csr_array, (matrix, matrix.T)), sp.csc_array(matrix)):
            check(*ff.svd(each, 2, tol=1e-3))
    check(*ff.svds(sp.csr_array(wide), 2, which="SM", solver="propack"))
    check(*ff.pca(sp.csr_array(np.tile(wide, (1, 30))), 2, tol=1e-2))
    for matrix in (np.ones((70, 66)), sp.csr_array(np.ones((70, 66)))):  # of rank one
        check(*ff.svd(matrix, 3))


def rank_each():
    """More rows and columns than `solvers/top.py` scores in full, in three tiles; one column of zeros, one row."""
    sides = [rng.standard_normal((n, 3)) * np.exp(rng.standard_normal((n, 1))) for n in (17, 1100)]
    sides[0][3] = sides[1][5] = 0
    model = Factorization(*sides, 0.0, np.zeros(17), np.zeros(1100))
    seen = sp.csr_array(rng.random((17, 1100)) < 0.1)
    for n in (1, 200):  # so many that lists have to be cut
        cols, scores = model.recommend(range(17), n, exclude=seen)
        check(scores)
        few = model.recommend(range(9), n, exclude=seen)
        assert (cols[:9] == few[0]).all()


def lay_out_each():
    unsorted = sp.csr_array((np.ones(4), [2, 0, 2, 1], [0, 2, 4]), shape=(2, 3))
    with pytest.raises(ValueError, match="duplicates"):
        ff.fit((np.array([0, 0, 1]), np.array([1, 1, 0]), np.ones(3)), 2, **PLAIN)
    check(ff.fit((np.array([0, 0, 1]), np.array([1, 1, 0]), np.arange(1.0, 4)), 2, duplicates="sum", **PLAIN).U)
    check(ff.fit(unsorted * sp.csr_array([[1.0, 2.0, 3.0]]), 2, **PLAIN).U)
    with tempfile.TemporaryDirectory() as folder:
        grid = ff.io.build_grid(A, folder)
        check(ff.fit(grid, 3, **PLAIN).U, ff.fit(grid, 3, **(PLAIN | {"validation": 0.2})).U)
        entry = json.loads((grid.folder / MANIFEST).read_text())["arrays"]["entries"]
        with open(grid.folder / entry["file"], "r+b") as file:
            file.seek(200)
            file.write(b"\xff" * 4)
        with pytest.raises(ValueError, match="outside their blocks"):
            ff.fit(ff.io.open_grid(folder), 3, **PLAIN)


if __name__ == "__main__":
    assert numba.config.DISABLE_JIT, "set NUMBA_DISABLE_JIT=1"
    warnings.simplefilter("ignore", UserWarning)
    for part in (fit_each, decompose_each, rank_each, lay_out_each):
        part()
        print(part.__name__, "ran", file=sys.stderr)
