"""`read`, `from_frame` and `label`: which format, and checked arguments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastfactor.ids import Ids
from fastfactor.io.collecting import UNKNOWN, Faults
from fastfactor.io.matrices import read_matrix
from fastfactor.io.tables import ArrowSource, FrameSource, ParquetSource, collect
from fastfactor.io.text import TextSource
from fastfactor.matrix.labelled import Labelled
from fastfactor.matrix.structure import as_array

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".npz": "npz",
    ".npy": "npy",
    ".mtx": "mtx",
}
KINDS = tuple(dict.fromkeys(FORMATS.values()))
_PACKED = (".gz", ".bz2", ".zst", ".lz4")
TABLES = ("parquet", "arrow", "csv", "tsv")
MATRICES = ("npz", "npy", "mtx")
Path_ = str | os.PathLike[str]


def read(
    path: Path_ | Sequence[Path_],
    *,
    format: str | None = None,
    columns: Sequence[str | int] | None = None,
    like: Any = None,
    unknown: str = "add",
    on_bad_line: str = "error",
    delimiter: str | None = None,
    header: bool | None = None,
    integer_ids: bool = False,
    dtype: Any = None,
) -> Labelled:
    r"""Read a matrix, and the ids of its rows and columns, for `fastfactor.fit`.

    Tables (CSV, Parquet, Arrow) have a line per entry: an id of its row, one of its column, and a value. Ids are mapped
    to positions as they arrive, file dictionaries in their own order; ids without an entry get none. Tables are read
    batch by batch into the triplets: beside these no second copy is in memory. Matrix files (.npz of scipy, .npy,
    Matrix Market) have positions and no ids.

    Parameters
    ----------
    path : path, or sequence of paths of one format
        A folder stands for the Parquet files in it, in the order of their names.
    format : {"csv", "tsv", "parquet", "arrow", "npz", "npy", "mtx"}, optional
        By default what the file's name ends in, `.gz`, `.bz2`, `.zst` and `.lz4` of text not counted.
    columns : two or three names or positions, optional
        Row ids, column ids and values of a table; by default its first three columns. Without values every entry is 1.
    like : Factorization or Labelled, optional
        Something with ids, whose positions are kept; new ids come after them.
    unknown : {"add", "error", "skip"}
        What to do with ids that `like` does not have; "skip" counts in `n_unknown`.
    on_bad_line : {"error", "skip"}
        Lines of a table that have too few or too many fields, no id, or no finite value. "skip" counts them in
        `n_skipped` and warns. Rows of Parquet, Arrow and frames are numbered from 1.
    delimiter : str, optional
        Of text: one character; "," or a tab by default.
    header : bool, optional
        Whether the first line of a text holds names. By default it does if `columns` has names, or if its value
        is no number.
    integer_ids : bool
        Ids in text are integers; else they stay text, "007" and "7" apart. Other formats say themselves what ids are.
    dtype : {float32, float64}, optional
        To store values in; by default as the file has them, float64 for text. Complex ones stay as they are.

    Returns
    -------
    Labelled

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, a line is bad (with the file and the line), or the file is damaged.
    ImportError
        If the file is a table and pyarrow is not installed (extra `io`).

    Examples
    --------
    >>> import tempfile, pathlib, fastfactor as ff
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "ratings.csv")
    ...     _ = path.write_text("user,film,stars\nann,Alien,5\nbob,Brazil,4\nann,Brazil,3\n")
    ...     X = ff.io.read(path)
    >>> X, X.row_ids.tolist(), X.matrix[2].tolist()
    (Labelled(2 x 2, 3 entries), ['ann', 'bob'], [5.0, 4.0, 3.0])
    """
    plan = Reading(format, columns, like, unknown, on_bad_line, delimiter, header, integer_ids, dtype).plan(path)
    if plan.kind in MATRICES:
        found, dtype = read_matrix(plan.paths[0], plan.kind), plan.options["dtype"]
        refuse_complex(found.matrix.dtype, dtype, plan.paths[0])
        return found if dtype is None else replace(found, matrix=found.matrix.astype(dtype))
    return collect(plan.sources, plan.columns, plan.faults, **plan.options)


@dataclass(frozen=True)
class Plan:
    """What is to be read, and how: the checked arguments of `read`.

    Those of a `Collector` are in `options`, of a matrix file its `dtype` alone.
    """

    paths: list[Path]
    kind: str
    faults: Faults
    columns: Any = None
    sources: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How files are to be read: the arguments of `read`, as they were given."""

    format: Any = None
    columns: Any = None
    like: Any = None
    unknown: Any = "add"
    on_bad_line: Any = "error"
    delimiter: Any = None
    header: Any = None
    integer_ids: bool = False
    dtype: Any = None

    @property
    def chosen(self) -> list[str]:
        """The names of those that are not at their defaults."""
        own = ((each.name, getattr(self, each.name), each.default) for each in fields(self))
        return [name for name, value, usual in own if value is not usual and (usual is None or value != usual)]

    def plan(self, path: Any, *, mapped: bool = True) -> Plan:
        """Return what to do, once everything has been checked.

        Parameters
        ----------
        path : path, or sequence of paths
        mapped : bool
            For tables of Arrow and Parquet: whether their files are mapped.

        Raises
        ------
        TypeError, ValueError, ImportError
            As `read` says it.
        """
        paths = _list_paths(path)
        kind = _choose_format(paths, self.format)
        faults = _as_faults(self.on_bad_line)
        is_text = kind in ("csv", "tsv")
        if not is_text:
            self._refuse(kind, "delimiter", "header", "integer_ids")
        if kind in MATRICES:
            self._refuse(kind, "columns", "like", "unknown", "on_bad_line")
            if len(paths) > 1:
                raise ValueError(f"path holds {len(paths)} files, but {kind} files are read one at a time")
            return Plan(paths, kind, faults, options={"dtype": _check_dtype(self.dtype)})
        columns = _check_columns(self.columns)
        options = _check_collecting(self.like, self.unknown, self.dtype)
        if is_text:
            mark = _check_delimiter(self.delimiter, "\t" if kind == "tsv" else ",")
            header = None if self.header is None else _check_flag(self.header, "header")
            with_integers = _check_flag(self.integer_ids, "integer_ids")
            sources: list[Any] = [TextSource(each, mark, header, columns, with_integers, faults) for each in paths]
        else:
            source = ParquetSource if kind == "parquet" else ArrowSource
            sources = [source(each, mapped) for each in paths]
        return Plan(paths, kind, faults, columns, sources, options)

    def _refuse(self, kind: str, *names: str) -> None:
        """Raise a ValueError for one of these that was chosen."""
        for name in names:
            if name in self.chosen:
                value = getattr(self, name)
                raise ValueError(f"{name} has no meaning for a file of format {kind}, got {value!r}")


