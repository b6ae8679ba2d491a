"""fastfactor's `svds`. A tolerance of 0 is its default, as it is scipy's."""

from bench.peers.base import Matrix, SvdPeer, Triplets
from fastfactor import svds


class Svds(SvdPeer):
    name = "fastfactor"
    efforts = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12, 0.0)

    def solve(self, A: Matrix, k: int, effort: float) -> Triplets:
        return svds(A, k, tol=effort)


PEERS = [Svds()]
