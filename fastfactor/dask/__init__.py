"""`fit` and `svd` on a Dask cluster (extra `dask`)."""

from fastfactor.dask.running import fit, svd

__all__ = ["fit", "svd"]
