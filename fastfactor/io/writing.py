"""Recommendations, neighbours, predictions and factors to tables; factors to .npy. Files appear as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfactor.folders import replacing
from fastfactor.ids import Ids
from fastfactor.io.arrow import load_pyarrow, to_arrow
from fastfactor.io.reading import TABLES, Path_, find_format
from fastfactor.matrix.labelled import Labelled, mark_stored

SIDES = ("rows", "cols")
_ROWS = 1 << 16  # of a model, handled at a time
_PAIRS = 1 << 20


def write_recommendations(
    path: Path_,
    model: Any,
    rows: ArrayLike | None = None,
    n: int = 10,
    exclude: Any = None,
    *,
    n_threads: int | None = None,
) -> int:
    """Write the n best columns of each row to a table with the columns row, col, place (from 1) and score.

    Rows are handled in parts, so that memory does not grow with their number. Rows and columns are written as ids where
    the model has some, else as positions.

    Parameters
    ----------
    path : path
        `.parquet`, `.arrow`, `.csv` or `.tsv`. A file that is there is replaced when all is written.
    model : Factorization
    rows : integers, optional
        Positions of the rows to recommend to; all by default.
    n : int
        How many columns. A row that has fewer left gets fewer lines.
    exclude : Labelled, or scipy.sparse matrix of the model's shape, optional
        What is stored there is not recommended.
    n_threads : int, optional
        At most this many; the result does not depend on it.

    Returns
    -------
    int
        Lines written.

    Raises
    ------
    TypeError, ValueError, IndexError
        As for `Factorization.recommend`, or if the format is not known.
    OSError
        If the file cannot be written; what was there before is then still there.
    """
    chosen = np.arange(model.shape[0]) if rows is None else np.ravel(rows)
    seen = exclude_from(exclude, model.shape)

    def rank(part: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        return model.recommend(part, n, seen, n_threads=n_threads)

    return _write_ranked(path, rank, chosen, (model.row_labels, model.col_labels), ("row", "col", "score"))


def write_neighbours(
    path: Path_,
    model: Any,
    places: ArrayLike | None = None,
    n: int = 10,
    side: str = "rows",
    n_threads: int | None = None,
) -> int:
    """Write the n most similar rows (or columns) of each to a table: row (or col), neighbour, place (from 1), cosine.

    Parameters
    ----------
    path : path
        `.parquet`, `.arrow`, `.csv` or `.tsv`. A file that is there is replaced when all is written.
    model : Factorization
    places : integers, optional
        Positions of the rows (columns) to find neighbours of; all by default.
    n : int
        How many neighbours.
    side : {"rows", "cols"}
    n_threads : int, optional
        At most this many; the result does not depend on it.

    Returns
    -------
    int
        Lines written.

    Raises
    ------
    TypeError, ValueError, IndexError
        As for `Factorization.similar_rows`, or if the format is not known.
    OSError
        If the file cannot be written; what was there before is then still there.
    """
    axis = SIDES.index(_check_side(side))
    chosen = np.arange(model.shape[axis]) if places is None else np.ravel(places)
    find = (model.similar_rows, model.similar_cols)[axis]
    labels = (model.row_labels, model.col_labels)[axis]

    def rank(part: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        return find(part, n, n_threads=n_threads)

    return _write_ranked(path, rank, chosen, (labels, labels), (("row", "col")[axis], "neighbour", "cosine"))


def _write_ranked(path: Path_, rank: Any, chosen: Any, labels: Any, names: tuple[str, str, str]) -> int:
    pa = load_pyarrow()
    own, found, value = names
    spell_own, spell_found = (_speller(each) for each in labels)
    with _table(path) as write:
        for start in range(0, max(len(chosen), 1), _ROWS):
            part = chosen[start : start + _ROWS]
            cols, scores = rank(part)
            is_there = cols >= 0
            places = np.broadcast_to(np.arange(1, cols.shape[1] + 1, dtype=np.int32), cols.shape)
            columns = {
                own: spell_own(np.repeat(part, is_there.sum(axis=1))),
                found: spell_found(cols[is_there]),
                "place": pa.array(places[is_there]),
                value: pa.array(scores[is_there]),
            }
            write(pa.table(columns))
    return write.n_lines


def write_predictions(path: Path_, model: Any, pairs: Labelled | tuple[ArrayLike, ArrayLike]) -> int:
    """Write the model's value for each pair to a table with the columns row, col and prediction.

    Parameters
    ----------
    path : path
        `.parquet`, `.arrow`, `.csv` or `.tsv`. A file that is there is replaced when all is written.
    model : Factorization
    pairs : Labelled or (rows, cols)
        What `read(..., like=model)` returned, or positions. A pair with an id that the model does not have gets null.

    Returns
    -------
    int
        Pairs without a prediction.

    Raises
    ------
    TypeError, ValueError, IndexError
        As for `Factorization.predict`, or if the format is not known, or the model complex.
    OSError
        If the file cannot be written; what was there before is then still there.
    """
    pa = load_pyarrow()
    _refuse_complex(model, "predictions")
    labels: tuple[Ids | None, Ids | None] = (model.row_labels, model.col_labels)
    if isinstance(pairs, Labelled):
        rows, cols, _ = pairs.triplets
        labels = pairs.row_labels, pairs.col_labels
        known = (rows < model.shape[0]) & (cols < model.shape[1])
    else:
        rows, cols, _ = model._broadcast(*pairs)
        known = np.ones(len(rows), np.bool_)
    spell_row, spell_col = (_speller(each) for each in labels)
    with _table(path) as write:
        for start in range(0, max(len(rows), 1), _PAIRS):
            part = slice(start, start + _PAIRS)
            r, c, can = rows[part], cols[part], known[part]
            values = np.zeros(len(r), model.U.dtype)
            values[can] = model.predict(r[can], c[can])
            prediction = pa.array(values, mask=~can)
            write(pa.table({"row": spell_row(r), "col": spell_col(c), "prediction": prediction}))
    return int((~known).sum())


def write_factors(path: Path_, model: Any, side: str = "rows") -> None:
    """Write the factors of the rows or of the columns, for a vector index or another program.

    Parameters
    ----------
    path : path
        `.npy`: the matrix U (or V) alone. `.parquet`, `.arrow`: columns id, bias and factors, a list of rank numbers.
        `.csv`, `.tsv`: columns id, bias, f0, f1, ... A file that is there is replaced when all is written.
    model : Factorization
        Without ids, positions stand for them.
    side : {"rows", "cols"}

    Raises
    ------
    TypeError, ValueError
        If the format is not known, or is a table and the model complex.
    OSError
        If the file cannot be written; what was there before is then still there.
    """
    axis = SIDES.index(_check_side(side))
    M, bias = ((model.U, model.row_bias), (model.V, model.col_bias))[axis]
    if find_format(Path(path)) == "npy":
        with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
            np.save(file, M, allow_pickle=False)
        return
    _refuse_complex(model, "factors", "; write them to .npy")
    pa = load_pyarrow()
    spell = _speller((model.row_labels, model.col_labels)[axis])
    is_text = find_format(Path(path)) in ("csv", "tsv")
    with _table(path) as write:
        for start in range(0, len(M), _ROWS):
            part = np.arange(start, min(start + _ROWS, len(M)))
            block = np.ascontiguousarray(M[part])
            if is_text:
                factors = {f"f{q}": pa.array(block[:, q]) for q in range(block.shape[1])}
            else:
                factors = {"factors": pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])}
            write(pa.table({"id": spell(part), "bias": pa.array(bias[part]), **factors}))


def write_svd(folder: Path_, result: Any, X: Labelled) -> None:
    """Write U.npy, s.npy and Vt.npy, and the ids of X, if it has some, to row_ids.parquet and col_ids.parquet.

    Parameters
    ----------
    folder : path
        Made if it does not exist. Files of these names are replaced, each when it is written.
    result : SVDResult
    X : Labelled
        What was decomposed.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    for name in ("U", "s", "Vt"):
        with replacing(where / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, getattr(result, name), allow_pickle=False)
    for name, ids in (("row_ids", X.row_labels), ("col_ids", X.col_labels)):
        if ids is not None:
            with _table(where / f"{name}.parquet") as write:
                write(load_pyarrow().table({"id": to_arrow(ids)}))


