"""scikit-learn's randomized SVD, whose effort is the number of iterations, and its ARPACK one with a tolerance."""

from collections.abc import Iterator

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.utils.extmath import randomized_svd

from bench.peers.base import Matrix, SvdPeer, Triplets


class RandomizedSvd(SvdPeer):
    name = "sklearn-randomized"
    efforts = (2, 4, 7, 10, 15, 20, 30, 45, 70, 100)
    default = 7

    def solve(self, A: Matrix, k: int, effort: float) -> Triplets:
        return randomized_svd(A, k, n_iter=int(effort), random_state=0)

    def plausible_efforts(self, residual: float) -> Iterator[float]:
        return (effort for effort in self.efforts if effort >= self.default)


class TruncatedSvdArpack(SvdPeer):
    """The estimator keeps A V and V only, so U is A V divided by the singular values."""

    name = "sklearn-truncated-arpack"
    efforts = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 0.0)

    def solve(self, A: Matrix, k: int, effort: float) -> Triplets:
        estimator = TruncatedSVD(k, algorithm="arpack", tol=effort, random_state=0)
        projected = estimator.fit_transform(A)
        s = estimator.singular_values_
        return np.divide(projected, s, out=np.zeros_like(projected), where=s > 0), s, estimator.components_


PEERS = [RandomizedSvd(), TruncatedSvdArpack()]
