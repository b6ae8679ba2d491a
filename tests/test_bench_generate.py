import numpy as np
import pytest

from bench import generate


def same(a, b):
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("indptr", "indices", "data"))


@pytest.fixture(scope="module")
def ratings():
    return generate.rating_matrix(3_000, 2_000, 200_000, seed=1)


def test_ratings_have_the_asked_shape_and_types(ratings):
    assert ratings.shape == (3_000, 2_000)
    assert abs(ratings.nnz - 200_000) < 5 * np.sqrt(200_000)
    assert ratings.data.dtype == np.float32
    assert ratings.indices.dtype == np.int32
    assert np.isfinite(ratings.data).all()


def test_ratings_are_distinct_and_sorted(ratings):
    keys = np.repeat(np.arange(3_000), np.diff(ratings.indptr)) * 2_000 + ratings.indices
    assert (np.diff(keys) > 0).all()


def test_seed_decides(ratings):
    assert same(ratings, generate.rating_matrix(3_000, 2_000, 200_000, seed=1))
    assert not same(ratings, generate.rating_matrix(3_000, 2_000, 200_000, seed=2))


def test_result_does_not_depend_on_the_number_of_threads(ratings):
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert same(ratings, generate.rating_matrix(3_000, 2_000, 200_000, seed=1))
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize(("axis", "exponent"), [(1, 0.8), (0, 1.2)], ids=["rows", "columns"])
def test_counts_follow_a_power_law(axis, exponent):
    matrix = generate.rating_matrix(20_000, 10_000, 1_000_000)
    counts = np.sort(np.asarray((matrix != 0).sum(axis=axis)).ravel())[::-1]
    middle = np.unique(np.geomspace(len(counts) // 20, len(counts) - 1, 50).astype(int))  # past the cutoff
    slope = np.polyfit(np.log(middle), np.log(counts[middle]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.12)


def test_ratings_hold_a_planted_low_rank_part_and_noise():
    matrix = generate.rating_matrix(400, 300, 50_000)
    assert matrix.data.mean() == pytest.approx(3.5, abs=0.15)
    assert matrix.data.std() == pytest.approx(np.sqrt(0.35**2 + 0.45**2 + 0.6**2 + generate.NOISE**2), rel=0.1)


def test_more_entries_than_half_the_matrix_are_refused():
    with pytest.raises(ValueError, match="more than half"):
        generate.rating_matrix(10, 10, 60)


@pytest.mark.parametrize("n_topics", [0, 30])
def test_text_is_zipf_with_rows_of_unit_length(n_topics):
    matrix = generate.text_matrix(20_000, 4_000, 200_000, n_topics=n_topics)
    assert matrix.shape == (20_000, 4_000)
    assert matrix.nnz == pytest.approx(200_000, rel=0.02)
    assert matrix.has_sorted_indices
    assert matrix.has_canonical_format
    lengths = np.sqrt(np.asarray(matrix.power(2).sum(axis=1)).ravel())
    np.testing.assert_allclose(lengths[lengths > 0], 1.0)
    counts = np.sort(np.bincount(matrix.indices, minlength=4_000))[::-1]
    assert counts[0] > 50 * counts[1_000] > 0


def test_topics_plant_a_decay_of_the_spectrum():
    matrix = generate.text_matrix(4_000, 1_500, 60_000, n_topics=40)
    s = np.linalg.svd(matrix.toarray(), compute_uv=False)
    assert s[31] / s[1] == pytest.approx(0.98**30, rel=0.15)
    assert s[:40].min() > 1.2 * s[60]


def test_topics_must_fit_into_the_columns():
    with pytest.raises(ValueError, match="n_topics=200"):
        generate.text_matrix(100, 500, 1_000, n_topics=200)


def test_dense_matrix_decays():
    s = np.linalg.svd(generate.decaying_dense(400, 300), compute_uv=False)
    assert s[0] / s[50] > 3.0
    np.testing.assert_array_equal(generate.decaying_dense(40, 30), generate.decaying_dense(40, 30))
