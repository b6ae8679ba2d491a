"""Metrics against their definitions, splits against what they promise."""

import math

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff

metrics, selection = ff.metrics, ff.model_selection


def test_errors():
    assert metrics.rmse([1.0, 2.0, 3.0], [1.0, 4.0, 2.0]) == pytest.approx(math.sqrt(5 / 3))
    assert metrics.mae([1.0, 2.0, 3.0], [1.0, 4.0, 2.0]) == pytest.approx(1.0)
    assert metrics.rmse([1 + 1j], [0]) == pytest.approx(math.sqrt(2))
    assert metrics.mae(np.uint8([1, 2]), np.uint8([3, 0])) == 2.0  # no wrapping around
    assert math.isnan(metrics.rmse([1.0, np.nan], [1.0, 1.0]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "int16"])
def test_errors_are_summed_in_double_precision(rng, dtype):
    a, b = (1e3 * rng.standard_normal((2, 1000, 7))).astype(dtype)
    e = np.abs(a.astype(complex) - b.astype(complex))
    assert metrics.mae(a, b) == pytest.approx(e.mean(), rel=1e-12)
    assert metrics.rmse(a, b) == pytest.approx(np.sqrt((e**2).mean()), rel=1e-12)
    assert metrics.mae(a[:, ::2], b[:, ::2]) == pytest.approx(e[:, ::2].mean(), rel=1e-12)


def test_relevant_entries_count_once_in_any_order():
    """Unsorted and repeated ones too, explicit zeros included; the user's matrix stays as it is."""
    relevant = sp.csr_array(([1.0, 0.0, 1.0], [3, 1, 3], [0, 3]), shape=(1, 5))
    before = relevant.indices.copy()
    assert metrics.recall_at_k([[1, 0]], relevant, 2) == 0.5
    assert metrics.recall_at_k([[3, 1]], relevant, 2) == 1
    assert metrics.ndcg_at_k([[3, 1]], relevant, 2) == 1
    np.testing.assert_array_equal(relevant.indices, before)


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_rankings_equal_their_definitions(k):
    rng = np.random.default_rng(k)
    truth = rng.random((30, 12)) < 0.2
    truth[4] = False
    lists = np.argsort(rng.random((30, 12)), axis=1)[:, :6]
    lists[3, 2:] = -1
    recall, ndcg = [], []
    for wanted, listed in zip(truth, lists, strict=True):
        relevant = set(np.flatnonzero(wanted).tolist())
        if not relevant:
            continue
        hits = [i for i, c in enumerate(listed[:k].tolist()) if c in relevant]
        recall.append(len(hits) / len(relevant))
        best = sum(1 / math.log2(i + 2) for i in range(min(k, len(relevant))))
        ndcg.append(sum(1 / math.log2(i + 2) for i in hits) / best)
    stored = sp.csr_array(truth.astype(float))
    assert metrics.recall_at_k(lists, stored, k) == pytest.approx(np.mean(recall))
    assert metrics.ndcg_at_k(lists, stored, k) == pytest.approx(np.mean(ndcg))


def test_a_perfect_list_scores_one():
    stored = sp.csr_array(np.eye(4, 9))
    assert metrics.recall_at_k(np.arange(4)[:, None], stored, 1) == 1
    assert metrics.ndcg_at_k(np.arange(4)[:, None], stored, 5) == 1


@pytest.mark.parametrize("metric", [metrics.recall_at_k, metrics.ndcg_at_k])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 1]], sp.csr_array((2, 3)), 1), "1 rows.*2"),
        (([[0, 1]], sp.csr_array((1, 3)), 1), "nothing to find"),
        (([[0, 3]], sp.csr_array(np.eye(1, 3)), 1), "holds 3"),
        (([[1, 1]], sp.csr_array(np.eye(1, 3)), 2), "twice in row 0"),
        (([[0.5]], sp.csr_array(np.eye(1, 3)), 2), "integers"),
        (([[0]], sp.csr_array(np.eye(1, 3)), 0), "k must be"),
    ],
)
def test_rankings_refuse(metric, arguments, message):
    with pytest.raises(ValueError, match=message):
        metric(*arguments)