def exclude_from(exclude: Any, shape: tuple[int, int]) -> Any:
    """Return what `Factorization.recommend` takes as `exclude`.

    Parameters
    ----------
    exclude : Labelled, or anything else
        What was read loses the rows and columns that the model does not have; anything else is returned as it is.
    shape : (int, int)
        Of the model.

    Returns
    -------
    csr_array of bool, of that shape
    """
    return mark_stored(exclude, shape) if isinstance(exclude, Labelled) else exclude


def _refuse_complex(model: Any, what: str, advice: str = "") -> None:
    if model.U.dtype.kind == "c":
        raise TypeError(f"a table has no place for {what} of dtype {model.U.dtype}{advice}")


def _check_side(side: Any) -> str:
    if side not in SIDES:
        raise ValueError(f"side must be 'rows' or 'cols', got {side!r}")
    return str(side)


def _speller(labels: Ids | None) -> Any:
    """Return a function from positions to an Arrow array of ids, or of the positions where there are none."""
    pa = load_pyarrow()
    if labels is None:
        return lambda positions: pa.array(positions.astype(np.int64))
    ids = to_arrow(labels)
    return lambda positions: ids.take(pa.array(positions.astype(np.int64)))


class _TableWriter:
    """Writes tables of one schema, which the first one sets, one after the other to a file."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind, self.n_lines = name, kind, 0
        self._file: Any = None

    def __call__(self, table: Any) -> None:
        if self._file is None:
            self._file = self._open(table.schema)
        self._file.write_table(table)
        self.n_lines += table.num_rows

    def _open(self, schema: Any) -> Any:
        pa = load_pyarrow()
        if self.kind == "parquet":
            import pyarrow.parquet

            return pyarrow.parquet.ParquetWriter(self.name, schema)
        if self.kind == "arrow":
            return pa.ipc.new_file(self.name, schema)
        import pyarrow.csv

        options = pyarrow.csv.WriteOptions(delimiter="\t" if self.kind == "tsv" else ",", quoting_style="needed")
        return pyarrow.csv.CSVWriter(self.name, schema, write_options=options)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@contextlib.contextmanager
def _table(path: Path_) -> Iterator[_TableWriter]:
    where = Path(path)
    kind = find_format(where)
    if kind not in TABLES:
        raise ValueError(f"path must end in .parquet, .arrow, .csv or .tsv, got {path}")
    with replacing(where) as name:
        writer = _TableWriter(name, kind)
        try:
            yield writer
        finally:
            writer.close()
