"""The scikit-learn estimators: scikit-learn's own checks, and results against scikit-learn's exact solvers."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

sklearn = pytest.importorskip("sklearn")

from sklearn import decomposition  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MaxAbsScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from fastfactor.sklearn import PCA, MatrixFactorization, RatingRegressor, TruncatedSVD  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:all stored values of X equal", "ignore::sklearn.exceptions.SkipTestWarning"
)


class AnyColumns(RatingRegressor):
    """The checks draw matrices of any width and of real numbers; ids are their first and last columns, rounded."""

    def _ids_of(self, X):
        return np.round(np.asarray(X[:, 0], float)), np.round(np.asarray(X[:, -1], float))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # with two of ten columns left, and those rounded
        return tags


WEIGHTS = ("_equivalence_on_dense_data", "_equivalence_on_sparse_data")
ANY_WEIGHTS = ("s_pandas_series", "s_not_an_array", "s_list", "s_not_overwritten", "s_shape")


def find_exceptions(estimator):
    """What scikit-learn's checks ask for and an estimator here does not do."""
    if not isinstance(estimator, MatrixFactorization):
        return {}
    if estimator.unobserved == "zero":
        return {f"check_sample_weight{name}": "zeros that are fitted have no weights" for name in WEIGHTS + ANY_WEIGHTS}
    return {f"check_sample_weight{name}": "the order of the entries depends on the rows there are" for name in WEIGHTS}


