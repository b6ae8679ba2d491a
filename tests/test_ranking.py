"""Recommendations and neighbours against a full stable sort of every score."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import fastfactor as ff
from fastfactor.ids import Ids
from fastfactor.matrix.labelled import Labelled
from fastfactor.model import Factorization
from fastfactor.solvers import top


def make_model(n_rows, n_cols, rank=3, dtype="float32", biases=True, seed=0):
    """Factors are small integers, so that scores are exact and have many ties."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.integers(-2, 3, shape).astype(dtype)

    offsets = (draw(n_rows), draw(n_cols)) if biases else (np.zeros(n_rows, dtype), np.zeros(n_cols, dtype))
    return Factorization(draw(n_rows, rank), draw(n_cols, rank), np.dtype(dtype).type(biases), *offsets)


def draw_seen(n_rows, n_cols, density, seed=1):
    return sp.csr_array(np.random.default_rng(seed).random((n_rows, n_cols)) < density)


def sort_all(scores, n, forbidden):
    """Return what `select_top` should, from the whole matrix of scores."""
    cols, values = np.full((len(scores), n), -1), np.full((len(scores), n), np.nan, scores.dtype)
    for r, row in enumerate(scores):
        allowed = np.flatnonzero(~forbidden[r])
        best = allowed[np.argsort(-row[allowed], kind="stable")][:n]
        cols[r, : len(best)], values[r, : len(best)] = best, row[best]
    return cols, values


def assert_ranked(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[0].dtype == np.int64
    assert found[1].dtype == expected[1].dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(
    ("n_rows", "n_cols", "n"), [(300, 2500, 20), (9, 1024, 3), (600, 37, 50), (1, 1, 1), (70, 1031, 1)]
)
def test_recommend_equals_a_full_sort(n_rows, n_cols, n, biases, dtype):
    model = make_model(n_rows, n_cols, dtype=dtype, biases=biases)
    rows = np.random.default_rng(2).permutation(n_rows)
    scores = model.reconstruct(rows)
    assert_ranked(model.recommend(rows, n), sort_all(scores, n, np.zeros(scores.shape, bool)))
    exclude = draw_seen(n_rows, n_cols, 0.4)
    expected = sort_all(scores, n, exclude.toarray()[rows].astype(bool))
    assert_ranked(model.recommend(rows, n, exclude), expected)


@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 100), st.floats(0, 1), st.integers(0, 99))
def test_recommend_equals_a_full_sort_for_any_shape(n_rows, n_cols, n, density, seed):
    model = make_model(n_rows, n_cols, seed=seed)
    exclude = draw_seen(n_rows, n_cols, density, seed)
    expected = sort_all(model.reconstruct(), n, exclude.toarray().astype(bool))
    assert_ranked(model.recommend(np.arange(n_rows), n, exclude), expected)


@pytest.mark.parametrize("order", ["ascending", "descending", "constant"])
def test_any_order_of_scores(order):
    steps = {"ascending": np.arange(3000), "descending": -np.arange(3000), "constant": np.zeros(3000)}[order]
    V = steps.astype(np.float32)[:, None]
    model = Factorization(np.ones((2, 1), np.float32), V, 0.0, np.zeros(2, np.float32), np.zeros(3000, np.float32))
    assert_ranked(model.recommend([0, 1], 40), sort_all(np.vstack([V.T, V.T]), 40, np.zeros((2, 3000), bool)))


@pytest.mark.parametrize("n_cols", [5, 1000, 1024, 1027, 2900])
@pytest.mark.parametrize("n_rows", [1, 5, 13, 300])
def test_equal_columns_come_in_order_whatever_tile_they_are_in(n_rows, n_cols):
    rng = np.random.default_rng(4)
    V = np.tile(rng.standard_normal(37).astype(np.float32), (n_cols, 1))
    U = rng.standard_normal((n_rows, 37)).astype(np.float32)
    model = Factorization(U, V, 0.0, np.zeros(n_rows, np.float32), np.zeros(n_cols, np.float32))
    cols, _ = model.recommend(np.arange(n_rows), 5)
    np.testing.assert_array_equal(cols, np.tile(np.arange(5), (n_rows, 1)))


def test_any_number_of_threads_gives_the_same_bits():
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((900, 19), (3001, 19), 900, 3001)]
    model = Factorization(*arrays[:2], np.float32(3), *arrays[2:])
    exclude = draw_seen(900, 3001, 0.02)
    one, two = (model.recommend(np.arange(900), 30, exclude, n_threads=t) for t in (1, 2))
    assert_ranked(one, two)
    one, two = (model.similar_cols(np.arange(3001), 7, n_threads=t) for t in (1, 2))
    assert_ranked(one, two)


