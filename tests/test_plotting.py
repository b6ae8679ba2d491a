"""Pictures: what is drawn, where, and that they can be rendered."""

import io
import sys

import numpy as np
import pytest

import fastfactor as ff
from fastfactor.results import SVDResult

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def render(ax):
    file = io.BytesIO()
    ax.figure.savefig(file, format="png")
    return file.getvalue()


def test_history(ratings):
    model = ff.fit(ratings, 8, regularization=0.05, learning_rate=3.0, max_epochs=20, validation=0.2)
    ax = model.plot_history()
    lines = {line.get_label(): line for line in ax.lines}
    epochs = model.history["epoch"]
    for name in ("train", "validation"):
        assert lines[name].get_xdata().tolist() == list(range(1, len(epochs) + 1))
        np.testing.assert_array_equal(lines[name].get_ydata(), model.history[f"{name}_loss"])
    assert len(ax.lines) == 2 + (epochs == 1).sum() - 1 > 2
    assert render(ax).startswith(b"\x89PNG")


def test_history_without_validation_in_given_axes(ratings):
    model = ff.fit(ratings, 8, regularization=0.05, max_epochs=4, validation=False)
    own = pyplot.figure().add_subplot()
    assert model.plot_history(own) is own
    assert [text.get_text() for text in own.get_legend().get_texts()] == ["train"]
    empty = ff.fit(ratings, 8, regularization=0.05, max_epochs=4, validation=False, max_seconds=1e-9)
    with pytest.raises(ValueError, match="no history"):
        empty.plot_history()


def test_spectra(ratings):
    model = ff.fit(ratings, 8, regularization=0.05, max_epochs=4, validation=False)
    np.testing.assert_array_equal(model.plot_spectrum().lines[0].get_ydata(), model.svd().s)
    for result in (ff.svd(ratings, 4), ff.pca(ratings, 4)):
        own = pyplot.figure().add_subplot()
        assert result.plot_spectrum(own) is own
        assert own.get_yscale() == "log"
        np.testing.assert_array_equal(own.lines[0].get_ydata(), result.s)
        assert render(own).startswith(b"\x89PNG")
    zeros = SVDResult.from_factors(np.zeros((3, 2)), np.zeros((4, 2)))
    assert zeros.plot_spectrum().get_yscale() == "linear"


def test_without_the_extra_there_is_a_hint(ratings, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'fastfactor\[plot\]'"):
        ff.svd(ratings, 2).plot_spectrum()