def from_frame(
    frame: Any,
    *,
    columns: Sequence[str | int] | None = None,
    like: Any = None,
    unknown: str = "add",
    on_bad_line: str = "error",
    dtype: Any = None,
) -> Labelled:
    """Make a matrix of a data frame with a line per entry: row id, column id, value.

    Parameters
    ----------
    frame : data frame
        Of pandas, polars or any library that narwhals knows; a pyarrow table. It is not changed.
    columns, like, unknown, on_bad_line, dtype
        As for `read`.

    Returns
    -------
    Labelled

    Raises
    ------
    TypeError, ValueError, ImportError
        As for `read`.
    """
    faults = _as_faults(on_bad_line)
    options = _check_collecting(like, unknown, dtype)
    return collect([FrameSource(frame)], _check_columns(columns), faults, **options)


def label(X: Any, row_ids: Iterable[Any] | None = None, col_ids: Iterable[Any] | None = None) -> Labelled:
    """Return a matrix in memory together with ids of its rows and columns, for `fastfactor.fit`.

    Parameters
    ----------
    X : array or scipy.sparse matrix
    row_ids, col_ids : sequences, optional
        One for each row (column): strings, UUIDs, integers or bytes, all distinct.

    Returns
    -------
    Labelled

    Raises
    ------
    TypeError, ValueError
        If ids are of other types, occur twice, or are too few or too many.

    Examples
    --------
    >>> import numpy as np, fastfactor as ff
    >>> X = ff.io.label(np.ones((2, 3)), row_ids=["ann", "bob"], col_ids=[7, 8, 9])
    >>> X.row_ids.tolist(), X.col_ids.tolist()
    (['ann', 'bob'], [7, 8, 9])
    """
    if not sp.issparse(X):
        X = as_array(X, "X")
    if X.ndim != 2:
        raise ValueError(f"X must be 2-D, got shape {X.shape}")
    if X.dtype.kind not in "biufc":
        raise TypeError(f"X must hold numbers, got dtype {X.dtype}")
    labels = [None if ids is None else _as_ids(ids, name) for ids, name in ((row_ids, "row_ids"), (col_ids, "col_ids"))]
    for name, ids, size in zip(("row_ids", "col_ids"), labels, X.shape, strict=True):
        if ids is not None and len(ids) != size:
            raise ValueError(f"{name} has {len(ids)} ids, X has shape {X.shape}")
    return Labelled(X, X.shape, labels[0], labels[1])