def test_errors_refuse():
    for metric in (metrics.rmse, metrics.mae):
        with pytest.raises(ValueError, match="shape"):
            metric([1.0], [1.0, 2.0])
        with pytest.raises(ValueError, match="empty"):
            metric([], [])


# --- splits


def entries(X):
    coo = X.tocoo()
    return set(zip(*(index.tolist() for index in coo.coords), coo.data.tolist(), strict=True))


def assert_parts(X, train, test):
    assert train.shape == test.shape == X.shape
    assert entries(train) | entries(test) == entries(X)
    assert train.nnz + test.nnz == X.nnz


def test_random_split(ratings):
    train, test = selection.random_split(ratings, 0.25, seed=3)
    assert_parts(ratings, train, test)
    assert test.nnz == round(0.25 * ratings.nnz)
    assert entries(selection.random_split(ratings, 0.25, seed=3)[1]) == entries(test)
    assert entries(selection.random_split(ratings, 0.25, seed=4)[1]) != entries(test)
    explicit_zeros = np.where(np.eye(5), 0.0, np.nan)
    assert selection.random_split(explicit_zeros, 0.4)[1].nnz == 2


@pytest.mark.parametrize("n_test", [1, 3, 12])
def test_per_row_split(ratings, n_test):
    train, test = selection.per_row_split(ratings, n_test)
    assert_parts(ratings, train, test)
    sizes = np.diff(ratings.indptr)
    assert np.diff(test.indptr).tolist() == np.where(sizes > n_test, n_test, 0).tolist()
    assert entries(selection.per_row_split(ratings, n_test, seed=1)[1]) != entries(test)


@pytest.mark.parametrize("kind", ["int64", "float64", "datetime64[s]"])
def test_temporal_split(ratings, kind):
    coo = ratings.tocoo()
    order = np.random.default_rng(0).permutation(coo.nnz)
    X = coo.row[order], coo.col[order], coo.data[order]
    times = np.random.default_rng(1).permutation(coo.nnz).astype(kind)
    train, test = selection.temporal_split(X, times, 0.2, shape=ratings.shape)
    assert_parts(ratings, train, test)
    assert test.nnz == int(0.2 * coo.nnz)
    of = {(r, c): t for r, c, t in zip(X[0].tolist(), X[1].tolist(), times, strict=True)}
    assert min(of[e[:2]] for e in entries(test)) > max(of[e[:2]] for e in entries(train))
    again = selection.temporal_split(sp.coo_array((X[2], X[:2]), shape=ratings.shape), times, 0.2)
    assert entries(again[1]) == entries(test)


def test_equal_times_stay_together():
    X = tuple(np.array(a) for a in ([0, 1, 2, 3, 4], [0] * 5, [1.0, 2, 3, 4, 5]))
    assert selection.temporal_split(X, [1, 2, 2, 2, 3], 0.5)[1].nnz == 1
    with pytest.raises(ValueError, match="both sides"):
        selection.temporal_split(X, [1, 1, 1, 1, 1], 0.5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: selection.random_split(np.eye(3), 1.0), ValueError, "test_share must be a share below 1"),
        (lambda: selection.random_split(np.eye(3), 0.0), ValueError, "test_share"),
        (lambda: selection.random_split(np.eye(3), 0.01), ValueError, "0 of the 9 entries"),
        (lambda: selection.random_split(np.eye(3), seed=-1), ValueError, "seed"),
        (lambda: selection.per_row_split(np.eye(3), 3), ValueError, "0 of the 9 entries"),
        (lambda: selection.per_row_split(np.eye(3), 0), ValueError, "n_test"),
        (lambda: selection.temporal_split(np.eye(3), [1]), TypeError, "coordinate"),
        (lambda: selection.temporal_split(([0], [0], [1.0]), [1, 2]), ValueError, r"\(2,\).*1 entries"),
        (lambda: selection.temporal_split(([0, 1], [0, 0], [1.0, 2.0]), [1, np.nan]), ValueError, "NaN"),
        (lambda: selection.temporal_split(([0, 1], [0, 0], [1.0, 2.0]), ["a", "b"]), ValueError, "numbers"),
    ],
)
def test_splits_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
