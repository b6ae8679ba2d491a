"""Arguments of types that nobody foresaw: an error that names the argument and the value, or what they plainly mean."""

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor import metrics, model_selection

PLAIN = {"max_epochs": 2, "regularization": 0.1, "validation": False}
A = np.random.default_rng(0).integers(1, 6, (9, 6)).astype(float)
MASKED = np.ma.masked_array([0, 1], [True, False])
GOOD, VALUES = [0, 1], [1.0, 2.0]


@pytest.fixture(scope="module")
def model():
    return ff.fit(A, 2, **PLAIN)


@pytest.fixture(params=["fit", "fold_in", "validation", "sample_weight"])
def take_triplets(request, model):
    """What takes triplets."""
    return {
        "fit": lambda X: ff.fit(X, 1, **PLAIN),
        "fold_in": model.fold_in,
        "validation": lambda X: ff.fit((GOOD, GOOD, VALUES), 1, max_epochs=2, validation=X),
        "sample_weight": lambda X: ff.fit(X, 1, sample_weight=np.ones(2), **PLAIN),
    }[request.param]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (MASKED, TypeError, "rows is a masked array"),  # the mask was lost
        ([0, [1]], ValueError, "rows cannot be made an array"),
        (["a", "b"], TypeError, "rows must hold integers"),
        (np.array([0, 1 << 63], np.uint64), ValueError, "rows holds 9223372036854775808, which is no index"),
    ],
)
def test_indices_of_triplets(take_triplets, rows, error, message):
    with pytest.raises(error, match=message):
        take_triplets((rows, GOOD, VALUES))


def test_masks_of_positions_are_not_lost(model):
    for call in (
        lambda: model.predict(MASKED, 0),
        lambda: model.predict(0, MASKED),
        lambda: model.recommend(MASKED, 1),
        lambda: model.reconstruct(MASKED),
        lambda: model.similar_rows(MASKED, 1),
        lambda: metrics.recall_at_k(np.ma.masked_array([[0], [1]], [[True], [False]]), sp.eye_array(2), 1),
        lambda: metrics.rmse(MASKED, VALUES),
        lambda: metrics.mae(VALUES, MASKED),
        lambda: model_selection.temporal_split((GOOD, GOOD, VALUES), MASKED, 0.5),
    ):
        with pytest.raises(TypeError, match=r"(rows|cols|recommended|actual|predicted|times) is a masked array"):
            call()


@pytest.mark.parametrize("values", [None, "text", ["a", "b"], [1, None], np.array(["2020"], "M8[D]"), [sp.eye(2)]])
def test_errors_are_of_numbers(values):
    with pytest.raises(TypeError, match="actual must hold numbers"):
        metrics.rmse(values, values)
    with pytest.raises(TypeError, match="predicted must hold numbers"):
        metrics.mae(np.ones(np.shape(np.asarray(values))), values)


@pytest.mark.parametrize("name", ["svd", "svds", "pca"])
@pytest.mark.parametrize("X", [None, "a.npz", {1: 2}, range(5), memoryview(b"abc")])
def test_what_is_no_matrix(name, X):
    with pytest.raises(TypeError, match=f"^[AX] must be .* LinearOperator, got {type(X).__name__}"):
        getattr(ff, name)(X, 1)


@pytest.mark.parametrize("name", ["svd", "svds", "pca"])
@pytest.mark.parametrize("make", [np.asarray, sp.coo_array])
@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
def test_what_is_not_2d(name, make, shape):
    try:
        X = make(np.ones(shape))
    except ValueError:
        pytest.skip("this scipy has no such arrays")
    with pytest.raises(ValueError, match=r"^[AX] must be 2-D, got shape \("):
        getattr(ff, name)(X, 1)


