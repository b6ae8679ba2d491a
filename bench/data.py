"""Real matrices for the suites and tests: found through the environment variable FASTFACTOR_DATA, never shipped.

The variable names a folder of `<name>.npz` files. Each holds a key `dense`, or what `scipy.sparse.save_npz` writes.
"""

import os
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bench import UnknownNameError

VARIABLE = "FASTFACTOR_DATA"


class MissingDataError(UnknownNameError):
    """A real matrix is not on this machine; the message says why, and suites record it as the reason to skip."""


def names() -> list[str]:
    """Names of the matrices at hand, sorted; empty when there is no data folder."""
    folder = os.environ.get(VARIABLE)
    return sorted(path.stem for path in Path(folder).glob("*.npz")) if folder else []


def load(name: str) -> sp.csr_matrix | NDArray[np.float64]:
    """Return one matrix in float64: CSR with its explicit zeros, or dense."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise MissingDataError(f"{name}: the environment variable {VARIABLE} is not set")
    path = Path(folder) / f"{name}.npz"
    if not path.is_file():
        raise MissingDataError(f"{name}: there is no {path.name} in the folder that {VARIABLE} names")
    with np.load(path) as archive:
        if "dense" in archive.files:
            return np.asarray(archive["dense"], dtype=np.float64)
    return sp.csr_matrix(sp.load_npz(path), dtype=np.float64)


def split(
    matrix: sp.spmatrix, test: float = 0.1, validation: float = 0.1, seed: int = 0
) -> tuple[sp.coo_matrix, sp.coo_matrix, sp.coo_matrix]:
    """Deal the stored entries at random into (train, validation, test), each of the whole shape."""
    entries = matrix.tocoo()
    draw = np.random.default_rng(seed).random(entries.nnz)
    in_test, in_train = draw < test, draw >= test + validation
    return (
        _entries_where(entries, in_train),
        _entries_where(entries, ~(in_test | in_train)),
        _entries_where(entries, in_test),
    )


def _entries_where(entries: sp.coo_matrix, chosen: NDArray[np.bool_]) -> sp.coo_matrix:
    triplets = (entries.data[chosen], (entries.row[chosen], entries.col[chosen]))
    return sp.coo_matrix(triplets, shape=entries.shape)
