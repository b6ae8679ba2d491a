"""Files in: every format gives the same matrix, and what is wrong with a file is said with its name and the line."""

import gzip
import uuid
import warnings

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import fastfactor as ff
from fastfactor.io import read
from fastfactor.io.collecting import Side

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LINES = [("ann", "x", 3.0), ("bob", "y", 4.5), ("ann", "y", 1.0), ("cid", "x", -2.0)]
TABLE = pa.table(dict(zip(("user", "item", "stars"), map(list, zip(*LINES, strict=True)), strict=True)))


def entries_of(X):
    """Return what a Labelled says in terms of ids, as a dictionary; every entry once."""
    rows, cols, values = X.triplets
    assert rows.max() < X.shape[0]
    assert cols.max() < X.shape[1]
    names = X.row_ids[rows].tolist(), X.col_ids[cols].tolist()
    entries = dict(zip(zip(*names, strict=True), values.tolist(), strict=True))
    assert len(entries) == X.n_entries
    return entries


WANTED = {(row, col): value for row, col, value in LINES}


def write_csv(path, lines=LINES, mark=",", header=True):
    text = (["user,item,stars".replace(",", mark)] if header else []) + [mark.join(map(str, line)) for line in lines]
    data = ("\n".join(text) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_arrow(path, stream=False):
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)
    return path