def test_scores_are_predictions():
    rng = np.random.default_rng(6)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((50, 19), (3001, 19), 50, 3001)]
    model = Factorization(*arrays[:2], np.float32(3), *arrays[2:])
    cols, scores = model.recommend(np.arange(50), 30)
    np.testing.assert_allclose(scores, model.predict(np.arange(50)[:, None], cols), rtol=1e-5, atol=1e-5)
    assert (np.diff(scores) <= 0).all()


OWN = ff.Loss(lambda x, p: abs(x - p), lambda x, p: p - x, link=np.sinh)


@pytest.mark.parametrize("loss", ["logistic", "poisson", OWN], ids=["logistic", "poisson", "own"])
def test_scores_have_the_link(loss):
    rng = np.random.default_rng(6)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((50, 9), (20, 9), 50, 20)]
    model = Factorization(*arrays[:2], np.float32(-1), *arrays[2:], loss=loss)
    cols, scores = model.recommend(np.arange(50), 30)
    np.testing.assert_array_equal(cols, replace(model, loss="squared").recommend(np.arange(50), 30)[0])
    assert (cols[:, 20:] == -1).all()
    assert np.isnan(scores[:, 20:]).all()
    expected = model.predict(np.arange(50)[:, None], cols[:, :20])
    np.testing.assert_allclose(scores[:, :20], expected, rtol=1e-4, atol=1e-5)


def test_rows_may_repeat_be_none_or_be_one():
    model = make_model(6, 9)
    cols, scores = model.recommend([4, 4, 0], 2)
    assert (cols[0] == cols[1]).all()
    assert model.recommend([], 2)[0].shape == (0, 2)
    np.testing.assert_array_equal(model.recommend(0, 2)[1], scores[2:])


def test_formats_of_exclude_and_its_order_do_not_matter():
    model, exclude = make_model(30, 50), draw_seen(30, 50, 0.5).astype(np.float32)
    expected = model.recommend(np.arange(30), 8, exclude)
    exclude.data[:] = 0  # explicit zeros are stored entries too
    unsorted = sp.csr_array((exclude.data, exclude.indices.copy(), exclude.indptr), shape=exclude.shape)
    for r in range(30):
        unsorted.indices[unsorted.indptr[r] : unsorted.indptr[r + 1]] = unsorted.indices[
            unsorted.indptr[r] : unsorted.indptr[r + 1]
        ][::-1]
    unsorted.has_sorted_indices = False
    kept = unsorted.indices.copy()
    for same in (exclude, sp.csr_matrix(exclude), exclude.tocsc(), exclude.tocoo(), unsorted):
        assert_ranked(model.recommend(np.arange(30), 8, same), expected)
    np.testing.assert_array_equal(unsorted.indices, kept)


def test_all_excluded_is_all_padding():
    cols, scores = make_model(3, 4).recommend([1], 2, sp.csr_array(np.ones((3, 4))))
    assert cols.tolist() == [[-1, -1]]
    assert np.isnan(scores).all()


def test_scores_that_are_not_numbers_are_not_recommended():
    model = make_model(2, 40, biases=False)
    model.V[[3, 20]] = np.nan
    cols, scores = model.recommend([0, 1], 40)
    assert not np.isin(cols, [3, 20]).any()
    assert (np.isnan(scores).sum(axis=1) == 2).all()


def cosines_by_hand(M):
    M = M.astype(np.float64 if M.dtype.kind == "f" else np.complex128)
    lengths = np.linalg.norm(M, axis=1)
    lengths[lengths == 0] = 1
    return (M @ M.conj().T).real / np.outer(lengths, lengths)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("size", [1.0, 1e30])
