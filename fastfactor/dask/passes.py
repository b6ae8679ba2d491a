"""Truncated SVD on a cluster: each pass goes over the parts of the rows, and their sums are added as a tree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.dask.cluster import Cluster, retrying, using_client
from fastfactor.dask.parts import add_up, gram_part, inspect_part, multiply_part, scatter_part
from fastfactor.dask.sources import as_parts
from fastfactor.decomposition import as_search, certify, choose_precision
from fastfactor.matrix.operators import Operand, power_of_two
from fastfactor.matrix.streaming import AdjointOperand
from fastfactor.options import check_integer
from fastfactor.results import SVDResult
from fastfactor.solvers.dispatch import decompose_operand

Array = NDArray[Any]


class DaskOperand(Operand):
    """A matrix of parts on workers. Their sums are added as a tree, in the order of the parts."""

    def __init__(self, cluster: Cluster, dtype: Any, scale: float) -> None:
        self.cluster, self.scale = cluster, scale
        self.m, self.n = cluster.shape
        self.dtype = np.result_type(dtype, np.float64)

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X to G."""
        G[0, : self.n] += self._reduce(lambda: self.cluster.run(gram_part, self._share(X[: self.n]), self.scale))

    def multiply(self, V: Array) -> Array:
        """Return B V."""

        def work() -> Any:
            return self.cluster.client.gather(self.cluster.run(multiply_part, self._share(V), self.scale))

        return np.concatenate(retrying(work))

    def adjoint(self, U: Array) -> Array:
        """Return B^H U."""
        starts, client = self.cluster.starts, self.cluster.client

        def begin() -> list[Any]:
            cuts = [np.ascontiguousarray(U[a:b]) for a, b in itertools.pairwise(starts)]
            shared = client.scatter(cuts, hash=False)
            return [
                client.submit(scatter_part, part, cut, self.scale, pure=False)
                for part, cut in zip(self.cluster.parts, shared, strict=True)
            ]

        return np.asarray(self._reduce(begin))

    def _share(self, X: Array) -> Any:
        return self.cluster.client.scatter(np.ascontiguousarray(X), broadcast=True, hash=False)

    def _reduce(self, begin: Any) -> Array:
        def work() -> Any:
            level: list[Any] = begin()
            while len(level) > 1:
                pairs: Sequence[Any] = [level[i : i + 2] for i in range(0, len(level), 2)]
                level = [
                    self.cluster.client.submit(add_up, *pair, pure=False) if len(pair) > 1 else pair[0]
                    for pair in pairs
                ]
            return level[0].result()

        return np.asarray(retrying(work))


def svd(
    X: Any,
    k: int,
    *,
    client: Any = None,
    n_parts: int = 8,
    shape: tuple[int, int] | None = None,
    tol: float | None = None,
    max_passes: int | None = None,
    seed: int = 0,
    dtype: Any = None,
) -> SVDResult:
    """Compute the k leading singular triplets of a matrix on a Dask cluster; see `fastfactor.svd`.

    Parameters
    ----------
    X, client, n_parts, shape
        As for `fit`; what is not stored is 0. Dense chunks must be finite.
    k, tol, max_passes, seed, dtype
        As for `fastfactor.svd`.

    Returns
    -------
    SVDResult

    Raises
    ------
    TypeError, ValueError, ImportError
        As for `fit` and `fastfactor.svd`.
    """
    n_parts = check_integer(n_parts, "n_parts", 1)
    with using_client(client) as own:
        cluster = Cluster(own, *as_parts(X, own, n_parts, shape, missing_is_zero=True))
        looks = cluster.gather(inspect_part)
        real = choose_precision(looks[0].dtype, dtype)
        search = as_search(cluster, k, real, tol, max_passes, None)
        largest = max(look.largest for look in looks)
        operand: Operand = DaskOperand(cluster, looks[0].dtype, power_of_two(largest))
        is_adjoint = operand.m < operand.n
        if is_adjoint:
            operand = AdjointOperand(operand)
        found = decompose_operand(operand, is_adjoint, search, np.random.default_rng(seed))
        scale = largest or 1.0
        norm = scale * float(np.sqrt(sum(look.squares(scale) for look in looks)))
    return SVDResult(**certify(found, search, real), frobenius_norm=norm)
