"""scipy's own tests of `svds`, run against ours.

Exceptions, each an assumption of scipy's harness and not of its documentation:

- `test_svd_v0`, `test_svd_rng`, `test_svd_rng_3`: other starts must give other bits. Ours gives the same result for all
  of them on these 100 x 100 matrices, which LAPACK decomposes.
- `test_svd_maxiter` (arpack, propack): one iteration must not suffice for a 9 x 9 matrix. It does: LAPACK again.
- `test_svds_parameter_tol` (arpack): asks for an error of 2.5e-15 in singular values of a matrix whose reference is
  itself only that good; which of two LAPACK builds is in use decides.
"""

import pytest
import scipy

from fastfactor.decomposition import svds

suite = pytest.importorskip(
    "scipy.sparse.linalg._eigen.tests.test_svds", reason="scipy was installed without its tests"
)

if not scipy.__version__.startswith(("1.16.", "1.17.")):
    pytest.skip(f"this lane is pinned to scipy 1.16 and 1.17, not {scipy.__version__}", allow_module_level=True)

DIFFERENT_BITS = {"test_svd_v0", "test_svd_rng", "test_svd_rng_3"}
EXCEPTIONS = {
    "arpack": DIFFERENT_BITS | {"test_svd_maxiter", "test_svds_parameter_tol"},
    "propack": DIFFERENT_BITS | {"test_svd_maxiter"},
}


class _Ours(suite.SVDSCommonTests):
    @pytest.fixture(autouse=True)
    def _use_ours(self, monkeypatch, request):
        name = request.node.originalname
        if name in EXCEPTIONS[self.solver]:
            pytest.skip("an assumption of scipy's harness: see the module's docstring")
        monkeypatch.setattr(suite, "svds", svds)


class TestAsArpack(_Ours):
    solver = "arpack"
    test_svds_input_validation_ncv_1 = suite.Test_SVDS_ARPACK.test_svds_input_validation_ncv_1
    test_svds_input_validation_ncv_2 = suite.Test_SVDS_ARPACK.test_svds_input_validation_ncv_2


class TestAsPropack(_Ours):
    solver = "propack"


class TestOnce(suite.Test_SVDS_once):
    @pytest.fixture(autouse=True)
    def _use_ours(self, monkeypatch):
        monkeypatch.setattr(suite, "svds", svds)