def test_similar_equals_cosines_by_hand(dtype, size):
    rng = np.random.default_rng(8)
    U = rng.standard_normal((70, 5)) + (1j * rng.standard_normal((70, 5)) if dtype[0] == "c" else 0)
    U[11] = 0
    U, V = (size * U).astype(dtype), np.ones((3, 5), dtype)
    model = Factorization(U, V, 0.0, np.zeros(70, dtype), np.zeros(3, dtype))
    expected = cosines_by_hand(U / size)
    np.fill_diagonal(expected, -np.inf)
    rows = np.array([3, 11, 69, 3])
    neighbours, cosines = model.similar_rows(rows, 69)
    assert not (neighbours == rows[:, None]).any()
    assert (np.sort(neighbours, axis=1)[:, 1:] > np.sort(neighbours, axis=1)[:, :-1]).all()
    np.testing.assert_allclose(cosines, -np.sort(-expected[rows], axis=1)[:, :69], atol=1e-6)
    np.testing.assert_allclose(cosines, np.take_along_axis(expected[rows], neighbours, axis=1), atol=1e-6)
    neighbours, cosines = model.similar_cols([1], 4)
    assert neighbours.tolist() == [[0, 2, -1, -1]]
    np.testing.assert_allclose(cosines, [[1, 1, np.nan, np.nan]], rtol=1e-6)
    assert np.nanmax(cosines) <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rows": [6]}, IndexError, r"rows holds 6, outside 0\.\.5"),
        ({"rows": [-1]}, IndexError, "rows holds -1"),
        ({"rows": [0.5]}, TypeError, "rows must hold integers"),
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"n": 2.5}, TypeError, "n must be an integer, got 2.5"),
        ({"n": True}, TypeError, "n must be an integer, got True"),
        (
            {"exclude": np.ones((6, 9))},
            TypeError,
            "exclude must be a scipy.sparse matrix, what was read, or None, got ndarray",
        ),
        ({"exclude": sp.csr_array((5, 9))}, ValueError, r"exclude has shape \(5, 9\), the model has \(6, 9\)"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        make_model(6, 9).recommend(**{"rows": [0], **arguments})


def test_offsets_that_leave_exclude_are_refused():
    exclude = sp.csr_array(np.ones((6, 9)))
    exclude.indptr[3:] = 10**6
    with pytest.raises(ValueError, match=r"exclude\.indptr ends at 1000000, beyond its 54 entries"):
        make_model(6, 9).recommend([0], exclude=exclude)


def test_complex_predictions_have_no_order():
    with pytest.raises(TypeError, match="complex and have no order"):
        make_model(6, 9, dtype="complex64").recommend([0])


def test_memory_stays_bounded(monkeypatch):
    """A block of rows needs its sums, its lists and its heaps, and no more of them where n is large."""
    shapes = []
    original = top.screen
    monkeypatch.setattr(
        top, "screen", lambda *args: (shapes.append((args[2].shape, args[4].cols.nbytes)), original(*args))
    )
    make_model(2100, 5000).recommend(np.arange(2100), 5)
    assert len(shapes) == 9
    assert max(shape for shape, _ in shapes) == (256, 512)
    make_model(300, 5000).recommend(np.arange(300), 1250)
    assert len(shapes) > 11
    assert max(size for _, size in shapes) <= 1 << 22


def rank_all_of(left, right, n, exclude=None):
    """Return the n best from the float64 products, as `topn.score` sums them up to the last bits."""
    scores = left.astype(np.float64) @ right.astype(np.float64).T
    if exclude is not None:
        scores[exclude.toarray().astype(bool)] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :n], -np.sort(-scores, axis=1)[:, :n]


def draw_factors(kind, n_rows, n_cols, rank, rng):
    left, right = rng.standard_normal((n_rows, rank)), rng.standard_normal((n_cols, rank))
    if kind == "lengths of all sizes":
        left *= np.exp(3 * rng.standard_normal((n_rows, 1)))
        right *= np.exp(2 * rng.standard_normal((n_cols, 1)))
    elif kind == "coordinates of all sizes":
        right *= np.exp(-np.arange(rank))
    elif kind == "non-negative with zeros":
        left, right = np.maximum(left - 1, 0), np.maximum(right - 1, 0)
        left[::7], right[::3] = 0, 0
    elif kind == "nearly equal":
        right = 1 + 1e-5 * right
    elif kind == "huge":
        left, right = 1e15 * left, 1e15 * right
    elif kind == "tiny":
        left, right = 1e-15 * left, 1e-15 * right
    return left, right


