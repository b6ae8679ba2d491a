"""`python -m fastfactor demo`: the Python standard library as a matrix of modules x identifiers, factorized.

The matrix is built from the files of the Python that runs the demo, so it needs no download, and it is real: long
tails, strong row and column effects, and neighbours that a reader can judge.
"""

from __future__ import annotations

import ast
import platform
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from fastfactor.api import fit
from fastfactor.model import Factorization
from fastfactor.threads import count_threads

_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
_MIN_MODULES = 3  # identifiers in fewer modules say nothing about which modules are alike
_MIN_IDENTIFIERS = 20  # modules with fewer are little more than a re-export
_HIDDEN_SHARE = 0.1
_COMPLETION_RANK = 16
_EPOCHS = 30  # of the low-rank fit: by default it runs longer, to come nearer to the optimum than the demo needs
_WELL_KNOWN = (
    "json",
    "asyncio.tasks",
    "threading",
    "socket",
    "http.client",
    "gzip",
    "argparse",
    "email.message",
    "random",
    "datetime",
    "xml.dom.minidom",
    "tkinter.ttk",
)


@dataclass(frozen=True)
class Library:
    """What a folder of Python files says.

    Attributes
    ----------
    modules : list of str
        Dotted names, the rows.
    identifiers : list of str
        The columns.
    counts : (n_modules, n_identifiers) csr_array of float32
        How often a module uses an identifier; no stored zeros.
    """

    modules: list[str]
    identifiers: list[str]
    counts: sp.csr_array


