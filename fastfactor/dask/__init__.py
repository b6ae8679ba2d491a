"""`fit` and `svd` on a Dask cluster (extra `dask`)."""

from fastfactor.dask.passes import svd
from fastfactor.dask.running import fit

__all__ = ["fit", "svd"]