WRITERS = {
    "a.csv": write_csv,
    "a.csv.gz": write_csv,
    "a.tsv": lambda path: write_csv(path, mark="\t"),
    "plain.csv": lambda path: write_csv(path, header=False),
    "a.parquet": lambda path: pq.write_table(TABLE, path, row_group_size=2) or path,
    "plain.parquet": lambda path: pq.write_table(TABLE, path, use_dictionary=False) or path,
    "coded.parquet": lambda path: (
        pq.write_table(TABLE.set_column(0, "user", TABLE["user"].dictionary_encode()), path) or path
    ),
    "a.arrow": write_arrow,
    "stream.arrow": lambda path: write_arrow(path, stream=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_table_gives_the_same_matrix(tmp_path, name):
    X = read(WRITERS[name](tmp_path / name))
    assert X.shape == (3, 2)
    assert entries_of(X) == WANTED
    assert X.n_skipped == 0
    assert [part.dtype for part in X.matrix] == [np.int32, np.int32, np.float64]
    assert repr(X) == "Labelled(3 x 2, 4 entries)"
    assert X.to_csr().nnz == 4


def test_frames(tmp_path):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = pandas.DataFrame(LINES, columns=["user", "item", "stars"])
    coded = frame.astype({"user": "category"})
    for given_frame in (
        frame,
        coded,
        polars.DataFrame(frame.to_dict("list")),
        polars.LazyFrame(frame.to_dict("list")),
        TABLE,
    ):
        assert entries_of(ff.io.from_frame(given_frame)) == WANTED
    some = ff.io.from_frame(coded[coded["user"] != "bob"])
    assert sorted(some.row_ids.tolist()) == ["ann", "cid"]  # "bob" is still a category
    with pytest.raises(TypeError, match="frame must be a data frame, got int"):
        ff.io.from_frame(3)


def test_columns_by_name_and_place(tmp_path):
    wide = TABLE.append_column("when", [["mon", "tue", "wed", "thu"]])
    pq.write_table(wide.select(["when", "stars", "item", "user"]), tmp_path / "a.parquet")
    for columns in (("user", "item", "stars"), (3, 2, 1)):
        assert entries_of(read(tmp_path / "a.parquet", columns=columns)) == WANTED
    ones = read(tmp_path / "a.parquet", columns=("user", "item"))
    assert entries_of(ones) == dict.fromkeys(WANTED, 1.0)
    write_csv(tmp_path / "a.csv", [("mon", *line) for line in LINES], header=False)
    assert entries_of(read(tmp_path / "a.csv", columns=(1, 2, 3))) == WANTED


def test_several_files_and_folders(tmp_path):
    for i in range(2):
        pq.write_table(TABLE.slice(2 * i, 2), tmp_path / f"part-{i}.parquet")
    whole = read(tmp_path)
    assert entries_of(whole) == WANTED
    assert entries_of(read([tmp_path / "part-1.parquet", tmp_path / "part-0.parquet"])) == WANTED
    write_csv(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="several formats: csv, parquet"):
        read([tmp_path / "a.csv", tmp_path / "part-0.parquet"])


IDS = {
    "int32": (pa.array([7, 8, 7, 9], pa.int32()), [7, 8, 9]),
    "uint64": (pa.array([1 << 63, 8, 1 << 63, 9], pa.uint64()), [1 << 63, 8, 9]),
    "bytes": (pa.array([b"a", b"\xff", b"a", b"c"]), [b"a", b"\xff", b"c"]),
    "large": (pa.array(["a", "b", "a", "c"], pa.large_string()), ["a", "b", "c"]),
    "dates": (pa.array([0, 1, 0, 2], pa.date32()), ["1970-01-01", "1970-01-02", "1970-01-03"]),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_type(tmp_path, kind):
    column, wanted = IDS[kind]
    pq.write_table(TABLE.set_column(0, "user", column), tmp_path / "a.parquet")
    X = read(tmp_path / "a.parquet")
    assert X.row_ids.tolist() == wanted
    assert X.triplets[0].tolist() == [0, 1, 0, 2]


def test_uuids_are_spelled_as_usual(tmp_path):
    ids = [uuid.UUID(int=i) for i in range(3)]
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([ids[i].bytes for i in (0, 1, 0, 2)], pa.binary(16)))
    X = ff.io.from_frame(TABLE.set_column(0, "user", column))
    assert X.row_ids.tolist() == list(map(str, ids))


def test_ids_that_are_none(tmp_path):
    for column, words in (
        (pa.array([1.0, 2.0, 3.0, 4.0]), "user holds double"),
        (pa.array([[1]] * 4), "user holds list"),
    ):
        with pytest.raises(TypeError, match=words):
            ff.io.from_frame(TABLE.set_column(0, "user", column))


def test_text_ids_are_text_unless_asked_for(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("007", "x", 1), ("7", "x", 2)])
    assert read(path).row_ids.tolist() == ["007", "7"]
    path = write_csv(tmp_path / "a.csv", [("-7", "1", 1), ("8", "1", 2)])
    assert read(path, integer_ids=True).row_ids.tolist() == [-7, 8]
    path = write_csv(tmp_path / "a.csv", [("1", "1", 1), ("1x", "1", 2)])
    with pytest.raises(ValueError, match=r"a\.csv, line 3: user: '1x' is no integer of 64 bits"):
        read(path, integer_ids=True)


def test_quotes_blank_lines_and_spaces(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfuser,item,stars\r\n"a,b",x, 3 \r\n\r\n"say ""hi""",y,4\r\n\r\n')
    assert entries_of(read(path)) == {("a,b", "x"): 3.0, ('say "hi"', "y"): 4.0}


BAD_LINES = {
    b"bob,y": "2 fields where 3 are expected",
    b"bob,y,1,2": "4 fields where 3 are expected",
    b"bob,y,good": "stars: 'good' is no finite number",
    b"bob,y,": "stars: '' is no finite number",
    b"bob,y,nan": "stars: 'nan' is no finite number",
    b"bob,y,inf": "stars: 'inf' is no finite number",
    b"bob,y,1_0": "stars: '1_0' is no finite number",
    b",y,1": "user: no id",
    b"bob,,1": "item: no id",
    b"bob,\xff\xfe,1": "item: '\ufffd\ufffd' is not UTF-8",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=str)
def test_a_bad_line_is_named_or_counted(tmp_path, line):
    path = tmp_path / "a.csv"
    path.write_bytes(b"user,item,stars\nann,x,3\n\n" + line + b"\ncid,x,4\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 4: ") as caught:
        read(path)
    assert str(caught.value) == f"{path}, line 4: {BAD_LINES[line]}"
    with pytest.warns(UserWarning, match="1 bad line was skipped; the first: .*line 4"):
        X = read(path, on_bad_line="skip")
    assert X.n_skipped == 1
    assert entries_of(X) == {("ann", "x"): 3.0, ("cid", "x"): 4.0}


def test_lines_are_counted_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("fastfactor.io.text._BLOCK", 4096)
    lines = [f"u{i},v{i % 7},{i}" if i % 5 else ("short" if i % 10 else "") for i in range(1, 4000)]
    lines[3001] = "u3002,v,bad"
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["user,item,stars", *lines]))
    with pytest.warns(UserWarning, match="bad lines were skipped") as caught:
        X = read(path, on_bad_line="skip")
    assert "line 6: 1 fields where 3" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert X.n_skipped == sum(line == "short" for line in lines) + 1
    assert X.n_entries == sum(line.startswith("u") for line in lines) - 1
    path.write_text("\n".join(["user,item,stars", *(line for line in lines if line != "short")]))
    number = path.read_text().split("\n").index("u3002,v,bad") + 1
    with pytest.raises(ValueError, match=f"line {number}: stars: 'bad'"):
        read(path)


