import ast
import math
import os
import textwrap
import time

import numpy as np
import pytest

from bench import data, generate, peers
from bench.apart import Apart
from bench.peers.base import CompletionPeer, Recipe, Run, SvdPeer, rmse
from bench.record import Recorder
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


def test_peers_that_are_left_out_are_named():
    recorder = Recorder(left_out=frozenset({"scipy-lobpcg"}), suite="svd")
    assert [peer.name for peer in peers.find_svd("scipy_svds", recorder)] == ["scipy-arpack", "scipy-propack"]
    assert recorder.skipped == ["svd: scipy-lobpcg: left out of this run"]


@pytest.mark.parametrize("file", COMPLETION_FILES)
def test_completion_peer_keeps_the_interface(file):
    found = load_or_skip(file)
    train, _, test = data.split(generate.rating_matrix(600, 400, 40_000))
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


def test_libmf_fits_small_matrices_in_a_process_of_its_own():
    (libmf,) = load_or_skip("libmf")
    matrix = generate.rating_matrix(60, 40, 400).tolil()
    matrix[7] = 0
    matrix = matrix.tocsr()
    run = libmf.fit(matrix, Recipe(8, n_epochs=3))
    assert len(run.ends) == 3
    assert np.isfinite(run.predict(np.arange(40), np.arange(40))).all()
    assert run.predict(np.array([7]), np.array([3])) == pytest.approx(matrix.data.mean(), rel=1e-5)  # of an empty row


def test_a_call_apart_returns_raises_and_is_given_up():
    root = Apart(math.sqrt, seconds=60)
    assert root(4.0) == 2.0
    with pytest.raises(ValueError, match="math domain error"):
        root(-1.0)
    assert root(9.0) == 3.0
    root.stop()
    for function, argument, seconds in ((os._exit, 1, 60), (time.sleep, 300, 0.1)):  # one crashes, one does not return
        with pytest.raises(TimeoutError, match="in each of 2 attempts"):
            Apart(function, seconds, attempts=2)(argument)


def test_the_peer_that_the_docstring_shows_is_one():
    text, namespace = peers.__doc__, {}
    code = textwrap.dedent(text[text.index('    """') :])
    exec(code, namespace)
    (peer,) = namespace["PEERS"]
    X = generate.rating_matrix(30, 20, 200)
    assert 0 < peer.fit(X, Recipe(rank=4), X.tocoo()).test_rmse[0] < 2
    nodes = list(ast.walk(ast.parse(code)))
    imported = {each.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for each in node.names}
    assert imported <= {node.id for node in nodes if isinstance(node, ast.Name)}  # or ruff would refuse the file
