"""A client and the parts of a matrix on its workers, and what is done when one of them dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ATTEMPTS = 4  # at an epoch or a pass; workers may die during each


@contextlib.contextmanager
def using_client(client: Any) -> Iterator[Any]:
    """Yield the client that was given, the current one, or one of a `LocalCluster` that goes afterwards."""
    try:
        import distributed
    except ImportError as error:
        raise ImportError("dask.distributed is missing: pip install 'fastfactor[dask]'") from error
    if client is None:
        with contextlib.suppress(ValueError):
            client = distributed.default_client()
    if client is not None:
        yield client
        return
    with (
        distributed.LocalCluster(threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as own,
    ):
        yield own


def retrying(work: Any) -> Any:
    """Return work(), begun anew as long as workers die under it."""
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    for attempt in range(_ATTEMPTS):
        try:
            return work()
        except (FutureCancelledError, KilledWorker, CommClosedError):
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def spread(client: Any, n_parts: int) -> tuple[list[str], int]:
    """Return a worker for each part of the rows, and into how many groups of neighbours the parts go.

    There are as many groups as the workers have threads, rounded up to a power of two. Each group has one worker.
    """
    known = client.scheduler_info(n_workers=-1)["workers"]
    if not known:
        client.wait_for_workers(1)
        known = client.scheduler_info(n_workers=-1)["workers"]
    threads = [name for name in sorted(known) for _ in range(known[name]["nthreads"])]
    n_groups = min(n_parts, 1 << (len(threads) - 1).bit_length())
    return [threads[(i * n_groups // n_parts) % len(threads)] for i in range(n_parts)], n_groups


@dataclass
class Cluster:
    """The parts of a matrix on the workers of a client.

    Attributes
    ----------
    client : distributed.Client
    parts : list of Future
        Of `Part`, in the order of the rows.
    starts : (P + 1,) int64 array
        First row of each part.
    n_cols : int
    n_groups : int
        How many groups of parts have a worker each.
    """

    client: Any
    parts: list[Any]
    starts: NDArray[np.int64]
    n_cols: int
    n_groups: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return int(self.starts[-1]), self.n_cols

    @property
    def groups(self) -> list[range]:
        """Numbers of the parts of each group."""
        size = len(self.parts) // self.n_groups
        return [range(first, first + size) for first in range(0, len(self.parts), size)]

    def run(self, function: Any, *args: Any) -> list[Any]:
        """Return futures of function(part, *args) for each part."""
        return [self.client.submit(function, part, *args, pure=False) for part in self.parts]

    def run_groups(self, function: Any, *args: Any) -> list[Any]:
        """Return futures of function(parts, *args) for the parts of each group."""
        return [
            self.client.submit(function, [self.parts[b] for b in group], *args, pure=False) for group in self.groups
        ]

    def gather(self, function: Any, *args: Any) -> list[Any]:
        """Return what function(part, *args) is for each part."""
        return list(retrying(lambda: self.client.gather(self.run(function, *args))))