BEYOND = 10**400
FIT = {
    "rank": [BEYOND, 1 << 63, 1 << 31, True, 2.0, "2", None, np.array(2)],
    "regularization": [BEYOND, "1", None, np.nan, -1, True, 1j],
    "l1_regularization": [BEYOND, "1", None, np.nan],
    "learning_rate": [BEYOND, "1", None, 0, np.inf],
    "max_epochs": [BEYOND, 0, 1.5, "2", True],
    "max_seconds": [BEYOND, 0, "2", np.nan],
    "seed": [BEYOND, 1 << 64, -1, None, 1.0, "1"],
    "max_memory": [BEYOND, 0, "much", np.nan],
    "unobserved": [None, 1, np.array([1.0, 2.0]), b"missing"],
    "biases": [None, 1, np.array([1.0, 2.0]), "yes"],
    "duplicates": [np.array([1.0, 2.0]), None, "first", 1],
    "n_threads": [np.array([2]), int, "2", 0, 1.0, True],
    "dtype": [True, (2,), "i4", "text", np.float16, object()],
    "loss": [BEYOND, None, True, "text", b"squared", ["squared"], abs, np.array(2)],
    "nonnegative": [BEYOND, None, 0, "yes", (True,), np.array([True])],
    "validation": [BEYOND, True, 0, 1.0, np.nan, "auto", (2, 3), {}, np.array([2])],
    "sample_weight": [BEYOND, True, 2.0, "auto", [], (2, 3), {}, np.array([2.0])],
    "unobserved_weight": [BEYOND, True, 0, -1, np.nan, "auto", [2]],
    "shape": [BEYOND, True, 9, (9,), (9, 6, 1), "96", {}, (9.0, 6.0)],
    "init": [BEYOND, True, 0, "svd", (2, 3), {}, np.eye(2)],
    "posterior_samples": [BEYOND, None, True, -1, 2.0, "2", [2], np.array(2)],
    "callback": [BEYOND, True, 0, "print", []],
    "progress": [BEYOND, 0, 2.0, "yes", [], print],
    "checkpoint": [BEYOND, True, 0, b"kept", ["kept"], print],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FIT.items() for value in values])
def test_options_of_a_fit(name, value):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        ff.fit(A, **({"rank": 2} | PLAIN | {name: value}))


@pytest.mark.parametrize("X", [b"abc", None, "a.npz", {1: 2}, [[1.0], [1.0, 2.0]], [object()]])
def test_what_is_no_matrix_beside_a_checkpoint(tmp_path, X):
    """Arguments are described for the checkpoint before anybody has looked at them."""
    for name in ("X", "sample_weight"):
        if (name, X) != ("sample_weight", None):
            with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
                ff.fit(**({"X": A, "rank": 2} | PLAIN | {name: X}), checkpoint=tmp_path / "kept")


DECOMPOSE = {
    "k": [BEYOND, -BEYOND, 0, 7, 1.0, "1", None, True, np.array([2])],
    "tol": [BEYOND, "1", b"x", [1], (), 1j, np.nan, 0, -1, np.array([0.1, 0.2]), np.datetime64("2020")],
    "max_passes": [BEYOND, 0, "1", 1.5],
    "seed": [BEYOND, -1, True, 2.0, "2", None, [1, 2], np.array(2)],
    "n_threads": [np.array([2]), int, "2", 0],
    "dtype": [True, (2,), "i4", "text", np.float16, object()],
}
FLAGS = ("no", 1.5, [], np.array([True, False]))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in DECOMPOSE.items() for value in values])
def test_options_of_decompositions(name, value):
    for function in (ff.svd, ff.pca):
        with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
            function(A, **({"k": 2} | {name: value}))