def _as_ids(ids: Any, name: str) -> Ids:
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise TypeError(f"{name} must be a sequence of ids, got {ids!r}")
    try:
        return Ids.of(ids)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _as_tuple(values: Any) -> tuple[Any, ...]:
    """Return what can be iterated as a tuple, anything else as a tuple of it."""
    try:
        return tuple(values)
    except (TypeError, NotImplementedError):  # the latter of memory views
        return (values,)


def _list_paths(path: Any) -> list[Path]:
    single = isinstance(path, str | os.PathLike)
    given = [path] if single else _as_tuple(path)
    if not all(isinstance(each, str | os.PathLike) for each in given):
        raise TypeError(f"path must be a path or a sequence of paths, got {type(path).__name__}")
    paths = [Path(each) for each in given]
    if single and paths[0].is_dir():
        paths = sorted(each for each in paths[0].iterdir() if FORMATS.get(each.suffix.lower()) == "parquet")
        if not paths:
            raise ValueError(f"path is a folder without Parquet files: {path}")
    if not paths:
        raise ValueError("path is an empty sequence: there is nothing to read")
    for each in paths:
        if not each.exists():
            raise FileNotFoundError(2, "there is no such file", str(each))
        if not each.is_file():
            raise ValueError(f"path holds {each}, which is no regular file")
    return paths


def find_format(path: Path) -> str | None:
    """Return the format that the name of a file stands for, if it is one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def _choose_format(paths: list[Path], format: Any) -> str:
    if format is not None:
        return _check_word(format, "format", KINDS)
    found = {find_format(path) for path in paths}
    if len(found) > 1:
        raise ValueError(f"path holds files of several formats: {', '.join(sorted(map(str, found)))}")
    kind = found.pop()
    if kind is None:
        raise ValueError(f"path ends in no suffix that is known: {paths[0]}; pass format=, one of {', '.join(KINDS)}")
    return kind


def _check_word(value: Any, name: str, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {value!r}")
    return str(value)


def _as_faults(on_bad_line: Any) -> Faults:
    return Faults(_check_word(on_bad_line, "on_bad_line", ("error", "skip")) == "skip")


def _check_columns(columns: Any) -> tuple[str | int, ...] | None:
    if columns is None:
        return None
    chosen = _as_tuple(columns) if not isinstance(columns, str | Set) else ()
    if len(chosen) not in (2, 3) or not all(isinstance(c, str | int) and not isinstance(c, bool) for c in chosen):
        raise ValueError(f"columns must be two or three names or positions (row id, column id, value), got {columns!r}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"columns must differ, got {columns!r}")
    return chosen


def _check_collecting(like: Any, unknown: Any, dtype: Any) -> dict[str, Any]:
    if like is not None and (getattr(like, "row_labels", None) is None or getattr(like, "col_labels", None) is None):
        raise ValueError(f"like must have ids (a model fitted to what was read from a table), got {like!r}")
    return {"like": like, "unknown": _check_word(unknown, "unknown", UNKNOWN), "dtype": _check_dtype(dtype)}


def _check_dtype(dtype: Any) -> Any:
    if dtype is None:
        return None
    with contextlib.suppress(TypeError):
        if np.dtype(dtype) in (np.float32, np.float64):
            return np.dtype(dtype)
    raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")


def refuse_complex(own: np.dtype[Any], dtype: Any, path: Path) -> None:
    """Raise a ValueError if values are complex and a `dtype` is asked for: it would drop their imaginary parts."""
    if dtype is not None and own.kind == "c":
        raise ValueError(f"dtype is {dtype}, but {path} holds complex numbers")


def _check_flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _check_delimiter(delimiter: Any, default: str) -> str:
    if delimiter is None:
        return default
    if not isinstance(delimiter, str) or len(delimiter.encode()) != 1:
        raise ValueError(f"delimiter must be one ASCII character, got {delimiter!r}")
    return delimiter