def test_bad_rows_of_a_table(tmp_path):
    bad = pa.table({"u": ["a", None, "c", "d"], "v": ["x", "x", "y", "y"], "r": [1.0, 2.0, None, np.inf]})
    path = tmp_path / "a.parquet"
    pq.write_table(bad, path, row_group_size=3)
    with pytest.raises(ValueError, match=r"a\.parquet, row 2: no id in u"):
        read(path)
    with pytest.warns(UserWarning, match="3 bad lines were skipped"):
        X = read(path, on_bad_line="skip")
    assert (X.n_skipped, X.row_ids.tolist(), X.col_ids.tolist()) == (3, ["a"], ["x"])
    pq.write_table(bad.slice(3), path)
    with pytest.raises(ValueError, match="row 1: a value that is no finite number"):
        read(path)
    with pytest.warns(UserWarning, match="1 bad line"), pytest.raises(ValueError, match="holds no entry"):
        read(path, on_bad_line="skip")


def test_values_keep_their_precision(tmp_path):
    for kind, wanted in ((pa.float32(), "float32"), (pa.int8(), "int8"), (pa.decimal128(21, 1), "float64")):
        column = pa.array([3, 4, 1, -2]).cast(kind)
        assert ff.io.from_frame(TABLE.set_column(2, "stars", column)).matrix[2].dtype == wanted
    assert ff.io.from_frame(TABLE, dtype="float32").matrix[2].dtype == np.float32
    with pytest.raises(TypeError, match="item holds string: values must be numbers"):
        ff.io.from_frame(TABLE, columns=("user", "stars", "item"))


def test_matrix_files(tmp_path):
    A = np.array([[1.0, np.nan, 3.0], [0.0, 5.0, 6.0]])
    S = sp.coo_array(([1.0, 2.0], ([0, 1], [2, 0])), shape=(2, 3))
    np.save(tmp_path / "a.npy", A)
    sp.save_npz(tmp_path / "a.npz", S)
    scipy.io.mmwrite(tmp_path / "a.mtx", S)
    dense = read(tmp_path / "a.npy")
    assert dense.shape == (2, 3)
    assert dense.n_entries == 5
    assert dense.row_ids is None
    assert dense.to_csr().nnz == 5
    for name in ("a.npz", "a.mtx"):
        assert (read(tmp_path / name).to_csr() != S.tocsr()).nnz == 0
        assert read(tmp_path / name, dtype="float32").matrix.dtype == np.float32
    with pytest.raises(ValueError, match="columns has no meaning for a file of format npz"):
        read(tmp_path / "a.npz", columns=(0, 1))
    with pytest.raises(ValueError, match="unknown has no meaning for a file of format npz, got 'skip'"):
        read(tmp_path / "a.npz", unknown="skip")
    sp.save_npz(tmp_path / "a.npz", S * 1j)
    with pytest.raises(ValueError, match=r"dtype is float32, but .*a\.npz holds complex numbers"):
        read(tmp_path / "a.npz", dtype="float32")


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.mtx", "a.parquet", "a.arrow"])
def test_damaged_files_are_named(tmp_path, name):
    for content in (b"", b"PK\x03\x04 nothing", bytes(range(256)) * 4):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            read(tmp_path / name)


