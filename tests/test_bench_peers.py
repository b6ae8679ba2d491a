import textwrap

import numpy as np
import pytest

from bench import data, generate, peers
from bench.peers.base import CompletionPeer, Recipe, Run, SvdPeer, rmse
from bench.suites.svd import compute_residual

COMPLETION_FILES = ("cmfrec", "implicit", "libmf", "numba_loops", "ours")
SVD_FILES = ("ours_svds", "primme_svds", "scipy_svds", "sklearn_svd")


def load_or_skip(file):
    found, reason = peers.load(file)
    if reason:
        pytest.skip(reason)
    return found


def test_every_file_is_known():
    assert peers.module_names() == sorted(COMPLETION_FILES + SVD_FILES)


@pytest.mark.parametrize("file", COMPLETION_FILES)
def test_completion_peer_keeps_the_interface(file):
    found = load_or_skip(file)
    matrix = generate.standard_ratings("1M") if file == "libmf" else generate.rating_matrix(600, 400, 40_000)
    train, _, test = data.split(matrix)
    train = train.tocsr()
    recipe = Recipe(8, learning_rate=0.03, n_epochs=4)
    for peer in found:
        assert isinstance(peer, CompletionPeer)
        timed, followed = peer.fit(train, recipe), peer.fit(train, recipe, test)
        assert isinstance(timed, Run)
        assert len(timed.epochs) == len(timed.ends) == len(followed.test_rmse)
        assert timed.epochs[-1] == 4
        assert (np.diff(timed.ends) > 0).all() or file == "cmfrec"  # its points are separate fits
        assert not timed.test_rmse
        assert followed.test_rmse[-1] == pytest.approx(rmse(followed.predict, test), rel=1e-3)
        if peer.problem == "missing":
            spread = float(np.std(test.data - train.data.mean()))
            assert followed.test_rmse[-1] < spread


@pytest.mark.parametrize("file", SVD_FILES)
def test_svd_peer_keeps_the_interface(file):
    matrix = generate.text_matrix(1_000, 300, 10_000, n_topics=8)
    expected = np.linalg.svd(matrix.toarray(), compute_uv=False)[:5]
    for peer in load_or_skip(file):
        assert isinstance(peer, SvdPeer)
        tightest = list(peer.plausible_efforts(1e-8))[-1]
        triplets = peer.solve(matrix, 5, tightest)
        np.testing.assert_allclose(np.sort(triplets[1])[::-1], expected, rtol=1e-6)
        assert compute_residual(matrix, triplets) < 1e-4


def test_libmf_refuses_matrices_it_may_never_return_from():
    (libmf,) = load_or_skip("libmf")
    with pytest.raises(ValueError, match="may never return"):
        libmf.fit(generate.rating_matrix(60, 40, 400), Recipe(8))


def test_the_peer_that_the_docstring_shows_is_one():
    text, namespace = peers.__doc__, {}
    exec(textwrap.dedent(text[text.index('    """') :]), namespace)
    (peer,) = namespace["PEERS"]
    X = generate.rating_matrix(30, 20, 200)
    assert 0 < peer.fit(X, Recipe(rank=4), X.tocoo()).test_rmse[0] < 2
