"""Matrices as nobody should hand them over, each from a seed: for bad_calls.py, which hands them over.

A `Case` says what it holds and what is wrong with it: faults, which must be refused, and traits, which may be.
"""

import datetime
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

FLOATS = ("float32", "float64", "complex64", "complex128")
NUMBERS = (*FLOATS, "?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "g", "G", ">f4", ">f8", ">i4", ">c16")
NO_NUMBERS = ("U", "S", "O", "M", "m", "V")
INDEX_TYPES = ("int32", "int64", "int8", "uint8", "int16", "uint16", "uint32", "uint64", ">i4", ">i8")
FORMATS = ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")
TAME = ("normal", "counts", "binary", "constant")
KINDS = ("normal",) * 5 + TAME * 2 + ("zero", "tiny", "subnormal", "huge", "largest", "mixed")


@dataclass
class Case:
    """A matrix and what is known of it.

    Attributes
    ----------
    X : what is handed over
    truth : (m, n) float64 or complex128 array
        NaN where nothing is stored; of duplicates their sum.
    faults : set of str
        Why it must be refused.
    traits : set of str
        What some functions refuse, or need an option for.
    """

    X: Any
    truth: np.ndarray
    faults: set = field(default_factory=set)
    traits: set = field(default_factory=set)

    @property
    def is_sound(self):
        return not self.faults and not self.traits

    def __str__(self):
        X = self.X
        text = f"{type(X).__name__} {getattr(X, 'shape', '')} {getattr(X, 'dtype', '')}"
        return f"{text} faults={sorted(self.faults)} traits={sorted(self.traits)}"


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def draw_values(rng, dtype, kind, n):
    """Return n values of a dtype that are representative of what such values do, and the kind that they are."""
    if dtype.kind == "b":
        return rng.random(n) < 0.5, "binary"
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if kind in ("huge", "largest", "mixed"):
            return rng.choice(np.array([info.min, info.max, 1, info.max // 3], dtype), n), "huge"
        low = 0 if dtype.kind == "u" or kind == "counts" else -9
        return rng.integers(low, 10, n).astype(dtype), "counts" if low == 0 else "normal"
    limits = np.finfo(dtype)
    real = rng.standard_normal(n).astype(limits.dtype)
    if kind in ("counts", "binary", "constant", "zero"):
        real = {
            "counts": rng.integers(0, 6, n),
            "binary": 2 * rng.integers(0, 2, n),
            "constant": np.full(n, 3),
            "zero": np.zeros(n),
        }[kind].astype(limits.dtype)
    if kind in ("tiny", "subnormal", "huge", "largest"):
        factor = {
            "tiny": limits.tiny * limits.dtype.type(8),
            "subnormal": limits.smallest_subnormal * limits.dtype.type(5),
            "huge": limits.max / limits.dtype.type(64),
            "largest": limits.max,
        }[kind]
        with np.errstate(under="ignore"):
            real = np.clip(real, -1, 1) * factor
    if kind == "mixed":
        with np.errstate(under="ignore", over="ignore"):
            spread = limits.dtype.type(10.0) ** rng.uniform(limits.minexp / 3.4, limits.maxexp / 3.4, n)
            real = np.clip(real, -1, 1) * spread.astype(limits.dtype)
    if dtype.kind == "c":
        return (real + 1j * np.roll(real, 1)).astype(dtype), kind
    return real.astype(dtype), kind


def draw_case(rng, needs_all):
    """Return a case; `needs_all`: the function that gets it counts what is not stored as 0."""
    shape = draw_shape(rng)
    dtype = np.dtype(pick(rng, FLOATS if rng.random() < 0.6 else NUMBERS))
    if rng.random() < 0.02:
        return draw_no_numbers(rng, shape)
    share = pick(rng, (0.0, 0.2, 0.6, 0.6, 1.0, 1.0))
    kept = rng.random(shape) < share
    values, kind = draw_values(rng, dtype, pick(rng, KINDS), int(kept.sum()))
    case = pick(rng, (draw_dense, draw_sparse, draw_sparse, draw_triplets))(rng, shape, kept, values, needs_all)
    if kind not in TAME:
        case.traits.add("wild")
    if dtype.char not in "fdFD":
        case.traits.add("converted")
    if np.isnan(case.truth).all():
        case.traits.add("empty")
    if 0 in shape:
        case.faults.add("empty shape")
    return case


def draw_shape(rng):
    sizes = (0,) if rng.random() < 0.02 else (1, 2, 3, 4, 5, 6, 7, 8, 9, 17)
    if rng.random() < 0.02:
        return (int(rng.integers(100, 180)), int(rng.integers(100, 180)))
    shape = pick(rng, sizes), pick(rng, (1, 2, 3, 4, 5, 6, 7, 8, 9, 17))
    return shape if rng.random() < 0.5 else shape[::-1]


def draw_no_numbers(rng, shape):
    kind = pick(rng, NO_NUMBERS)
    content = {
        "U": "1.5",
        "S": b"2",
        "O": pick(rng, (None, 3, "x", [1], np.float64(2))),
        "M": np.datetime64("2020-01-01"),
        "m": datetime.timedelta(1),
        "V": np.array((1, 2.0), "i4, f8"),
    }[kind]
    X = np.empty(shape, object if kind == "O" else np.asarray(content).dtype)
    for place in np.ndindex(shape):
        X[place] = content
    return Case(X, np.full(shape, np.nan), {"no numbers"})


def draw_dense(rng, shape, kept, values, needs_all):
    """Return a dense matrix in some layout of memory; what is not kept is NaN where that is allowed, else 0."""
    has_nan = not needs_all and values.dtype.kind in "fc" and not kept.all()
    A = np.full(shape, np.nan if has_nan else 0, values.dtype)
    A[kept] = values
    case = Case(A, as_truth(np.where(kept, A, np.nan) if has_nan else A))
    if values.dtype.kind in "fc" and A.size and rng.random() < 0.15:
        bad = pick(rng, (np.inf, -np.inf, np.nan) if needs_all else (np.inf, -np.inf))
        if values.dtype.kind == "c" and rng.random() < 0.5:
            bad = complex(0.0, bad)
        A[int(rng.integers(shape[0])), int(rng.integers(shape[1]))] = bad
        case.faults.add("not finite")
    case.X = lay_out(rng, A, case)
    return case


def lay_out(rng, A, case):
    layouts = "C", "C", "F", "strided", "reversed", "readonly", "unaligned", "matrix", "list", "masked", "ragged"
    how = pick(rng, layouts)
    if how == "F":
        return np.asfortranarray(A)
    if how == "strided":
        wide = np.full((2 * A.shape[0], 3 * A.shape[1]), 7, A.dtype)
        wide[::2, ::3] = A
        return wide[::2, ::3]
    if how == "reversed":
        return np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1]
    if how == "readonly":
        A = A.copy()
        A.flags.writeable = False
    if how == "unaligned" and A.size:
        memory = np.zeros(A.nbytes + 1, np.uint8)
        B = memory[1:].view(A.dtype).reshape(A.shape)
        B[...] = A
        return B
    if how == "matrix":
        return np.asmatrix(A)
    if how == "list" and A.dtype.char in "dD?":
        case.traits.add("list")
        return A.tolist()
    if how == "masked" and A.size and rng.random() < 0.5:
        mask = np.zeros(A.shape, bool)
        mask[0, 0] = True
        case.faults.add("masked")
        return np.ma.masked_array(A, mask)
    if how == "ragged" and rng.random() < 0.3:
        case.faults.add("not a matrix")
        return pick(rng, (A.ravel(), A[None], np.float64(3), None, "X", [[1.0], [1.0, 2.0]], {1: 2}))
    return A


def as_truth(A):
    wide = np.complex128 if A.dtype.kind == "c" else np.float64
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.asarray(A, wide)


def draw_places(rng, shape, kept, values):
    """Return triplets in a random order, perhaps with duplicates, and the truth."""
    rows, cols = np.nonzero(kept)
    order = rng.permutation(len(rows)) if rng.random() < 0.5 else np.arange(len(rows))
    rows, cols, values = rows[order], cols[order], values[order]
    traits = set()
    if len(rows) and values.dtype.kind != "b" and rng.random() < 0.2:
        again = int(rng.integers(len(rows)))
        rows, cols, values = (np.append(part, part[again]) for part in (rows, cols, values))
        traits.add("duplicates")
    truth = np.full(shape, np.nan, as_truth(values).dtype)
    truth[rows, cols] = 0
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(truth, (rows, cols), as_truth(values))
    return rows, cols, values, truth, traits


def draw_triplets(rng, shape, kept, values, needs_all):
    rows, cols, values, truth, traits = draw_places(rng, shape, kept, values)
    parts = [rows.astype(pick(rng, INDEX_TYPES)), cols.astype(pick(rng, INDEX_TYPES)), values.copy()]
    case = Case(None, truth, traits=traits | {"triplets"})
    if len(rows) and rng.random() < 0.3:
        spoil_triplets(rng, parts, shape, case.faults)
    if rng.random() < 0.2 and not case.faults and values.dtype.char in "d":
        parts = [part.tolist() for part in parts]
    case.X = tuple(parts)
    if case.faults and rng.random() < 0.1:
        case.X = case.X[:2]
    return case


def spoil_triplets(rng, parts, shape, faults):
    at, side = int(rng.integers(len(parts[0]))), int(rng.integers(2))
    fault = pick(rng, ("negative", "outside", "far outside", "fractions", "lengths", "2-D", "not finite"))
    if fault in ("negative", "outside", "far outside"):
        parts[side] = parts[side].astype(np.int64)
        parts[side][at] = {"negative": -1 - rng.integers(3), "outside": shape[side], "far outside": 2**40}[fault]
    elif fault == "fractions":
        parts[side] = parts[side] + 0.5
    elif fault == "lengths":
        parts[side] = parts[side][:-1]
    elif fault == "2-D":
        parts[side] = parts[side][None]
    elif parts[2].dtype.kind in "fc":
        parts[2][at] = pick(rng, (np.nan, np.inf, -np.inf))
    else:
        return
    faults.add(fault)


def draw_sparse(rng, shape, kept, values, needs_all):
    """Return a scipy matrix whose arrays are, in a third of cases, not what scipy would make."""
    format = pick(rng, FORMATS[:3] if rng.random() < 0.7 else FORMATS)
    if values.dtype.char in "egG" or values.dtype.byteorder == ">" or 0 in shape:
        values = values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
        values[~np.isfinite(values)] = 0  # the widest numbers of all
    rows, cols, values, truth, traits = draw_places(rng, shape, kept, values)
    case = Case(None, truth, traits=traits)
    X = sp.coo_array((values, (rows, cols)), shape=shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if format in ("csr", "csc"):
            X = compress(rng, X, format)
        elif format != "coo":
            X = X.asformat(format)
            case.traits.discard("duplicates")
        if format not in ("csr", "csc", "coo"):  # of these some store zeros, and others sum in their own type
            stored = sp.coo_array(X, copy=True)
            stored.data = np.ones(len(stored.data))
            case.truth = np.where(stored.toarray() > 0, as_truth(X.toarray()), np.nan)
    if X.nnz == 0 and not kept.all():
        case.traits.add("empty")
    case.X = X if rng.random() < 0.7 else getattr(sp, f"{format}_matrix")(X)
    if format in ("csr", "csc", "coo", "bsr"):
        vary_arrays(rng, case)
    elif format == "lil" and rng.random() < 0.2 and X.nnz:
        row = int(np.flatnonzero([len(each) for each in case.X.rows])[0])
        case.X.rows[row][-1] = pick(rng, (shape[1], -shape[1] - 1, 10**6))
        case.faults.add("outside")
    return case


def compress(rng, X, format):
    """As scipy's own conversion, but for duplicates, which stay."""
    major, minor = (X.row, X.col) if format == "csr" else (X.col, X.row)
    order = np.argsort(major, kind="stable")
    n = X.shape[0 if format == "csr" else 1]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(major, minlength=n))))
    made = getattr(sp, f"{format}_array")(X.shape, dtype=X.dtype)
    kind = pick(rng, ("int32", "int64"))
    made.indptr, made.indices, made.data = indptr.astype(kind), minor[order].astype(kind), X.data[order]
    return made


def names_of_arrays(X):
    if X.format != "coo":
        return ["data", "indices", "indptr"]
    return ["data", "row", "col"]


def get(X, name):
    return getattr(X, name)


def put(X, name, array):
    """Put an array in place after scipy's own checks."""
    if X.format == "coo" and name in ("row", "col"):
        coords = list(X.coords)
        coords[("row", "col").index(name)] = array
        X.coords = tuple(coords)
    else:
        setattr(X, name, array)


def vary_arrays(rng, case):
    """Give the arrays other types, room to spare, protection, places in files; or spoil them."""
    X = case.X
    n_stored = len(get(X, names_of_arrays(X)[1]))
    if rng.random() < 0.35 and n_stored:
        spoil_arrays(rng, case)
        return
    how = pick(rng, ("nothing", "nothing", "types", "room", "readonly", "strided"))
    names = names_of_arrays(X)
    if how == "types" and max(*X.shape, n_stored) < 100:
        kind = pick(rng, INDEX_TYPES)
        for name in names[1:]:
            put(X, name, get(X, name).astype(kind))
        case.traits.add("odd index types")
    elif how == "room" and X.format in ("csr", "csc"):
        put(X, "indices", np.append(X.indices, np.full(3, -7, X.indices.dtype)))
        put(X, "data", np.append(X.data, np.full(3, np.nan if X.dtype.kind in "fc" else 1).astype(X.dtype)))
        case.traits.add("room")
    elif how == "readonly":
        for name in names:
            array = get(X, name).copy()
            array.flags.writeable = False
            put(X, name, array)
    elif how == "strided":
        for name in names:
            put(X, name, np.repeat(get(X, name), 2, axis=0)[::2])


def spoil_arrays(rng, case):
    X, faults = case.X, case.faults
    names = names_of_arrays(X)
    for name in names:
        put(X, name, get(X, name).copy())
    kinds = ["negative", "outside", "far outside", "not finite", "fractions"]
    if X.format != "coo":
        kinds += ["falls", "start", "end", "far end", "short", "long", "negative start", "fractional indptr"]
    fault = pick(rng, [*kinds, "lengths"])
    if fault in ("negative", "outside", "far outside"):
        name = names[1] if X.format != "coo" else pick(rng, names[1:])
        index = get(X, name)
        size = X.shape[1 if name in ("col", "indices") and X.format != "csc" else 0]
        index[int(rng.integers(len(index)))] = {"negative": -1, "outside": size, "far outside": 2**30}[fault]
        put(X, name, index)
    elif fault == "not finite":
        if X.dtype.kind not in "fc":
            return
        X.data.ravel()[int(rng.integers(X.data.size))] = pick(rng, (np.nan, np.inf, -np.inf))
    elif fault == "fractions":
        put(X, names[1], get(X, names[1]) + 0.0)
    elif fault == "lengths":
        put(X, names[1], get(X, names[1])[:-1])
    else:
        spoil_offsets(rng, X, fault)
    faults.add(fault)


def spoil_offsets(rng, X, fault):
    p = X.indptr
    middle = int(rng.integers(1, len(p)))
    if fault == "falls":
        p[middle] = p[middle - 1] - 1 if p[middle - 1] > 0 else -1
        if middle == len(p) - 1:
            p[middle - 1] = p[middle] + 2
    elif fault in ("start", "negative start"):
        p[0] = 1 if fault == "start" else -5
    elif fault in ("end", "far end"):
        p[-1] = len(X.indices) + (1 if fault == "end" else 2**30)
    elif fault == "short":
        X.indptr = p[:-1]
    elif fault == "long":
        X.indptr = np.append(p, p[-1])
    else:
        X.indptr = p + 0.0


def snapshot(X):
    """Return the bytes of everything that `X` holds, to be compared with those of later."""
    if isinstance(X, np.ma.MaskedArray):
        return snapshot(X.data), snapshot(np.asarray(X.mask))
    if isinstance(X, np.ndarray):
        content = repr(X.tolist()) if X.dtype.hasobject else X.tobytes()
        return X.dtype.str, X.shape, X.strides, X.flags.writeable, content
    if sp.issparse(X):
        names = {"dia": ["data", "offsets"], "lil": ["rows", "data"]}.get(X.format)
        if X.format == "dok":
            return repr(sorted(X.items()))
        return tuple(snapshot(getattr(X, name)) for name in names or names_of_arrays(X))
    if isinstance(X, tuple | list):
        return tuple(map(snapshot, X))
    return repr(X)
