"""Factorization: predictions, dense blocks, what they refuse."""

import numpy as np
import pytest

import fastfactor as ff
from fastfactor.model import Factorization


@pytest.fixture(scope="module")
def model(ratings):
    return ff.fit(ratings, 8, regularization=0.05, max_epochs=3, validation=False)


def by_hand(model):
    U, V = model.U.astype("complex128"), model.V.astype("complex128")
    return model.mean + model.row_bias[:, None] + model.col_bias + U @ V.conj().T


def test_attributes(model):
    assert model.rank == 8
    assert model.shape == (60, 40)
    assert model.U.shape == (60, 8)
    assert model.V.shape == (40, 8)
    assert model.row_bias.shape == (60,)
    assert model.col_bias.shape == (40,)
    for M in (model.U, model.V):
        assert M.flags.c_contiguous
        assert M.dtype == np.float32
    assert repr(model) == "Factorization(60 x 40, rank=8, dtype=float32)"


def test_predict_equals_reconstruct_equals_the_definition(model):
    expected = by_hand(model).real
    np.testing.assert_allclose(model.reconstruct(), expected, rtol=1e-5, atol=1e-5)
    rows, cols = np.indices(model.shape)
    np.testing.assert_allclose(model.predict(rows, cols), expected, rtol=1e-5, atol=1e-5)
    assert model.predict(rows, cols).dtype == np.float32
    np.testing.assert_allclose(model.reconstruct([5, 0, 5]), expected[[5, 0, 5]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 6, 144])
def test_predict_of_complex_factors_of_any_rank(rank, rng):
    U, V = (rng.standard_normal((n, rank)) + 1j * rng.standard_normal((n, rank)) for n in (5, 4))
    biases = (rng.standard_normal(n) + 1j * rng.standard_normal(n) for n in (5, 4))
    model = Factorization(U, V, np.complex128(1 - 2j), *biases)
    np.testing.assert_allclose(model.predict(*np.indices((5, 4))), by_hand(model), rtol=1e-12)
    np.testing.assert_allclose(model.reconstruct(), by_hand(model), rtol=1e-12)


def test_predict_broadcasts(model):
    block = model.reconstruct()
    assert model.predict(3, 4).shape == ()
    np.testing.assert_allclose(model.predict(3, 4), block[3, 4], rtol=1e-5)
    np.testing.assert_allclose(model.predict(3, [0, 1, 2]), block[3, :3], rtol=1e-5)
    np.testing.assert_allclose(model.predict([[3], [4]], [0, 1]), block[3:5, :2], rtol=1e-5)
    assert model.predict([], []).shape == (0,)
    assert model.reconstruct([]).shape == (0, 40)


@pytest.mark.parametrize(
    ("rows", "cols", "error", "message"),
    [
        (60, 0, IndexError, r"rows holds 60, outside 0\.\.59"),
        ([0, -1], [0, 0], IndexError, r"rows holds -1, outside 0\.\.59"),
        ([0, 1], [0, 41], IndexError, r"cols holds 41, outside 0\.\.39"),
        (0, 2**40, IndexError, r"cols holds 1099511627776"),
        (0.5, 0, TypeError, "rows must hold integers, got dtype float64"),
        (0, "a", TypeError, "cols must hold integers"),
        ([0, 1, 2], [0, 1], ValueError, "broadcast"),
    ],
)
def test_predict_refuses(model, rows, cols, error, message):
    with pytest.raises(error, match=message):
        model.predict(rows, cols)


def test_reconstruct_refuses(model):
    with pytest.raises(IndexError, match=r"rows holds 60, outside 0\.\.59"):
        model.reconstruct([60])
    with pytest.raises(TypeError, match="rows must hold integers"):
        model.reconstruct([0.5])


def test_reconstruct_says_how_much_memory_it_needs(model, monkeypatch):
    monkeypatch.setattr("fastfactor.model.available_memory", lambda: 1000.0)
    with pytest.raises(MemoryError, match=r"60 x 40 needs 0\.0 GiB"):
        model.reconstruct()
    assert model.reconstruct([1, 2]).shape == (2, 40)
    huge = Factorization(
        np.broadcast_to(np.float32(0), (10**6, 1)), np.broadcast_to(np.float32(0), (10**6, 1)), 0.0, None, None
    )
    with pytest.raises(MemoryError, match=r"1000000 x 1000000 needs 3725\.3 GiB"):
        huge.reconstruct()


def test_model_is_frozen(model):
    with pytest.raises(AttributeError):
        model.U = None
