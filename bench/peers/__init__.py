'''Peers to compare with, one file each; a file whose imports fail is skipped, with the error as the reason.

A whole peer, in a file `peers/means.py`:

    """Predicting the mean of each column: what every model has to beat."""

    import time

    from bench.peers.base import CompletionPeer, Run, rmse


    class Means(CompletionPeer):
        name = "means"

        def fit(self, train, recipe, test=None):
            start = time.perf_counter()
            means = (train.sum(axis=0).A1 + train.data.mean()) / (train.getnnz(axis=0) + 1)
            seconds = time.perf_counter() - start

            def predict(rows, cols):
                return means[cols]

            return Run([recipe.n_epochs], [seconds], predict, [] if test is None else [rmse(predict, test)])


    PEERS = [Means()]
'''

import importlib
import pkgutil
from functools import cache

from bench.peers.base import CompletionPeer, SvdPeer
from bench.record import Recorder

Peer = CompletionPeer | SvdPeer


def module_names() -> list[str]:
    """Names of the files in this folder that define peers."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base")


@cache
def load(module_name: str) -> tuple[tuple[Peer, ...], str]:
    """Return the peers that one file defines, and why there are none (empty when there are some)."""
    try:
        module = importlib.import_module(f"{__name__}.{module_name}")
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        return (), f"{type(error).__name__}: {error}"
    return tuple(module.PEERS), ""


def find_completion(module_name: str, recorder: Recorder) -> list[CompletionPeer]:
    """Return the completion peers of one file; when it cannot be imported, none, and the recorder is told why."""
    return [peer for peer in _find(module_name, recorder) if isinstance(peer, CompletionPeer)]


def find_svd(module_name: str, recorder: Recorder) -> list[SvdPeer]:
    """Return the SVD peers of one file, likewise."""
    return [peer for peer in _find(module_name, recorder) if isinstance(peer, SvdPeer)]


def _find(module_name: str, recorder: Recorder) -> tuple[Peer, ...]:
    peers, reason = load(module_name)
    if reason:
        recorder.skip(module_name, reason)
    for peer in peers:
        if peer.name in recorder.left_out:
            recorder.skip(peer.name, "left out of this run")
    return tuple(peer for peer in peers if peer.name not in recorder.left_out)
