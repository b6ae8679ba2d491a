"""Ids of rows and columns: what they may be, where they are found, and that damaged ones are no danger."""

import pickle
from uuid import UUID

import numpy as np
import pytest

import fastfactor as ff
from fastfactor.ids import Ids

TEXT = ["ann", "", "bob", "z\0", "z", "caf\u00e9", "x" * 100]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (TEXT, "text"),
        ([5, -3, 1 << 62], "integers"),
        ([1 << 63, 0], "integers"),
        ([b"a", b"a\0"], "bytes"),
        ([], "text"),
    ],
    ids=str,
)
def test_ids_come_back_as_they_were(values, kind):
    ids = Ids.of(values)
    assert (ids.kind, len(ids)) == (kind, len(values))
    assert ids.values.tolist() == values
    assert ids.find(values, "ids").tolist() == list(range(len(values)))
    assert ids.take(np.arange(len(values))[::-1]).tolist() == values[::-1]
    assert pickle.loads(pickle.dumps(ids)).values.tolist() == values


def test_arrays_and_uuids_are_ids_too():
    assert Ids.of(np.array([3, 1], np.int16)).data.dtype == np.int64
    assert Ids.of(np.array([3, 1], np.uint64)).find(np.array([1]), "ids").tolist() == [1]
    assert Ids.of(np.array(["a", "b"])).find(np.array(["b", "a"]), "ids").tolist() == [1, 0]
    one = UUID(int=1)
    assert Ids.of([one]).values.tolist() == [str(one)]
    assert Ids.of([str(one)]).find([one], "ids").tolist() == [0]


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (["a", 1], TypeError, "one type, got int and str"),
        ([1.0], TypeError, "got 1.0"),
        ([True], TypeError, "got True"),
        ([None], TypeError, "got None"),
        (["a", "b", "a"], ValueError, "'a' occurs more than once"),
        ([7, 7], ValueError, "7 occurs more than once"),
        ([1 << 64], ValueError, "64 bits"),
        ([-1, 1 << 63], ValueError, "64 bits"),
    ],
    ids=str,
)
def test_what_are_no_ids(values, error, words):
    with pytest.raises(error, match=words):
        Ids.of(values)


def test_unknown_ids_are_named():
    ids = Ids.of(["a", "b"])
    with pytest.raises(KeyError, match=r"4 of 5 row ids are not in the model: 'c', 'd', 'e', \.\.\."):
        ids.find(["c", "d", "a", "e", "f"], "row ids")
    with pytest.raises(TypeError, match=r"row ids of this model are text, got 7"):
        ids.find([7], "row ids")
    with pytest.raises(TypeError, match=r"are integers, got '7'"):
        Ids.of([7]).find(["7"], "row ids")


def test_prefixes():
    longer = Ids.of(["a", "bc", "d"])
    assert longer.begins_with(Ids.of(["a", "bc"]))
    assert longer.begins_with(longer)
    for other in (["ab", "c"], ["a", "bd"], [1], ["a", "bc", "d", "e"]):
        assert not longer.begins_with(Ids.of(other))
    assert Ids.of([1, 2]).begins_with(Ids.of([1]))
    assert not Ids.of([1, 2]).begins_with(Ids.of([2]))


BYTES = np.frombuffer(b"abcd", np.uint8)


@pytest.mark.parametrize(
    ("kind", "data", "offsets"),
    [
        ("names", BYTES, np.array([0, 4])),
        ("text", BYTES.astype(np.int64), np.array([0, 4])),
        ("text", BYTES[None], np.array([0, 4])),
        ("text", BYTES, None),
        ("text", BYTES, np.array([], np.int64)),
        ("text", BYTES, np.array([0, 4], np.int32)),
        ("text", BYTES, np.array([1, 4])),
        ("text", BYTES, np.array([0, 1 << 40])),
        ("integers", BYTES, None),
        ("integers", np.arange(3), np.array([0, 3])),
        ("integers", [1, 2], None),
    ],
)
def test_arrays_that_cannot_be_ids(kind, data, offsets):
    with pytest.raises(ValueError, match="ids"):
        Ids(kind, data, offsets)


def test_damage_inside_is_noticed_at_first_use():
    with pytest.raises(ValueError, match="offsets decrease"):
        _ = Ids("text", BYTES, np.array([0, 1 << 40, -5, 4])).values
    with pytest.raises(ValueError, match="not UTF-8"):
        _ = Ids("text", np.array([255], np.uint8), np.array([0, 1])).values
    with pytest.raises(ValueError, match="occur more than once"):
        Ids("integers", np.array([1, 1])).find([1], "ids")


@pytest.fixture(scope="module")
def model(ratings):
    rows, cols = ([f"{name}{i}" for i in range(n)] for name, n in zip("uv", ratings.shape, strict=True))
    return ff.fit(ff.io.label(ratings, rows, cols), 3, regularization=0.05, max_epochs=2, validation=False)


def test_a_model_keeps_ids(model, ratings):
    plain = ff.fit(ratings, 3, regularization=0.05, max_epochs=2, validation=False)
    assert (plain.U == model.U).all()
    assert model.row_ids.tolist() == [f"u{i}" for i in range(60)]
    assert model.rows_of(["u5", "u0"]).tolist() == [5, 0]
    assert model.cols_of(model.col_ids[[3, 1]]).tolist() == [3, 1]
    assert plain.row_ids is None
    assert plain.col_ids is None
    with pytest.raises(ValueError, match="the model has no column ids"):
        plain.cols_of(["v1"])
    with pytest.raises(KeyError, match="u60"):
        model.rows_of(["u60"])


def test_a_fit_from_a_model_wants_its_ids_first(model, ratings):
    again = {"regularization": 0.05, "max_epochs": 1, "validation": False, "init": model}
    same = ff.io.label(ratings, model.row_ids.tolist(), model.col_ids.tolist())
    assert ff.fit(same, 3, **again).row_ids.tolist() == model.row_ids.tolist()
    moved = ff.io.label(ratings, model.row_ids.tolist(), model.col_ids.tolist()[::-1])
    with pytest.raises(ValueError, match="init has other col ids than X"):
        ff.fit(moved, 3, **again)


def test_label_compares_numbers(ratings):
    with pytest.raises(ValueError, match="col_ids has 2 ids, X has shape"):
        ff.io.label(ratings, col_ids=["a", "b"])
    assert ff.io.label(ratings).row_ids is None
