"""`fit`, `svd` and `pca` on a Dask cluster (extra `dask`)."""

from fastfactor.dask.passes import pca, svd
from fastfactor.dask.running import fit

__all__ = ["fit", "pca", "svd"]
