"""scikit-learn's own tests of `TruncatedSVD`, run against ours (and our `PCA`)."""

import pytest

suite = pytest.importorskip(
    "sklearn.decomposition.tests.test_truncated_svd", reason="scikit-learn, or its tests, are not installed"
)

from fastfactor.sklearn import PCA, TruncatedSVD  # noqa: E402

X_sparse = suite.X_sparse  # their fixture
globals().update({name: value for name, value in vars(suite).items() if name.startswith("test_")})


@pytest.fixture(autouse=True)
def _use_ours(monkeypatch):
    monkeypatch.setattr(suite, "TruncatedSVD", TruncatedSVD)
    monkeypatch.setattr(suite, "PCA", PCA)


@pytest.fixture(params=[0, 42])
def global_random_seed(request):
    return request.param


def test_their_tests_are_here():
    assert sum(name.startswith("test_") for name in globals()) > 10
