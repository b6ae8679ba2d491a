"""Truncated SVD on a cluster: each pass goes over the parts of the rows, and their sums are added as a tree."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfactor.blas import pad
from fastfactor.dask.cluster import Cluster, retrying, using_client
from fastfactor.dask.parts import (
    add_tree,
    deviations_of,
    gram_parts,
    measure_part,
    multiply_parts,
    scatter_parts,
    triplets_parts,
)
from fastfactor.dask.sources import as_parts
from fastfactor.decomposition import as_components, as_search, certify, choose_precision
from fastfactor.kernels.rows import MOST_ROWS
from fastfactor.matrix.centring import centre, rescale, sum_columns
from fastfactor.matrix.operand import Operand, invert
from fastfactor.matrix.streaming import AdjointOperand
from fastfactor.matrix.values import power_of_two
from fastfactor.options import check_integer
from fastfactor.results import PCAResult, SVDResult
from fastfactor.solvers.dispatch import Decomposition, decompose_operand
from fastfactor.solvers.triplets import Search

Array = NDArray[Any]

_N_PARTS = 8


class DaskOperand(Operand):
    """A matrix of parts on workers, who multiply by `factor`. Sums are added as a tree, in the order of the parts."""

    def __init__(self, cluster: Cluster, dtype: Any, factor: float) -> None:
        self.cluster, self.scale, self.factor = cluster, factor, factor
        self.m, self.n = cluster.shape
        self.dtype = np.result_type(dtype, np.float64)

    def add_gram(self, X: Array, G: Array) -> None:
        """Add B^H B X to G."""
        G[0, : self.n] += self._reduce(
            lambda: self.cluster.run_groups(gram_parts, self._share(X[: self.n]), self.factor)
        )

    def multiply(self, V: Array) -> Array:
        """Return B V."""

        def work() -> Any:
            return self.cluster.client.gather(self.cluster.run_groups(multiply_parts, self._share(V), self.factor))

        return np.concatenate(retrying(work))

    def adjoint(self, U: Array) -> Array:
        """Return B^H U."""
        starts, client, parts = self.cluster.starts, self.cluster.client, self.cluster.parts

        def begin() -> list[Any]:
            groups = self.cluster.groups
            cuts = [np.ascontiguousarray(U[starts[group[0]] : starts[group[-1] + 1]]) for group in groups]
            return [
                client.submit(scatter_parts, [parts[b] for b in group], cut, self.factor, pure=False)
                for group, cut in zip(groups, client.scatter(cuts, hash=False), strict=True)
            ]

        return np.asarray(self._reduce(begin))

    def triplets(self, V: Array, s: Array) -> tuple[Array, Array]:
        """Return U = B V / s and B^H U, in one task for each group."""

        def work() -> Any:
            shared = self._share(V[: self.n])
            return self.cluster.client.gather(
                self.cluster.run_groups(triplets_parts, shared, invert(s).astype(V.dtype), self.factor)
            )

        found = retrying(work)
        U, Z = np.zeros((pad(self.m, MOST_ROWS), V.shape[1]), V.dtype), np.zeros_like(V)
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


@dataclass
class Opened:
    """A matrix on workers, ready for passes.

    Attributes
    ----------
    cluster : Cluster
    operand : Operand
        Of the matrix, or of its adjoint.
    is_adjoint : bool
    dtype : dtype
    norm : float
        Frobenius norm.
    """

    cluster: Cluster
    operand: Operand
    is_adjoint: bool
    dtype: np.dtype[Any]
    norm: float


@contextlib.contextmanager
def _opening(X: Any, client: Any, n_parts: int, shape: Any) -> Iterator[Opened]:
    n_parts = check_integer(n_parts, "n_parts", 1)
    with using_client(client) as own:
        cluster = Cluster(own, *as_parts(X, own, n_parts, shape, missing_is_zero=True))
        sizes, norms, dtypes = zip(*cluster.gather(measure_part), strict=True)
        dtype = np.result_type(*dtypes)
        operand: Operand = DaskOperand(cluster, dtype, power_of_two(max(sizes)))
        is_adjoint = operand.m < operand.n
        if is_adjoint:
            operand = AdjointOperand(operand)
        yield Opened(cluster, operand, is_adjoint, dtype, math.hypot(*norms))


def decompose(X: Any, search: Search, rng: np.random.Generator) -> Decomposition:
    """Return triplets of a Dask array, as `solvers.dispatch.decompose` does of a matrix."""
    with _opening(X, None, _N_PARTS, None) as opened:
        return decompose_operand(opened.operand, opened.is_adjoint, search, rng)


def svd(
    X: Any,
    k: int,
    *,
    client: Any = None,
    n_parts: int = _N_PARTS,
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
    with _opening(X, client, n_parts, shape) as opened:
        real = choose_precision(opened.dtype, dtype)
        search = as_search(opened.cluster, k, real, tol, max_passes, None)
        found = decompose_operand(opened.operand, opened.is_adjoint, search, np.random.default_rng(seed))
    return SVDResult(**certify(found, search, real), frobenius_norm=opened.norm)


def pca(
    X: Any,
    k: int,
    *,
    client: Any = None,
    n_parts: int = _N_PARTS,
    shape: tuple[int, int] | None = None,
    center: bool = True,
    scale: bool = False,
    tol: float | None = None,
    max_passes: int | None = None,
    seed: int = 0,
    dtype: Any = None,
) -> PCAResult:
    """Compute k principal components of a matrix on a Dask cluster; see `fastfactor.pca`.

    Parameters
    ----------
    X, client, n_parts, shape
        As for `svd`.
    k, center, scale, tol, max_passes, seed, dtype
        As for `fastfactor.pca`.

    Returns
    -------
    PCAResult

    Raises
    ------
    TypeError, ValueError, ImportError
        As for `fit` and `fastfactor.pca`.
    """
    with _opening(X, client, n_parts, shape) as opened:
        cluster, operand, is_adjoint = opened.cluster, opened.operand, opened.is_adjoint
        real = choose_precision(opened.dtype, dtype)
        search = as_search(cluster, k, real, tol, max_passes, None)
        unit = rescale(operand)
        mean = sum_columns(operand, is_adjoint) / cluster.shape[0]
        squares = add_tree(cluster.gather(deviations_of, mean, unit)) if scale else None
        centred = centre(lambda rng: operand, cluster.shape[0], mean, squares, opened.norm * unit, center, unit)
        rng = np.random.default_rng(seed)
        found = decompose_operand(centred.operand(rng, is_adjoint), is_adjoint, search, rng)
    return as_components(found, centred, search, real, scale)