def test_damage_inside_is_named(tmp_path):
    path = WRITERS["plain.parquet"](tmp_path / "a.parquet")
    data = bytearray(path.read_bytes())
    data[40:90] = bytes(50)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.parquet"):
        read(path)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"user,item,stars\n" * 99)[:40])
    with pytest.raises(ValueError, match=r"a\.csv\.gz is damaged"):
        read(tmp_path / "a.csv.gz")


def test_offsets_and_codes_of_arrow_files_are_not_trusted(tmp_path):
    offsets = pa.py_buffer(np.array([0, 3, 1 << 30, 9, 12], np.int32))
    wild = pa.Array.from_buffers(pa.string(), 4, [None, offsets, pa.py_buffer(b"annbobanncid")])
    codes = pa.DictionaryArray.from_arrays(np.array([0, 1, 0, 9], np.int32), ["ann", "bob"], safe=False)
    for column in (wild, codes):
        table = TABLE.set_column(0, "user", column)
        with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(ValueError, match=r"a\.arrow is damaged"):
            read(tmp_path / "a.arrow")


def test_values_beyond_the_precision_are_bad(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("ann", "x", 1.0), ("bob", "x", 1e300)])
    with pytest.raises(ValueError, match="line 3: a value that is no finite number"):
        read(path, dtype="float32")
    first, second = TABLE.set_column(2, "stars", pa.array([1, 2, 3, 4], pa.int8())), TABLE.slice(1, 1)
    for i, table in enumerate((first, second)):
        pq.write_table(table, tmp_path / f"{i}.parquet")
    values = read([tmp_path / "0.parquet", tmp_path / "1.parquet"]).triplets[2]
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0, 4.5]


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, None]], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy is damaged or no npy file"):
        read(tmp_path / "a.npy")