@parametrize_with_checks(
    [
        TruncatedSVD(),
        PCA(),
        MatrixFactorization(2, regularization=0.01, max_epochs=5),
        MatrixFactorization(2, unobserved="zero", max_epochs=5),
        AnyColumns(2, regularization=0.01, max_epochs=20),
    ],
    expected_failed_checks=find_exceptions,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(params=["dense", "csr", "csc"])
def X(request):
    rng = np.random.default_rng(0)
    X = np.round(rng.random((60, 40)) * (rng.random((60, 40)) < 0.3), 3)
    return X if request.param == "dense" else getattr(sp, f"{request.param}_array")(X)


def as_dense(X):
    return X.toarray() if sp.issparse(X) else X


def assert_same_up_to_sign(ours, theirs):
    signs = np.sign((ours * theirs).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ours, signs * theirs, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["arpack", "randomized"])
def test_truncated_svd_is_scikit_learns_exact_one(X, algorithm):
    ours = TruncatedSVD(7, algorithm=algorithm, random_state=0)
    theirs = decomposition.TruncatedSVD(7, algorithm="arpack", random_state=0).fit(X)
    transformed = ours.fit_transform(X)
    for name in ("singular_values_", "explained_variance_", "explained_variance_ratio_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6)
    assert_same_up_to_sign(ours.components_, theirs.components_)
    np.testing.assert_allclose(ours.transform(X), transformed, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(transformed, axis=0), ours.singular_values_)
    np.testing.assert_allclose(
        ours.inverse_transform(transformed), theirs.inverse_transform(theirs.transform(X)), atol=1e-6
    )
    assert vars(decomposition.TruncatedSVD()) == vars(TruncatedSVD())


@pytest.mark.parametrize(("algorithm", "n"), [("randomized", 41), ("arpack", 40)])
def test_too_many_components(X, algorithm, n):
    with pytest.raises(ValueError, match=rf"n_components\({n}\) must be"):
        TruncatedSVD(n, algorithm=algorithm).fit(X)


def test_truncated_svd_takes_integers_and_full_rank(X):
    counts = (10 * X).astype(np.int64)
    svd = TruncatedSVD(40, random_state=0).fit(counts)
    np.testing.assert_allclose(svd.explained_variance_ratio_.sum(), 1.0)
    np.testing.assert_allclose(svd.inverse_transform(svd.transform(counts)), as_dense(counts), atol=1e-8)


@pytest.mark.parametrize("n_components", [5, None, 0.7, 40])
@pytest.mark.parametrize("whiten", [False, True])
def test_pca_is_scikit_learns(X, n_components, whiten):
    ours = PCA(n_components, whiten=whiten, random_state=0)
    theirs = decomposition.PCA(n_components, whiten=whiten, svd_solver="full").fit(as_dense(X))
    transformed = ours.fit_transform(X)
    assert ours.n_components_ == theirs.n_components_
    names = ("mean_", "singular_values_", "explained_variance_", "explained_variance_ratio_", "noise_variance_")
    for name in names:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-12)
    assert_same_up_to_sign(ours.components_, theirs.components_)
    np.testing.assert_allclose(ours.transform(X), transformed, atol=1e-6)
    np.testing.assert_allclose(ours.score(as_dense(X)), theirs.score(as_dense(X)), rtol=1e-6)


def test_pca_refuses_mle(X):
    with pytest.raises(ValueError, match="'mle' is not supported"):
        PCA("mle").fit(X)


def test_matrix_factorization_learns_what_is_stored(ratings):
    model = MatrixFactorization(4, regularization=0.01, random_state=0).fit(ratings)
    entries = ratings.tocoo()
    back = model.inverse_transform(model.transform(ratings))[entries.row, entries.col]
    assert np.sqrt(np.mean((back - entries.data) ** 2)) < 0.3 * entries.data.std()
    dense = np.full(ratings.shape, np.nan)
    dense[entries.row, entries.col] = entries.data
    np.testing.assert_allclose(model.transform(dense), model.transform(ratings), rtol=1e-6)


def test_matrix_factorization_of_every_entry_nears_the_svd(decaying):
    model = MatrixFactorization(5, unobserved="zero", max_epochs=400, random_state=0).fit(decaying)
    error = np.linalg.norm(model.inverse_transform(model.transform(decaying)) - decaying)
    best = np.linalg.norm(np.linalg.svd(decaying)[1][5:])
    assert best - 1e-9 <= error < 1.02 * best


def draw_pairs(rng, n=600):
    pairs = np.column_stack([rng.integers(100, 130, n), rng.integers(-7, 13, n)])
    return pairs, 0.1 * pairs[:, 0] + 0.2 * pairs[:, 1]


def test_rating_regressor_in_model_selection(rng):
    pairs, y = draw_pairs(rng)
    regressor = RatingRegressor(2, max_epochs=30, random_state=0)
    assert cross_val_score(regressor.set_params(regularization=0.001), pairs, y, cv=3).min() > 0.9
    search = GridSearchCV(regressor, {"regularization": [1e-3, 10.0]}, cv=3, error_score="raise").fit(pairs, y)
    assert search.best_params_ == {"regularization": 1e-3}


def test_rating_regressor_knows_what_it_has_not_seen(rng):
    pairs, y = draw_pairs(rng)
    regressor = RatingRegressor(2, regularization=0.001, max_epochs=30, random_state=0).fit(pairs, y)
    model, row, col = regressor.model_, *(int(i) for i in (pairs[0, 0] - 100, pairs[0, 1] + 7))
    asked = [[5000, 5000], [pairs[0, 0], 5000], [5000, pairs[0, 1]], pairs[0]]
    expected = [model.mean, model.mean + model.row_bias[row], model.mean + model.col_bias[col], model.predict(row, col)]
    np.testing.assert_allclose(regressor.predict(asked), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="two columns, row and column ids, got 3"):
        RatingRegressor().fit(np.ones((5, 3)), np.arange(5.0))


def test_rating_regressor_takes_strings():
    pairs = np.array([[u, i] for u in "abcdefgh" for i in "xyz"], object)
    y = np.array([float(ord(u) + ord(i)) for u, i in pairs])
    regressor = RatingRegressor(1, regularization=0.0, max_epochs=60, random_state=0).fit(pairs, y)
    assert abs(regressor.predict(pairs) - y).max() < 1.0


@pytest.mark.parametrize(
    "estimator", [TruncatedSVD(3), PCA(3), MatrixFactorization(3, unobserved="zero", max_epochs=3)]
)
def test_in_a_pipeline(X, estimator):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(as_dense(X), columns=[f"x{i}" for i in range(40)])
    pipeline = make_pipeline(MaxAbsScaler(), clone(estimator).set_params(random_state=0)).set_output(transform="pandas")
    out = pipeline.fit_transform(frame)
    name = type(estimator).__name__.lower()
    assert list(out.columns) == [f"{name}{i}" for i in range(3)]
    again = pickle.loads(pickle.dumps(pipeline)).transform(frame)
    np.testing.assert_allclose(again, pipeline.transform(frame))


def test_matrix_factorization_goes_on_with_more_samples():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((90, 2)) @ rng.standard_normal((2, 30))
    A[rng.random(A.shape) < 0.4] = np.nan
    estimator = MatrixFactorization(2, regularization=0.01, random_state=0)
    for start in (0, 30, 60):
        assert estimator.partial_fit(A[start : start + 30]) is estimator
    assert estimator.model_.shape == (30, 30)
    error = estimator.inverse_transform(estimator.transform(A)) - A
    assert np.sqrt(np.nanmean(error**2)) < 0.15 * np.nanstd(A)


def test_sample_weights_are_routed_and_weigh_rows():
    rng = np.random.default_rng(0)
    A = np.vstack([rng.standard_normal((20, 2)) @ rng.standard_normal((2, 20)) for _ in range(2)])
    weights = np.where(np.arange(40) < 20, 1.0, 1e-3)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = MatrixFactorization(2, regularization=0.01, random_state=0).set_fit_request(sample_weight=True)
        pipe = make_pipeline(MaxAbsScaler(), estimator).fit(A, sample_weight=weights)
        plain = make_pipeline(MaxAbsScaler(), clone(estimator)).fit(A)
    heavy = A[:20] / np.abs(A).max(axis=0)
    errors = [np.linalg.norm(p[1].inverse_transform(p[1].transform(heavy)) - heavy) for p in (pipe, plain)]
    assert errors[0] < 0.5 * errors[1]
    sparse = sp.csr_array(np.nan_to_num(A))
    dense_fit, sparse_fit = (MatrixFactorization(2, random_state=0).fit(X, sample_weight=weights) for X in (A, sparse))
    np.testing.assert_allclose(dense_fit.components_, sparse_fit.components_)
    with pytest.raises(ValueError, match="sample_weight needs unobserved='missing'"):
        MatrixFactorization(2, unobserved="zero").fit(A, sample_weight=weights)
