"""PRIMME's svds: block Davidson on A'A, then on the augmented matrix where the tolerance asks for it."""

import primme

from bench.peers.base import Matrix, SvdPeer, Triplets


class Primme(SvdPeer):
    """Its tolerance is on the residual relative to the norm of A; 0 would mean machine precision."""

    name = "primme"
    efforts = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-11, 1e-12)
    default = 1e-6

    def solve(self, A: Matrix, k: int, effort: float) -> Triplets:
        return primme.svds(A, k, tol=effort)


PEERS = [Primme()]
