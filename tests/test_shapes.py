"""Any shape and any pattern of entries: finite factors of the right shape, nothing touched, nothing lost."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given
from hypothesis import strategies as st

import fastfactor as ff

pytestmark = pytest.mark.filterwarnings("ignore:all stored values of X equal:UserWarning")

RANKS = st.sampled_from([8, 16])  # two compiled widths


@st.composite
def patterns(draw):
    """A shape, and some of its places with values: empty rows and columns come by themselves."""
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    places = draw(st.sets(st.tuples(*(st.integers(0, n - 1) for n in shape)), min_size=1, max_size=60))
    if draw(st.booleans()):
        values = [draw(st.sampled_from([0.0, 1.0, -2.5]))] * len(places)
    else:
        values = draw(st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=len(places), max_size=len(places)))
    rows, cols = np.array(sorted(places)).T
    return shape, rows, cols, np.array(values, "float32")


ONE_ROW = ((1, 9), np.zeros(4, int), np.array([0, 2, 5, 8]), np.array([1, 2, 3, 4], "float32"))
ONE_COL = ((9, 1), np.array([0, 2, 5, 8]), np.zeros(4, int), np.array([1, 2, 3, 4], "float32"))
ONE_ENTRY = ((1, 1), np.zeros(1, int), np.zeros(1, int), np.array([7], "float32"))
CORNER = ((30, 25), np.array([29]), np.array([24]), np.array([-1], "float32"))
EQUAL = ((6, 5), *np.nonzero(np.ones((6, 5))), np.full(30, 2.5, "float32"))
ZEROS = ((6, 5), *np.nonzero(np.ones((6, 5))), np.zeros(30, "float32"))


@example(ONE_ROW, 8, True)
@example(ONE_COL, 8, True)
@example(ONE_ENTRY, 16, True)
@example(ONE_ENTRY, 16, False)
@example(CORNER, 8, False)
@example(EQUAL, 8, True)
@example(ZEROS, 8, False)
@given(patterns(), RANKS, st.booleans())
def test_missing(pattern, rank, biases):
    shape, rows, cols, values = pattern
    model = ff.fit(
        (rows, cols, values), rank, shape=shape, biases=biases, max_epochs=30, regularization=0.01, n_threads=1
    )
    assert model.U.shape == (shape[0], rank)
    assert model.V.shape == (shape[1], rank)
    assert model.shape == shape
    assert np.isfinite(model.reconstruct()).all()
    before, after = np.std(values) if biases else np.sqrt(np.mean(values**2)), model.predict(rows, cols) - values
    assert np.sqrt(np.mean(after**2)) <= 1.05 * before + 0.2
    untouched = np.setdiff1d(np.arange(shape[0]), rows)
    assert not model.row_bias[untouched].any()


@example(ONE_ROW, 8)
@example(ONE_COL, 16)
@example(ONE_ENTRY, 8)
@example(EQUAL, 8)
@example(ZEROS, 8)
@given(patterns(), RANKS)
def test_zero(pattern, rank):
    shape, rows, cols, values = pattern
    X = sp.csr_array((values, (rows, cols)), shape=shape)
    model = ff.fit(X, rank, unobserved="zero", max_epochs=40, n_threads=1)
    assert model.shape == shape
    assert np.isfinite(model.reconstruct()).all()
    assert (
        np.linalg.norm(model.reconstruct() - X.toarray())
        <= 1.05 * np.linalg.norm(values) + 0.2 * (shape[0] * shape[1]) ** 0.5
    )


def test_rank_larger_than_the_matrix():
    A = np.arange(6.0).reshape(2, 3)
    model = ff.fit(A, 16, unobserved="zero")
    np.testing.assert_allclose(model.reconstruct(), A, atol=0.05)


def test_numpy_integers_are_fine_as_arguments():
    A = np.arange(12.0).reshape(3, 4)
    model = ff.fit(A, np.int64(8), max_epochs=np.int32(2), seed=np.uint8(3), unobserved="zero", n_threads=np.int64(1))
    assert model.rank == 8
