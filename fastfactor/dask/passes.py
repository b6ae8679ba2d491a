"""Truncated SVD on a cluster: each pass goes over the parts of the rows, and their sums are added as a tree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import pad
from fastfactor.dask.cluster import Cluster, retrying, using_client
from fastfactor.dask.parts import add_tree, gram_parts, inspect_part, multiply_parts, scatter_parts, triplets_parts
from fastfactor.dask.sources import as_parts
from fastfactor.decomposition import as_search, certify, choose_precision
from fastfactor.matrix.operators import Operand, invert, power_of_two
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
        G[0, : self.n] += self._reduce(
            lambda: self.cluster.run_groups(gram_parts, self._share(X[: self.n]), self.scale)
        )

    def multiply(self, V: Array) -> Array:
        """Return B V."""

        def work() -> Any:
            return self.cluster.client.gather(self.cluster.run_groups(multiply_parts, self._share(V), self.scale))

        return np.concatenate(retrying(work))

    def adjoint(self, U: Array) -> Array:
        """Return B^H U."""
        starts, client, parts = self.cluster.starts, self.cluster.client, self.cluster.parts

        def begin() -> list[Any]:
            groups = self.cluster.groups
            cuts = [np.ascontiguousarray(U[starts[group[0]] : starts[group[-1] + 1]]) for group in groups]
            return [
                client.submit(scatter_parts, [parts[b] for b in group], cut, self.scale, pure=False)
                for group, cut in zip(groups, client.scatter(cuts, hash=False), strict=True)
            ]

        return np.asarray(self._reduce(begin))

    def triplets(self, V: Array, s: Array) -> tuple[Array, Array]:
        """Return U = B V / s and B^H U, in one task for each group."""

        def work() -> Any:
            shared = self._share(V[: self.n])
            return self.cluster.client.gather(
                self.cluster.run_groups(triplets_parts, shared, invert(s).astype(V.dtype), self.scale)
            )

        found = retrying(work)
        U, Z = np.zeros((pad(self.m, 4), V.shape[1]), V.dtype), np.zeros_like(V)
        np.concatenate([part for part, _ in found], out=U[: self.m])
        Z[: self.n] = add_tree([part for _, part in found])
        return U, Z

    def _share(self, X: Array) -> Any:
        return self.cluster.client.scatter(np.ascontiguousarray(X), broadcast=True, hash=False)

    def _reduce(self, begin: Any) -> Array:
        """Return the sum of some futures, whose tree goes on where that of the parts of a group ended."""

        def add(first: Any, second: Any) -> Any:
            return self.cluster.client.submit(np.add, first, second, pure=False)

        return np.asarray(retrying(lambda: add_tree(begin(), add).result()))


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
        own_dtype = np.result_type(*(look.dtype for look in looks))
        real = choose_precision(own_dtype, dtype)
        search = as_search(cluster, k, real, tol, max_passes, None)
        largest = max(look.largest for look in looks)
        operand: Operand = DaskOperand(cluster, own_dtype, power_of_two(largest))
        is_adjoint = operand.m < operand.n
        if is_adjoint:
            operand = AdjointOperand(operand)
        found = decompose_operand(operand, is_adjoint, search, np.random.default_rng(seed))
        scale = largest or 1.0
        norm = scale * float(np.sqrt(sum(look.squares(scale) for look in looks)))
    return SVDResult(**certify(found, search, real), frobenius_norm=norm)
