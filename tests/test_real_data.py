"""Real matrices, where FASTFACTOR_DATA says where they are."""

import numpy as np
import pytest
import reference
import scipy.sparse.linalg

import fastfactor as ff


@pytest.mark.parametrize(("name", "gain"), [("ml-100k", 0.15), ("ml-1m", 0.20)])
def test_ratings_are_predicted_better_than_by_their_mean(data, name, gain):
    train, _, test = data.split(data.load(name))
    model = ff.fit(train, rank=16)
    error = np.sqrt(np.mean((model.predict(test.row, test.col) - test.data) ** 2))
    assert error <= (1 - gain) * np.sqrt(np.mean((train.data.mean() - test.data) ** 2))


@pytest.mark.parametrize("name", ["olivetti", "mnist-t10k"])
def test_images_are_approximated_to_the_optimum(data, name):
    A = data.load(name).astype(np.float32)
    model = ff.fit(A, rank=50, unobserved="zero")
    values = scipy.sparse.linalg.svds(A.astype(np.float64), 50, return_singular_vectors=False)
    optimum = np.sqrt(np.sum(A.astype(np.float64) ** 2) - np.sum(values**2))
    assert np.linalg.norm(A - model.U @ model.V.T) <= 1.01 * optimum


def test_optimal_error_of_the_oracle():
    A = np.diag([4.0, 3.0, 2.0, 1.0])
    assert reference.optimal_error(A, 2) == pytest.approx(5**0.5)