@pytest.mark.parametrize("value", FLAGS)
def test_flags(model, value):
    """What is no bool was taken for True, so "no" for yes."""
    for name, call in (
        ("center", lambda: ff.pca(A, 2, center=value)),
        ("scale", lambda: ff.pca(A, 2, scale=value)),
        ("include_biases", lambda: model.svd(include_biases=value)),
        ("return_std", lambda: model.predict(0, 0, return_std=value)),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be True, False"):
            call()


def test_options_of_results(model):
    result = ff.svd(A, 2)
    for side in (None, 1, np.array([1.0, 2.0]), "both"):
        with pytest.raises(ValueError, match=r"^side must be one of"):
            result.eigh(side)
    for rcond in ("2", -1, np.nan, BEYOND, np.array([1.0, 2.0])):
        with pytest.raises((TypeError, ValueError), match=r"^rcond must be"):
            result.pinv(rcond)
    for n in (BEYOND, 1 << 31, 0, 1.0):
        for call in (lambda n: model.recommend(0, n), lambda n: model.similar_cols(0, n)):
            with pytest.raises((TypeError, ValueError), match=r"^n must be"):
                call(n)
    for seed in (BEYOND, 1 << 64, -1, None):
        with pytest.raises((TypeError, ValueError), match=r"^seed must be"):
            model.partial_fit(A, seed=seed)
    assert model.recommend(0, 1 << 20)[0].shape == (1, 1 << 20)


def test_seeds_of_64_bits_are_taken():
    for seed in ((1 << 64) - 1, np.uint64((1 << 64) - 1), np.int8(1)):
        assert np.isfinite(ff.fit(A, 2, seed=seed, **PLAIN).U).all()
        assert ff.svd(A, 2, seed=seed).converged


def test_components_are_named_as_scikit_learn_does():
    sklearn = pytest.importorskip("fastfactor.sklearn")
    for value in (None, 0, 2.0, "2"):
        with pytest.raises((TypeError, ValueError), match=r"^n_components must be"):
            sklearn.MatrixFactorization(value).fit(A)


class TestReading:
    """Of `fastfactor.io`."""

    @pytest.mark.parametrize("path", [A, None, 3, [1, 2], b"a.csv", memoryview(A), sp.eye(2)])
    def test_what_is_no_path(self, path):
        with pytest.raises(TypeError, match=r"^path must be a path or a sequence of paths, got"):
            ff.io.read(path)

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("format", (1, b"csv", np.array([1.0, 2.0]))),
            ("unknown", (None, 1, np.array([1.0, 2.0]))),
            ("on_bad_line", (None, 1, np.array([1.0, 2.0]))),
            ("columns", (True, 3, "ab", np.array(2), {1, 2}, (0, 1.5), (0,))),
            ("header", ("no", 2.5, -1, np.nan, [])),
            ("integer_ids", ("no", 2.5, None, [])),
            ("dtype", (True, (2,), "i4", object())),
        ],
    )
    def test_options(self, tmp_path, name, values):
        pytest.importorskip("pyarrow")
        (tmp_path / "a.csv").write_text("0,0,1.5\n1,1,2.5\n")
        for value in values:
            with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
                ff.io.read(tmp_path / "a.csv", **{name: value})

    def test_frames_whose_columns_have_no_names(self):
        """Their numbers were taken for what is no name."""
        pytest.importorskip("narwhals")
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame([[5, 7, 1.5], [6, 7, 2.5]])
        frame[[0, 1]] = frame[[0, 1]].astype(int)
        found = ff.io.from_frame(frame)
        assert (found.row_ids.tolist(), found.col_ids.tolist()) == ([5, 6], [7])
        assert found.triplets[2].tolist() == [1.5, 2.5]

    @pytest.mark.parametrize(
        ("name", "ids", "error", "message"),
        [
            ("row_ids", True, TypeError, "must be a sequence of ids, got True"),
            ("row_ids", "abcdefghi", TypeError, "must be a sequence of ids, got 'abcdefghi'"),
            ("col_ids", [1.0] * 6, TypeError, "an id must be"),
            ("col_ids", ["a"] * 6, ValueError, "ids must be distinct"),
        ],
    )
    def test_labels(self, name, ids, error, message):
        with pytest.raises(error, match=f"^{name}:? {message}"):
            ff.io.label(A, **{name: ids})

    @pytest.mark.parametrize(
        "X", [A.astype(str), A.astype(object), A.astype("M8[s]"), [["a"]]], ids=lambda X: str(type(X))
    )
    def test_labels_of_what_is_no_number(self, X):
        """Such a matrix was taken, and could not even be printed."""
        with pytest.raises(TypeError, match=r"^X must hold numbers"):
            ff.io.label(X)
