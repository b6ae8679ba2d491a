"""scipy.sparse.linalg.svds with each of its solvers. A tolerance of 0 is its default and means machine precision."""

import warnings
from collections.abc import Iterator

import numpy as np
from scipy.sparse.linalg import svds

from bench.peers.base import Matrix, SvdPeer, Triplets

_TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12, 0.0)


class Arpack(SvdPeer):
    name = "scipy-arpack"
    efforts = _TOLERANCES

    def solve(self, A: Matrix, k: int, effort: float) -> Triplets:
        return svds(A, k, tol=effort, solver="arpack", rng=0)


class Propack(SvdPeer):
    name = "scipy-propack"
    efforts = _TOLERANCES

    def solve(self, A: Matrix, k: int, effort: float) -> Triplets:
        return svds(A, k, tol=effort, solver="propack", rng=0)


class Lobpcg(SvdPeer):
    """Its tolerance is absolute and it stops at `maxiter` without saying so, so the effort is that number."""

    name = "scipy-lobpcg"
    efforts = (20, 40, 80, 160)
    default = 20

    def solve(self, A: Matrix, k: int, effort: float) -> Triplets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells its accuracies; the suite computes them itself
            return svds(A, k, tol=1e-12 * np.sqrt(A.shape[0]), maxiter=int(effort), solver="lobpcg", rng=0)

    def plausible_efforts(self, residual: float) -> Iterator[float]:
        return iter(self.efforts)


PEERS = [Arpack(), Propack(), Lobpcg()]