def list_identifiers(source: bytes) -> Iterator[str]:
    """Yield each identifier of a Python source once per use: variables, attributes, arguments, definitions, imports.

    Raises
    ------
    SyntaxError, ValueError
        If this Python cannot parse the source.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sources' own affair
        tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name


def find_modules(folder: Path, packages: Sequence[str] = ()) -> Iterator[tuple[str, Path]]:
    """Yield dotted name and file of each module under `folder`, tests and installed packages left out.

    Parameters
    ----------
    folder : Path
    packages : sequence of str
        Top-level packages or modules to keep; all when empty.
    """
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if _SKIPPED_FOLDERS.intersection(parts) or parts[-1] == "__main__":
            continue
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts and (not packages or parts[0] in packages):
            yield ".".join(parts), path


def read_library(folder: Path, packages: Sequence[str] = ()) -> Library:
    """Count the identifiers of the modules under `folder`.

    Raises
    ------
    ValueError
        If fewer than two modules with enough identifiers are found.
    """
    uses: dict[str, Counter[str]] = {}
    for module, path in find_modules(folder, packages):
        try:
            counted = Counter(list_identifiers(path.read_bytes()))
        except (SyntaxError, ValueError, OSError):  # templates, and files for another Python
            continue
        if len(counted) >= _MIN_IDENTIFIERS:
            uses[module] = counted
    if len(uses) < 2:
        raise ValueError(f"found {len(uses)} usable modules under {folder}; at least 2 are needed")
    spread = Counter(name for counted in uses.values() for name in counted)
    identifiers = sorted(name for name, n_modules in spread.items() if n_modules >= min(_MIN_MODULES, len(uses)))
    column = {name: c for c, name in enumerate(identifiers)}
    triplets = [
        (r, column[name], count)
        for r, counted in enumerate(uses.values())
        for name, count in counted.items()
        if name in column
    ]
    rows, cols, counts = np.array(triplets).T
    matrix = sp.coo_array((counts.astype(np.float32), (rows, cols)), shape=(len(uses), len(identifiers)))
    return Library(list(uses), identifiers, matrix.tocsr())


def compute_log_counts(library: Library) -> sp.coo_array:
    """Return log(1 + count) for each stored count: a twofold use of a name matters more from 1 to 2 than from 50."""
    X = library.counts.tocoo()
    X.data = np.log1p(X.data)
    return X


def compute_weights(library: Library) -> sp.csr_array:
    """Return log(1 + count) x log(n_modules / modules with the identifier), each row scaled to length 1 (tf-idf)."""
    W = compute_log_counts(library).tocsr()
    n_with = np.bincount(W.indices, minlength=W.shape[1])
    W.data *= np.log(W.shape[0] / n_with).astype(np.float32)[W.indices]
    lengths = np.sqrt(np.add.reduceat(W.data**2, W.indptr[:-1]))
    W.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(W.indptr))
    return W


def compute_similarity(model: Factorization) -> NDArray[Any]:
    """Return the cosine between each two rows of U V^H, (n_rows, n_rows), without forming it.

    The inner product of rows r and t of U V^H is U_r (V^H V) U_t^H: it does not depend on how a product is split into
    U and V, as the cosine of the rows of U alone would.
    """
    inner = model.U @ (model.V.conj().T @ model.V) @ model.U.conj().T
    lengths = np.sqrt(np.diag(inner))
    lengths[lengths == 0] = 1
    return np.asarray(inner / np.outer(lengths, lengths))


def _compute_speed(model: Factorization, n_entries: int) -> float:
    """Return entry updates per second over the epochs after the first."""
    seconds = model.history["seconds"]
    return n_entries * (len(seconds) - 1) / max(float(seconds[-1] - seconds[0]), 1e-9)


def _timed_fit(X: Any, rank: int, **arguments: Any) -> tuple[Factorization, float, float]:
    """Fit; return the model, its seconds, and the seconds that compiling (or loading from the cache) took before."""
    started = time.perf_counter()
    warm_up = {"validation": 0.1} if arguments.get("unobserved") != "zero" else {}
    fit(X, rank, **{**arguments, **warm_up, "max_epochs": 1})
    compiled = time.perf_counter()
    model = fit(X, rank, **arguments)
    return model, time.perf_counter() - compiled, compiled - started


def _say(label: str = "", *values: str) -> None:
    print(f"  {label:<34}{'  '.join(values)}".rstrip())


def _head(number: int, title: str, call: str) -> None:
    print(f"\n{number}. {title}\n   {call}\n")


def show_completion(library: Library, seed: int, n_threads: int | None) -> None:
    """Hide some entries, fit the others, and compare the predictions of the hidden ones."""
    X = compute_log_counts(library)
    (rows, cols), values = X.coords, X.data
    hidden = np.random.default_rng(seed).random(X.nnz) < _HIDDEN_SHARE
    seen = (rows[~hidden], cols[~hidden], values[~hidden])
    _head(1, "Completion: how often does a module use an identifier that it uses?", f"fit(X, rank={_COMPLETION_RANK})")
    model, seconds, compiling = _timed_fit(seen, _COMPLETION_RANK, shape=X.shape, seed=seed, n_threads=n_threads)
    n_seen, n_trials = len(values) - int(hidden.sum()), len(model.selection["trials"])
    rows, cols, wanted = rows[hidden], cols[hidden], values[hidden]

    def compute_rmse(predicted: Any) -> float:
        return float(np.sqrt(np.mean((wanted - predicted) ** 2)))

    mean = compute_rmse(seen[2].mean())
    offsets = compute_rmse(model.mean + model.row_bias[rows] + model.col_bias[cols])
    fitted = compute_rmse(model.predict(rows, cols))
    _say("entries fitted, hidden", f"{n_seen:,}, {len(wanted):,}")
    _say("compile, or load from the cache", f"{compiling:.1f} s")
    _say("fit", f"{seconds:.2f} s, {n_trials} penalties tried, {_compute_speed(model, n_seen) / 1e6:.0f} M updates/s")
    _say("RMSE on the hidden entries")
    _say("  predicting the mean", f"{mean:.3f}")
    _say("  the model's offsets alone", f"{offsets:.3f}")
    _say("  the model", f"{fitted:.3f}   {1 - fitted / mean:.0%} less than the mean")


def show_approximation(library: Library, rank: int, seed: int, n_threads: int | None) -> Factorization:
    """Approximate the weighted matrix, zeros included, and compare with the optimum. Return the model."""
    W = compute_weights(library)
    rank = min(rank, min(W.shape) - 1)  # svds takes no more
    call = f'fit(W, rank={rank}, unobserved="zero", max_epochs={_EPOCHS})'
    _head(2, "Low rank: every entry counts, what is not stored is 0", call)
    chosen = {"unobserved": "zero", "max_epochs": _EPOCHS, "seed": seed, "n_threads": n_threads}
    model, seconds, compiling = _timed_fit(W, rank, **chosen)
    norm = float(np.sqrt((W.data.astype(np.float64) ** 2).sum()))
    error = float(np.linalg.norm(W.toarray() - model.reconstruct())) / norm
    started = time.perf_counter()
    _, s, _ = svds(W.astype(np.float64), k=rank, rng=np.random.default_rng(seed))
    svds_seconds = time.perf_counter() - started
    optimum = float(np.sqrt(max(norm**2 - (s**2).sum(), 0.0))) / norm
    n_entries = W.shape[0] * W.shape[1]
    _say("entries fitted", f"{n_entries:,}")
    _say("compile, or load from the cache", f"{compiling:.1f} s")
    _say("fit", f"{seconds:.2f} s, {_compute_speed(model, n_entries) / 1e6:.0f} M updates/s")
    _say("scipy svds", f"{svds_seconds:.2f} s   it reads the {W.nnz:,} stored entries only")
    _say("relative error |W - U V'| / |W|")
    _say("  the model", f"{error:.4f}")
    _say("  the optimum, from svds", f"{optimum:.4f}   the model is {error / optimum - 1:.2%} above it")
    return model


def show_neighbours(library: Library, model: Factorization, modules: Sequence[str]) -> None:
    """Print the three modules most similar to each of `modules` that the library has."""
    _head(3, "Neighbours: largest cosine between rows of that U V'", "no offsets; W is tf-idf of the log counts")
    similarity = compute_similarity(model)
    np.fill_diagonal(similarity, -1)
    place = {module: r for r, module in enumerate(library.modules)}
    shown = [module for module in modules if module in place]
    width = max(map(len, shown), default=0) + 2
    for module in shown:
        scores = similarity[place[module]]
        nearest = np.argsort(-scores, kind="stable")[:3]
        print(f"  {module:<{width}}" + ", ".join(f"{library.modules[r]} {scores[r]:.2f}" for r in nearest))


def run(packages: Sequence[str] = (), *, rank: int = 32, seed: int = 0, n_threads: int | None = None) -> None:
    """Print the demo.

    Parameters
    ----------
    packages : sequence of str
        Top-level packages or modules of the standard library to read; all when empty.
    rank : int
        Of the low-rank approximation.
    seed : int
    n_threads : int, optional
    """
    started = time.perf_counter()
    library = read_library(Path(sysconfig.get_path("stdlib")), packages)
    n_rows, n_cols = library.counts.shape
    print(f"The standard library of Python {platform.python_version()} as a matrix: modules x identifiers\n")
    _say("shape", f"{n_rows:,} x {n_cols:,}")
    _say("entries", f"{library.counts.nnz:,} ({library.counts.nnz / (n_rows * n_cols):.1%} of the places)")
    _say("read in", f"{time.perf_counter() - started:.1f} s")
    _say("threads", f"{count_threads(n_threads)}")
    show_completion(library, seed, n_threads)
    model = show_approximation(library, rank, seed, n_threads)
    show_neighbours(library, model, _WELL_KNOWN if not packages else library.modules[:12])
    print(f"\n{time.perf_counter() - started:.0f} s in all.")
