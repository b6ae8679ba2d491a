"""Files out: recommendations, neighbours, predictions and factors, in every format, with ids or positions."""

import os

import numpy as np
import pytest
import scipy.sparse as sp

import fastfactor as ff
from fastfactor.io import writing
from fastfactor.io.writing import write_factors, write_neighbours, write_predictions, write_recommendations
from fastfactor.model import Factorization

pa = pytest.importorskip("pyarrow")
csv = pytest.importorskip("pyarrow.csv")
feather = pytest.importorskip("pyarrow.feather")
pq = pytest.importorskip("pyarrow.parquet")

TABLES = ["a.parquet", "a.arrow", "a.csv", "a.tsv"]
ROWS = ["ann", "b,b", 'c"c', "dan"]


def read_table(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".arrow":
        return feather.read_table(path)
    return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter="," if path.suffix == ".csv" else "\t"))


@pytest.fixture
def model():
    rng = np.random.default_rng(5)
    U, V = rng.standard_normal((4, 2)), rng.standard_normal((5, 2))
    labels = ff.io.label(np.ones((4, 5)), ROWS, range(10, 15))
    return Factorization(
        U,
        V,
        1.0,
        rng.standard_normal(4),
        rng.standard_normal(5),
        row_labels=labels.row_labels,
        col_labels=labels.col_labels,
    )


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(writing, "_ROWS", 3)
    monkeypatch.setattr(writing, "_PAIRS", 3)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.usefixtures("small_parts")
def test_recommendations(tmp_path, model, name):
    seen = sp.csr_array(np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]]))
    assert write_recommendations(tmp_path / name, model, n=2, exclude=seen) == 1 + 2 + 0 + 2
    table = read_table(tmp_path / name)
    cols, scores = model.recommend(range(4), 2, seen)
    kept = cols >= 0
    assert table["row"].to_pylist() == ["ann", "b,b", "b,b", "dan", "dan"]
    assert table["col"].to_pylist() == [model.col_ids[c] for c in cols[kept]]
    assert table["place"].to_pylist() == [1, 1, 2, 1, 2]
    np.testing.assert_allclose(table["score"].to_numpy(), scores[kept], rtol=1e-12)


def test_recommendations_by_position(tmp_path, model):
    plain = Factorization(model.U, model.V, 1.0, model.row_bias, model.col_bias)
    write_recommendations(tmp_path / "a.parquet", plain, [3, 1], 1)
    assert pq.read_table(tmp_path / "a.parquet")["row"].to_pylist() == [3, 1]
    write_recommendations(tmp_path / "a.parquet", plain, [], 1)
    table = pq.read_table(tmp_path / "a.parquet")
    assert (table.num_rows, table.column_names) == (0, ["row", "col", "place", "score"])


def test_what_was_read_is_excluded(tmp_path, model):
    seen = pa.table({"r": ["ann", "new"], "c": [14, 99]})
    X = ff.io.from_frame(seen, like=model)
    write_recommendations(tmp_path / "a.csv", model, [0], 5, X)
    assert sorted(read_table(tmp_path / "a.csv")["col"].to_pylist()) == [10, 11, 12, 13]


@pytest.mark.parametrize("side", ["rows", "cols"])
@pytest.mark.usefixtures("small_parts")
def test_neighbours(tmp_path, model, side):
    find, ids, name = {
        "rows": (model.similar_rows, ROWS, "row"),
        "cols": (model.similar_cols, [*range(10, 15)], "col"),
    }[side]
    write_neighbours(tmp_path / "a.parquet", model, None, 2, side)
    table = pq.read_table(tmp_path / "a.parquet")
    found, cosines = find(range(len(ids)), 2)
    assert table[name].to_pylist() == np.repeat(ids, 2).tolist()
    assert table["neighbour"].to_pylist() == [ids[i] for i in found.ravel()]
    np.testing.assert_allclose(table["cosine"].to_numpy(), cosines.ravel())


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.usefixtures("small_parts")
def test_predictions(tmp_path, model, name):
    pairs = pa.table({"r": ["dan", "new", "ann", "b,b"], "c": [10, 11, 99, 14]})
    X = ff.io.from_frame(pairs, like=model)
    assert write_predictions(tmp_path / name, model, X) == 2
    table = read_table(tmp_path / name)
    assert table["row"].to_pylist() == pairs["r"].to_pylist()
    assert table["col"].to_pylist() == pairs["c"].to_pylist()
    predictions = table["prediction"].to_pylist()
    assert predictions[1:3] == [None, None]
    np.testing.assert_allclose([predictions[0], predictions[3]], model.predict([3, 1], [0, 4]))
    assert write_predictions(tmp_path / name, model, ([0, 1], 2)) == 0
    with pytest.raises(IndexError, match="rows holds 4"):
        write_predictions(tmp_path / name, model, ([4], [2]))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.usefixtures("small_parts")
def test_factors(tmp_path, model, name):
    write_factors(tmp_path / name, model, "cols")
    table = read_table(tmp_path / name)
    assert table["id"].to_pylist() == list(range(10, 15))
    np.testing.assert_allclose(table["bias"].to_numpy(), model.col_bias)
    if "factors" in table.column_names:
        factors = np.array(table["factors"].to_pylist())
        assert pa.types.is_fixed_size_list(table["factors"].type)
    else:
        factors = np.column_stack([table["f0"], table["f1"]])
    np.testing.assert_allclose(factors, model.V)


def test_factors_alone(tmp_path, model):
    write_factors(tmp_path / "U.npy", model)
    assert (np.load(tmp_path / "U.npy", allow_pickle=False) == model.U).all()
    complex_model = Factorization(model.U + 1j, model.V + 0j, 0j, model.row_bias + 0j, model.col_bias + 0j)
    write_factors(tmp_path / "U.npy", complex_model)
    assert (np.load(tmp_path / "U.npy") == complex_model.U).all()
    with pytest.raises(TypeError, match="no place for factors of dtype complex128"):
        write_factors(tmp_path / "U.csv", complex_model)
    with pytest.raises(TypeError, match="no place for predictions of dtype complex128"):
        write_predictions(tmp_path / "P.csv", complex_model, ([0], [0]))


def test_what_cannot_be_written_is_named(tmp_path, model):
    with pytest.raises(ValueError, match=r"rows \(2,\) and cols \(3,\) do not broadcast"):
        write_predictions(tmp_path / "p.csv", model, ([0, 1], [0, 1, 2]))
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*nowhere'$"):
        write_predictions(tmp_path / "nowhere" / "p.csv", model, ([0], [0]))


def test_what_fails_leaves_what_was_there(tmp_path, model):
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(IndexError, match="rows holds 9"):
        write_recommendations(path, model, [0, 9])
    with pytest.raises(ValueError, match=r"path must end in \.parquet"):
        write_recommendations(tmp_path / "a.xls", model)
    with pytest.raises(ValueError, match=r"side must be 'rows' or 'cols', got 'left'"):
        write_factors(path, model, "left")
    assert os.listdir(tmp_path) == ["a.csv"]
    assert path.read_text() == "mine"
    write_factors(path, model)
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