BAD_CALLS = [
    ({"path": "none.csv"}, FileNotFoundError, "none.csv"),
    ({"path": []}, ValueError, "path is an empty sequence"),
    ({"path": "a.txt"}, ValueError, "path ends in no suffix that is known: .*a.txt"),
    ({"path": "empty"}, ValueError, "folder without Parquet files"),
    ({"format": "xls"}, ValueError, "format must be one of .*'xls'"),
    ({"on_bad_line": "ignore"}, ValueError, "on_bad_line must be one of .*'ignore'"),
    ({"unknown": "drop"}, ValueError, "unknown must be one of .*'drop'"),
    ({"columns": "user"}, ValueError, "columns must be two or three .*'user'"),
    ({"columns": (0,)}, ValueError, r"columns must be two or three .*\(0,\)"),
    ({"columns": (0, 0)}, ValueError, r"columns must differ, got \(0, 0\)"),
    ({"columns": (0, 1, 9)}, ValueError, "columns holds 9, but .*a.csv has 3 columns"),
    (
        {"columns": ("user", "film")},
        ValueError,
        "columns holds 'film', which is not among those of .*user, item, stars",
    ),
    ({"columns": (0, 1)}, ValueError, "pass header=True or False"),
    ({"delimiter": "::"}, ValueError, "delimiter must be one ASCII character, got '::'"),
    ({"like": 3}, ValueError, "like must have ids .*got 3"),
    ({"dtype": "int32"}, ValueError, "dtype must be float32 or float64, got 'int32'"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_CALLS, ids=str)
def test_bad_calls_are_refused(tmp_path, arguments, error, words):
    write_csv(tmp_path / "a.csv")
    write_csv(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    path, options = arguments.get("path", "a.csv"), {name: arguments[name] for name in arguments if name != "path"}
    with pytest.raises(error, match=words):
        read(tmp_path / path if isinstance(path, str) else path, **options)


def test_known_ids_keep_their_places(tmp_path):
    X = read(WRITERS["a.parquet"](tmp_path / "a.parquet"))
    more = pa.table({"u": ["dan", "bob", "ann"], "i": ["y", "z", "x"], "r": [1.0, 2.0, 3.0]})
    added = ff.io.from_frame(more, like=X)
    assert added.row_ids.tolist() == [*X.row_ids.tolist(), "dan"]
    assert added.triplets[0].tolist() == [3, *X.row_labels.find(["bob", "ann"], "")]
    known = ff.io.from_frame(more, like=X, unknown="skip")
    assert known.shape == X.shape
    assert known.n_unknown == 2
    assert entries_of(known) == {("ann", "x"): 3.0}
    with pytest.raises(ValueError, match="u holds 'dan', which is not in the model"):
        ff.io.from_frame(more, like=X, unknown="error")
    with pytest.raises(ValueError, match="no entry has ids that are in the model"):
        ff.io.from_frame(more.slice(0, 1), like=X, unknown="skip")
    with pytest.raises(TypeError, match=r"ids of type int64, those before it .* are large_string"):
        ff.io.from_frame(more.set_column(0, "u", pa.array([1, 2, 3])), like=X)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvw")), min_size=1), min_size=1))
def test_merging_dictionaries_keeps_every_id(batches):
    """Whatever the batches are and whenever their dictionaries are merged."""
    table = pa.concat_tables(pa.table({"r": [r for r, _ in batch], "c": [c for _, c in batch]}) for batch in batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastfactor.io.collecting._MIN_PENDING", 3)
        X = ff.io.from_frame(table)
    rows, cols, _ = X.triplets
    assert X.row_ids[rows].tolist() == table["r"].to_pylist()
    assert X.col_ids[cols].tolist() == table["c"].to_pylist()
    assert len(set(X.row_ids.tolist())) == X.shape[0]


def test_merges_are_few(monkeypatch):
    """All of them together cost no more than a few times the last."""
    monkeypatch.setattr("fastfactor.io.collecting._MIN_PENDING", 8)
    merged = []
    original = Side.merge

    def merge(self):
        if self.pending:
            merged.append(self.n_pending + len(self.known))
        original(self)

    monkeypatch.setattr(Side, "merge", merge)
    chunks = [pa.table({"r": [f"{i}-{j}" for j in range(10)], "c": ["x"] * 10}) for i in range(200)]
    X = ff.io.from_frame(pa.concat_tables(chunks))
    assert X.shape == (2000, 1)
    assert 3 < len(merged) < 60
    assert sum(merged) < 8 * 2 * 2000


def test_what_was_read_fits_like_what_is_in_memory(tmp_path, ratings):
    coo = ratings.tocoo()
    names = [np.array([f"{name}{i}" for i in range(n)]) for name, n in zip("uv", ratings.shape, strict=True)]
    pq.write_table(pa.table({"u": names[0][coo.row], "v": names[1][coo.col], "r": coo.data}), tmp_path / "a.parquet")
    order = pa.table({"u": names[0][:], "v": [*names[1], *names[1][:20]]})
    like = ff.io.from_frame(order)  # ids in the order of the matrix
    X = read(tmp_path / "a.parquet", like=like)
    options = {"regularization": 0.05, "max_epochs": 2, "validation": False}
    assert (ff.fit(X, 3, **options).U == ff.fit(ratings, 3, **options).U).all()
    with pytest.raises(ValueError, match=r"shape is \(3, 3\)"):
        ff.fit(X, 3, shape=(3, 3), **options)
    train, test = ff.model_selection.random_split(X, 0.2)
    assert train.shape == test.shape == X.shape
    zeros = ff.fit(X, 2, unobserved="zero", max_epochs=2)
    assert zeros.row_ids.tolist() == names[0].tolist()
    assert zeros.partial_fit(X, max_epochs=1).row_ids.tolist() == names[0].tolist()


def test_the_package_imports_without_pyarrow(python, tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    code = """
import sys
sys.modules["pyarrow"] = None
import fastfactor as ff
print(ff.io.read(sys.argv[1]).shape)
try:
    ff.io.read(sys.argv[2])
except ImportError as error:
    print(error)
"""
    (tmp_path / "a.csv").write_text("a,b,1\n")
    out = python(code, tmp_path / "a.npy", tmp_path / "a.csv")
    assert out.split("\n")[:2] == ["(3, 3)", "tables need pyarrow: pip install 'fastfactor[io]'"]


def test_nothing_warns_when_nothing_is_wrong(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(write_csv(tmp_path / "a.csv"), on_bad_line="skip")
