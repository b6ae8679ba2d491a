"""scikit-learn estimators (extra `sklearn`): thin adapters over `fit`, `svd` and `pca`."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn import decomposition
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, validate_data

from fastfactor.api import fit
from fastfactor.decomposition import pca, svd
from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.structure import check_structure
from fastfactor.options import check_integer

__all__ = ["PCA", "MatrixFactorization", "RatingRegressor", "TruncatedSVD"]

Array = NDArray[Any]

_FLOATS = (np.float64, np.float32)


def _draw_seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31))


def _validate(estimator: Any, X: Any, **options: Any) -> Any:
    """Return X as scikit-learn's checks leave it; the index arrays of a sparse one are looked at before these."""
    X = check_structure(X, "X") if is_sparse(X) else X
    usual = {"accept_sparse": ["csr", "csc"], "ensure_min_features": 2}
    return validate_data(estimator, X, dtype=_FLOATS, **(usual | options))


class TruncatedSVD(decomposition.TruncatedSVD):  # type: ignore[misc]
    """scikit-learn's `TruncatedSVD`, computed by `fastfactor.svd`: every component to a residual, not for a few rounds.

    Parameters, attributes and methods are scikit-learn's own. `tol` bounds the residuals relative to the first singular
    value (0: 1e-10, in float32 1e-6), for either `algorithm`; `n_iter`, `n_oversamples` and
    `power_iteration_normalizer` are accepted and have nothing to do. More components than samples give as many as
    there are.

    Examples
    --------
    >>> import numpy as np
    >>> from fastfactor.sklearn import TruncatedSVD
    >>> TruncatedSVD(n_components=1).fit(np.diag([3.0, 2.0, 1.0])).singular_values_.round(6).tolist()
    [3.0]
    """

    def fit(self, X: Any, y: Any = None) -> TruncatedSVD:
        """Fit to X of shape (n_samples, n_features), dense or sparse; y is ignored."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        """Fit to X and return its coordinates, (n_samples, n_components); y is ignored."""
        self._validate_params()
        X = _validate(self, X)
        if self.algorithm == "arpack" and self.n_components >= min(X.shape):
            raise ValueError(f"n_components({self.n_components}) must be < min(X.shape) = {min(X.shape)} for 'arpack'.")
        if self.n_components > X.shape[1]:
            raise ValueError(f"n_components({self.n_components}) must be <= n_features({X.shape[1]}).")
        result = svd(
            X, min(self.n_components, *X.shape), tol=float(self.tol) or None, seed=_draw_seed(self.random_state)
        )
        self.components_, self.singular_values_ = result.Vt, result.s
        transformed: Array = result.U * result.s
        self.explained_variance_ = transformed.var(axis=0)
        total = mean_variance_axis(X, axis=0)[1].sum() if sp.issparse(X) else np.var(X, axis=0).sum()
        shares = np.zeros_like(self.explained_variance_)  # of nothing: 0, not NaN
        self.explained_variance_ratio_ = np.divide(self.explained_variance_, total, out=shares, where=total > 0)
        return transformed


class PCA(decomposition.PCA):  # type: ignore[misc]
    """scikit-learn's `PCA`, computed by `fastfactor.pca`: sparse X too, centred without filling it in.

    Parameters, attributes and methods are scikit-learn's own, but for ``n_components="mle"``, which is refused. `tol`
    bounds the residuals as for `TruncatedSVD`; `copy`, `svd_solver`, `iterated_power`, `n_oversamples` and
    `power_iteration_normalizer` are accepted and have nothing to do.

    Examples
    --------
    >>> import numpy as np
    >>> from fastfactor.sklearn import PCA
    >>> PCA(n_components=1).fit(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])).explained_variance_.round(6).tolist()
    [1.0]
    """

    def fit(self, X: Any, y: Any = None) -> PCA:
        """Fit to X of shape (n_samples, n_features), dense or sparse; y is ignored."""
        self._fit_result(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        """Fit to X and return its coordinates, (n_samples, n_components); y is ignored."""
        U = self._fit_result(X)[:, : self.n_components_]
        scale = np.sqrt(len(U) - 1) if self.whiten else self.singular_values_
        return np.asarray(U * U.dtype.type(scale) if self.whiten else U * scale)

    def _fit_result(self, X: Any) -> Array:
        self._validate_params()
        if self.n_components == "mle":
            raise ValueError("n_components='mle' is not supported; pass a number or a share of the variance")
        X = _validate(self, X)
        smaller = min(X.shape)
        is_count = isinstance(self.n_components, Integral)
        if is_count and not 0 <= self.n_components <= smaller:
            raise ValueError(
                f"n_components={self.n_components} must be between 0 and min(n_samples, n_features)={smaller}"
            )
        asked = int(self.n_components) if is_count else smaller
        result = pca(X, max(asked, 1), tol=float(self.tol) or None, seed=_draw_seed(self.random_state))
        kept = asked
        if self.n_components is not None and not is_count:
            shares = np.cumsum(result.explained_variance_ratio)
            kept = min(int(np.searchsorted(shares, self.n_components, side="right")) + 1, smaller)
        self.n_samples_, self.n_components_ = X.shape[0], kept
        self.mean_, self.components_ = result.mean, result.components[:kept]
        self.singular_values_ = result.s[:kept]
        self.explained_variance_ = result.explained_variance[:kept]
        self.explained_variance_ratio_ = result.explained_variance_ratio[:kept]
        norm = result.frobenius_norm or 0.0
        total = norm * norm / max(X.shape[0] - 1, 1)
        rest = max(total - float(self.explained_variance_.sum(dtype=np.float64)), 0.0)
        self.noise_variance_ = rest / (smaller - kept) if kept < smaller else 0.0
        self._fit_svd_solver = "covariance_eigh" if self.svd_solver == "auto" else self.svd_solver
        return result.U


class MatrixFactorization(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """`fastfactor.fit` as a transformer: rows are samples, and their factors are the new features.

    Parameters
    ----------
    n_components : int
        The rank.
    unobserved : {"missing", "zero"}
        What is not stored in a sparse X: unknown, or 0. With "missing", NaN in a dense X is unknown.
    regularization : float, (float, float) or "auto"
    max_epochs : int or None
        As for `fastfactor.fit`.
    random_state : None, int or RandomState
    n_threads : int or None

    Attributes
    ----------
    components_ : (n_components, n_features) array
        V transposed.
    model_ : Factorization
        Fitted without biases, so that the factors alone can be turned back.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from fastfactor.sklearn import MatrixFactorization
    >>> X = np.outer(np.arange(1.0, 21.0), np.arange(1.0, 11.0))
    >>> factorization = MatrixFactorization(n_components=1, unobserved="zero", random_state=0).fit(X)
    >>> bool(np.abs(factorization.inverse_transform(factorization.transform(X)) - X).max() < 1)
    True
    """

    def __init__(
        self,
        n_components: int = 32,
        *,
        unobserved: str = "missing",
        regularization: Any = "auto",
        max_epochs: int | None = None,
        random_state: Any = None,
        n_threads: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.unobserved = unobserved
        self.regularization = regularization
        self.max_epochs = max_epochs
        self.random_state = random_state
        self.n_threads = n_threads

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MatrixFactorization:
        """Fit to X of shape (n_samples, n_features), dense or sparse; y is ignored.

        `sample_weight` (n_samples,) weighs the entries of each row, for unobserved="missing".
        """
        X = self._validate(X, reset=True)
        self.model_ = fit(
            X,
            check_integer(self.n_components, "n_components", 1),
            unobserved=self.unobserved,
            regularization=self.regularization,
            biases=False,
            max_epochs=self.max_epochs,
            sample_weight=self._spread(sample_weight, X),
            seed=_draw_seed(self.random_state),
            n_threads=self.n_threads,
            dtype=X.dtype,
        )
        self.components_ = self.model_.V.T
        return self

    def partial_fit(self, X: Any, y: Any = None) -> MatrixFactorization:
        """Go on with more samples: they are fitted to the components, then both for some epochs; y is ignored.

        `model_` holds the samples of this call only. The first call is a `fit`.
        """
        if not hasattr(self, "model_"):
            return self.fit(X)
        X = self._validate(X, reset=False)
        seed = _draw_seed(self.random_state)
        folded = self.model_.fold_in(X, n_threads=self.n_threads)
        self.model_ = folded.partial_fit(X, seed=seed, n_threads=self.n_threads)
        self.components_ = self.model_.V.T
        return self

    def _spread(self, sample_weight: Any, X: Any) -> Any:
        """Return a weight for each entry of X from one for each row."""
        if sample_weight is None:
            return None
        if self.unobserved == "zero":
            raise ValueError("sample_weight needs unobserved='missing', got unobserved='zero'")
        weights = _check_sample_weight(sample_weight, X)
        if not is_sparse(X):
            return np.broadcast_to(weights[:, None], X.shape)
        return sp.csr_array((np.repeat(weights, np.diff(X.indptr)), X.indices, X.indptr), shape=X.shape)

    def transform(self, X: Any) -> Array:
        """Return the factors of the rows of X against the fitted V, (n_samples, n_components)."""
        check_is_fitted(self)
        return self.model_.transform(self._validate(X, reset=False), n_threads=self.n_threads)

    def inverse_transform(self, X: Any) -> Array:
        """Return the matrix that factors stand for, (n_samples, n_features)."""
        check_is_fitted(self)
        return np.asarray(check_array(X, dtype=_FLOATS) @ self.components_)

    def _validate(self, X: Any, reset: bool) -> Any:
        finite: Any = "allow-nan" if self.unobserved == "missing" else True
        return _validate(self, X, reset=reset, accept_sparse=["csr"], ensure_min_features=1, ensure_all_finite=finite)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.unobserved == "missing"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class RatingRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """`fastfactor.fit` on triplets, as a regressor, so that `cross_val_score` and `GridSearchCV` split ratings.

    Parameters
    ----------
    rank, regularization, max_epochs, n_threads
        As for `fastfactor.fit`.
    duplicates : {"mean", "error", "last"}
        What to do with several ratings of one pair.
    random_state : None, int or RandomState

    Attributes
    ----------
    row_ids_, col_ids_ : arrays
        The ids seen in `fit`, ascending; row i of the model is row_ids_[i].
    model_ : Factorization
        With biases.

    Examples
    --------
    >>> import numpy as np
    >>> from fastfactor.sklearn import RatingRegressor
    >>> X = np.array([[u, i] for u in range(20) for i in range(10)])
    >>> regressor = RatingRegressor(rank=2, random_state=0).fit(X, X.sum(axis=1))
    >>> bool(abs(regressor.predict([[7, 5]])[0] - 12) < 0.5)
    True
    """

    def __init__(
        self,
        rank: int = 32,
        *,
        regularization: Any = "auto",
        max_epochs: int | None = None,
        duplicates: str = "mean",
        random_state: Any = None,
        n_threads: int | None = None,
    ) -> None:
        self.rank = rank
        self.regularization = regularization
        self.max_epochs = max_epochs
        self.duplicates = duplicates
        self.random_state = random_state
        self.n_threads = n_threads

    def fit(self, X: Any, y: Any) -> RatingRegressor:
        """Fit to X of shape (n, 2), row and column ids (numbers), and their values y of shape (n,)."""
        X, y = validate_data(self, X, y, y_numeric=True, dtype=None)
        row_ids, col_ids = self._ids_of(X)
        self.row_ids_, rows = np.unique(row_ids, return_inverse=True)
        self.col_ids_, cols = np.unique(col_ids, return_inverse=True)
        self.model_ = fit(
            (rows, cols, np.asarray(y, np.float64)),
            self.rank,
            shape=(len(self.row_ids_), len(self.col_ids_)),
            duplicates=self.duplicates,
            regularization=self.regularization,
            max_epochs=self.max_epochs,
            seed=_draw_seed(self.random_state),
            n_threads=self.n_threads,
        )
        return self

    def predict(self, X: Any) -> Array:
        """Return the value of each pair, (n,); an id not seen in `fit` counts as an average one."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=None)
        row_ids, col_ids = self._ids_of(X)
        (rows, is_row), (cols, is_col) = _find(self.row_ids_, row_ids), _find(self.col_ids_, col_ids)
        model, both = self.model_, is_row & is_col
        predicted = model.mean + np.where(is_row, model.row_bias[rows], 0) + np.where(is_col, model.col_bias[cols], 0)
        predicted[both] = model.predict(rows[both], cols[both])
        return np.asarray(predicted)

    def _ids_of(self, X: Array) -> tuple[Array, Array]:
        if X.shape[1] != 2:
            raise ValueError(f"X must have two columns, row and column ids, got {X.shape[1]}")
        return X[:, 0], X[:, 1]


def _find(known: Array, ids: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where each id stands among the known ones, and whether it does."""
    places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return places, known[places] == ids