KINDS = [
    "normal",
    "lengths of all sizes",
    "coordinates of all sizes",
    "non-negative with zeros",
    "nearly equal",
    "huge",
    "tiny",
]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_factors_that_are_not_finite_hide_nothing(bad):
    left, right = draw_factors("normal", 40, 1300, 5, np.random.default_rng(3))
    left[7], right[[3, 20]] = bad, bad
    model = Factorization(left, right, 0.0, np.zeros(40), np.zeros(1300))
    cols, scores = model.recommend(np.arange(40), 9)
    with np.errstate(invalid="ignore"):
        products = left @ right.T
    expected = np.where(np.isnan(products), -np.inf, products)
    best = np.argsort(-expected, axis=1, kind="stable")[:, :9]
    wanted = np.take_along_axis(expected, best, axis=1)
    np.testing.assert_array_equal(cols, np.where(wanted == -np.inf, -1, best))
    np.testing.assert_allclose(scores, np.where(wanted == -np.inf, np.nan, wanted), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_by_ruling_columns_out(kind, dtype):
    rng = np.random.default_rng(11)
    left, right = (a.astype(dtype) for a in draw_factors(kind, 90, 2100, 18, rng))
    exclude = draw_seen(90, 2100, 0.05)
    model = Factorization(left, right, 0.0, np.zeros(90, dtype), np.zeros(2100, dtype))
    cols, scores = model.recommend(np.arange(90), 30, exclude)
    few = [model.recommend(np.arange(r, r + 6), 30, exclude) for r in range(0, 90, 6)]  # too few: all are scored
    np.testing.assert_array_equal(cols, np.vstack([c for c, _ in few]))
    np.testing.assert_array_equal(scores, np.vstack([s for _, s in few]))
    expected = rank_all_of(left, right, 30, exclude)
    np.testing.assert_allclose(scores, expected[1], rtol=1e-6)
    if kind == "normal":
        np.testing.assert_array_equal(cols, expected[0])


@pytest.mark.parametrize(
    ("left_size", "right_size"), [(1e200, 1e-200), (1e290, 1e-300), (1e-306, 1e5), (1e5, 1e-306), (1e-160, 1e-160)]
)
def test_nothing_is_lost_where_squares_overflow_or_vanish(left_size, right_size):
    """All scores are negative but those of the last columns, which are zeros, in tiles of their own."""
    rng = np.random.default_rng(12)
    left, right = (np.abs(a) for a in draw_factors("normal", 40, 2100, 18, rng))
    left, right = left_size * left, -right_size * right
    right[-1400:] = 0
    for columns in (right, right[:700]):
        model = Factorization(left, columns, 0.0, np.zeros(40), np.zeros(len(columns)))
        cols, scores = model.recommend(np.arange(40), 30)
        few = [model.recommend(np.arange(r, r + 5), 30) for r in range(0, 40, 5)]  # too few: all are scored
        np.testing.assert_array_equal(cols, np.vstack([c for c, _ in few]))
        np.testing.assert_array_equal(scores, np.vstack([s for _, s in few]))


FACES = """
import numpy as np
from test_ranking import draw_factors, draw_seen, KINDS
from fastfactor.model import Factorization
for kind in KINDS:
    left, right = (a.astype("float32") for a in draw_factors(kind, 40, 1300, 21, np.random.default_rng(3)))
    model = Factorization(left, right, 0.0, np.zeros(40, "float32"), np.zeros(1300, "float32"))
    cols, scores = model.recommend(np.arange(40), 9, draw_seen(40, 1300, 0.05))
    print(cols.tobytes().hex(), scores.tobytes().hex())
"""


def test_the_portable_face_gives_the_same(python, capsys):
    exec(FACES, {})
    assert python(FACES, env={"FASTFACTOR_SIMD": "0"}) == capsys.readouterr().out


PLAIN = """
import numpy as np
from test_ranking import draw_seen, make_model
cols, scores = make_model(20, 60).recommend(np.arange(20), 7, draw_seen(20, 60, 0.5))
print(cols.tolist(), np.nan_to_num(scores).tolist())
"""


def test_plain_python_gives_the_same(python):
    assert python(PLAIN, env={"NUMBA_DISABLE_JIT": "1"}) == python(PLAIN)


def test_what_was_read_can_be_left_out_and_decomposed(ratings):
    """The Labelled object that fastfactor.io gives, as triplets and as a matrix."""
    coo = ratings.tocoo()
    table = Labelled((coo.row, coo.col, coo.data), ratings.shape)
    model = ff.fit(table, 3, regularization=0.05, max_epochs=2, validation=False)
    expected, _ = model.recommend(range(60), 5, ratings)
    for seen in (table, Labelled(ratings, ratings.shape)):
        assert (model.recommend(range(60), 5, seen)[0] == expected).all()
        assert ff.svd(seen, 3).s.tolist() == ff.svd(ratings, 3).s.tolist()
        assert ff.svds(seen, 3)[1].tolist() == ff.svds(ratings, 3)[1].tolist()
        assert ff.pca(seen, 3).s.tolist() == ff.pca(ratings, 3).s.tolist()
    cols = Ids.of([f"c{i}" for i in range(40)])
    named = ff.fit(replace(table, col_labels=cols), 3, regularization=0.05, max_epochs=2, validation=False)
    assert (named.recommend(range(60), 5, replace(table, col_labels=cols))[0] == expected).all()
    other = replace(table, col_labels=Ids.of([f"c{i}" for i in range(40)][::-1]))
    with pytest.raises(ValueError, match="exclude has other col ids than the model, or in another order"):
        named.recommend(range(60), 5, other)
