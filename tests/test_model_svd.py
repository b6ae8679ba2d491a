"""model.svd(): the decomposition of the fitted U V^H."""

import numpy as np
import pytest

from fastfactor.model import Factorization


def make(n_rows, n_cols, rank, dtype, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        M = rng.standard_normal(shape)
        return (M + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else M).astype(dtype)

    return Factorization(draw(n_rows, rank), draw(n_cols, rank), draw(1)[0], draw(n_rows), draw(n_cols))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(30, 20), (4, 20), (30, 3), (1, 5), (1, 1)])  # also fewer rows than the rank
@pytest.mark.parametrize("include_biases", [False, True])
def test_svd(shape, dtype, include_biases):
    model = make(*shape, 5, dtype)
    U, s, Vt = model.svd(include_biases=include_biases)
    expected = model.U.astype("complex128") @ model.V.conj().T
    if include_biases:
        expected = expected + model.mean + model.row_bias[:, None] + model.col_bias
    tolerance = 1e-4 if np.dtype(dtype).itemsize // (1 + (np.dtype(dtype).kind == "c")) == 4 else 1e-10
    n = len(s)
    assert U.shape == (shape[0], n)
    assert Vt.shape == (n, shape[1])
    np.testing.assert_allclose(U.conj().T @ U, np.eye(n), atol=tolerance)
    np.testing.assert_allclose(Vt @ Vt.conj().T, np.eye(n), atol=tolerance)
    assert (np.diff(s) <= 0).all()
    exact = np.linalg.svd(expected, compute_uv=False)
    np.testing.assert_allclose(s, exact[:n], rtol=tolerance, atol=tolerance * exact[0])
    np.testing.assert_allclose((U * s) @ Vt, expected, atol=tolerance * exact[0])


def test_signs_are_deterministic():
    """The same product from factors of other signs has the same vectors."""
    model = make(30, 20, 4, "float64")
    flip = np.array([1.0, -1.0, -1.0, 1.0])
    other = Factorization(model.U * flip, model.V * flip, model.mean, model.row_bias, model.col_bias)
    mixed = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    third = Factorization(model.U @ mixed, model.V @ mixed, model.mean, model.row_bias, model.col_bias)
    for changed in (other, third):
        for a, b in zip(model.svd(), changed.svd(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)
