"""Seeded synthetic matrices, large enough to time solvers on and alike enough to real ones to believe the times.

Every stored entry is drawn independently: (r, c) is stored with probability min(1, scale * a_r * b_c), where a and b
are power laws over the rows and over the columns. Entries are therefore distinct by construction, and one matrix needs
time in proportion to what it stores: the columns of a row are found by geometric skips over the weights in descending
order (Miller & Hagberg, 2011, "Efficient generation of networks with given expected degrees"). Each row owns a random
stream that depends on the seed and the row only, so the same seed gives the same matrix for any number of threads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

PLANTED_RANK = 16
NOISE = 0.7

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


@dataclass(frozen=True)
class RatingSize:
    """Shape and expected number of stored entries of a rating matrix."""

    n_rows: int
    n_cols: int
    nnz: int


RATING_SIZES = {
    "1M": RatingSize(6_000, 4_000, 1_000_000),
    "5M": RatingSize(60_000, 12_000, 5_000_000),
    "20M": RatingSize(138_000, 27_000, 20_000_000),
    "100M": RatingSize(480_000, 17_800, 100_000_000),
}


def power_law(n: int, exponent: float, cutoff: float) -> NDArray[np.float64]:
    """Weights (rank + cutoff * n) ** -exponent in descending order, summing to 1; the cutoff tames the first few."""
    weights = (np.arange(n) + 1 + cutoff * n) ** -exponent
    return weights / weights.sum()


def rating_matrix(n_rows: int, n_cols: int, nnz: int, seed: int = 0) -> sp.csr_matrix:
    """Ratings of planted rank 16 plus noise of standard deviation 0.7, around 3.5 with row and column effects.

    The number of stored entries is random, within a few times sqrt(nnz) of `nnz`. Values are float32, indices int32 and
    sorted. Rows follow a power law of exponent 0.8, columns one of 1.2, like MovieLens; ids are shuffled.
    """
    rng = np.random.default_rng(seed)
    row_weights = rng.permutation(power_law(n_rows, 0.8, 1e-3))
    matrix = _draw_pattern(row_weights, power_law(n_cols, 1.2, 1 / 300), nnz, rng)
    size = np.float32(np.sqrt(0.6 / PLANTED_RANK**0.5))
    U = rng.standard_normal((n_rows, PLANTED_RANK), dtype=np.float32) * size
    V = rng.standard_normal((n_cols, PLANTED_RANK), dtype=np.float32) * size
    row_effect = rng.normal(3.5, 0.35, n_rows).astype(np.float32)
    col_effect = rng.normal(0.0, 0.45, n_cols).astype(np.float32)
    _fill_ratings(_stream_key(rng), matrix.indptr, matrix.indices, matrix.data, U, V, row_effect, col_effect)
    return matrix


def standard_ratings(size: str, seed: int = 0) -> sp.csr_matrix:
    """One of the standard rating matrices, by its name in `RATING_SIZES`."""
    spec = RATING_SIZES[size]
    return rating_matrix(spec.n_rows, spec.n_cols, spec.nnz, seed)


def write_table(matrix: sp.csr_matrix, path: Path, seed: int = 0) -> None:
    """Write the stored entries to a Parquet (or .csv) file: string ids of both sides, and values, in random order.

    Ten million at a time, so that a table of many entries need not be in memory.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    coo = matrix.tocoo()
    order = np.random.default_rng(seed).permutation(coo.nnz)
    sides = [
        (name, places, pyarrow.array([f"{name}-{i:08x}" for i in range(size)]))
        for name, places, size in (("user", coo.row, matrix.shape[0]), ("item", coo.col, matrix.shape[1]))
    ]
    fields = {"user": pyarrow.string(), "item": pyarrow.string(), "rating": pyarrow.from_numpy_dtype(coo.data.dtype)}
    schema = pyarrow.schema(fields)
    open_writer = pyarrow.csv.CSVWriter if path.suffix == ".csv" else pyarrow.parquet.ParquetWriter
    with open_writer(path, schema) as writer:
        for part in np.array_split(order, -(-coo.nnz // 10_000_000)):
            columns: dict[str, Any] = {}
            for name, places, ids in sides:
                columns[name] = pyarrow.DictionaryArray.from_arrays(places[part], ids).cast(pyarrow.string())
            columns["rating"] = coo.data[part]
            writer.write_table(pyarrow.table(columns, schema))


def text_matrix(
    n_rows: int = 778_000, n_cols: int = 47_000, nnz: int = 5_400_000, n_topics: int = 0, seed: int = 0
) -> sp.csr_matrix:
    """A tf-idf-like matrix: Zipf columns, (1 + log count) * idf, rows of unit length; float64.

    With `n_topics` > 0 the spectrum has a planted decay: about half of the entries, and most of the weight, come from
    topics of four words, whose share of the rows falls by 4 % from one topic to the next, so that the singular values
    fall by 2 %. Without, the spectrum is what Zipf's law gives, a few leading values over a flat bulk.
    """
    words_per_topic, topic_decay, topic_weight = 4, 0.96, 3.0
    rng = np.random.default_rng(seed)
    n_common = n_cols - n_topics * words_per_topic
    if n_common < 1:
        raise ValueError(f"n_topics={n_topics} needs more than {n_topics * words_per_topic} columns, got {n_cols}")
    from_topics = min(nnz // 2, int(0.9 * words_per_topic * n_rows)) if n_topics else 0
    row_weights = rng.lognormal(0.0, 0.5, n_rows)
    common = _draw_pattern(row_weights / row_weights.sum(), power_law(n_common, 1.0, 2e-5), nnz - from_topics, rng)
    pattern = common
    if n_topics:
        share = topic_decay ** np.arange(n_topics)
        topic = rng.choice(n_topics, n_rows, p=share / share.sum())
        inside = rng.binomial(words_per_topic, from_topics / n_rows / words_per_topic, n_rows)
        special = _draw_topic_words(topic, inside, words_per_topic, n_topics, rng)
        pattern = sp.hstack([common, special], format="csr")
        pattern.data[pattern.indices >= n_common] = topic_weight
    pattern = pattern[:, rng.permutation(n_cols)]
    pattern.sort_indices()
    return _weigh_words(pattern.astype(np.float64), rng)


def decaying_dense(n_rows: int = 20_000, n_cols: int = 5_000, seed: int = 0) -> NDArray[np.float64]:
    """A dense matrix whose leading 300 singular values fall by about 3 % each, over a floor of noise."""
    rng = np.random.default_rng(seed)
    n_terms = min(300, n_rows, n_cols)
    left = rng.standard_normal((n_rows, n_terms)) / np.sqrt(n_rows)
    right = rng.standard_normal((n_terms, n_cols)) / np.sqrt(n_cols)
    dense = (left * (100.0 * 0.97 ** np.arange(n_terms))) @ right
    dense += rng.standard_normal((n_rows, n_cols), dtype=np.float32) * 1e-4
    return dense


def _draw_pattern(
    row_weights: NDArray[np.float64], col_weights: NDArray[np.float64], nnz: int, rng: np.random.Generator
) -> sp.csr_matrix:
    """Draw which entries are stored; `col_weights` descend, and column ids are shuffled afterwards. Values are 1."""
    n_rows, n_cols = len(row_weights), len(col_weights)
    if nnz > 0.5 * n_rows * n_cols:
        raise ValueError(f"nnz={nnz} would store more than half of a {n_rows} x {n_cols} matrix")
    row_factors = row_weights * _scale_for(row_weights, col_weights, nnz)
    key = _stream_key(rng)
    col_ids = rng.permutation(n_cols).astype(np.int32)
    counts = np.empty(n_rows, np.int64)
    _count_columns(key, row_factors, col_weights, counts)
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    indices = np.empty(indptr[-1], np.int32)
    _fill_columns(key, row_factors, col_weights, col_ids, indptr, indices)
    values = np.ones(len(indices), np.float32)
    return sp.csr_matrix((values, indices, indptr.astype(np.int32)), shape=(n_rows, n_cols))


def _scale_for(row_weights: NDArray[np.float64], col_weights: NDArray[np.float64], nnz: int) -> float:
    """Scale so that the probabilities min(1, scale * a_r * b_c) sum to `nnz`, by bisection."""
    tails = np.append(np.cumsum(col_weights[::-1])[::-1], 0.0)
    low, high = float(nnz), float(nnz)

    def expected(scale: float) -> float:
        n_certain = np.searchsorted(-col_weights, -1.0 / (scale * row_weights), side="right")
        return float(np.sum(n_certain + scale * row_weights * tails[n_certain]))

    while expected(high) < nnz:
        high *= 2.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if expected(middle) < nnz else (low, middle)
    return 0.5 * (low + high)


def _draw_topic_words(
    topic: NDArray[np.int64], inside: NDArray[np.int64], n_words: int, n_topics: int, rng: np.random.Generator
) -> sp.csr_matrix:
    """For each row, `inside[r]` distinct words out of those of its topic, earlier words being likelier."""
    indptr = np.append(0, np.cumsum(inside)).astype(np.int32)
    indices = np.empty(indptr[-1], np.int32)
    _fill_topic_words(_stream_key(rng), topic, n_words, indptr, indices)
    ones = np.ones(len(indices), np.float32)
    return sp.csr_matrix((ones, indices, indptr), shape=(len(topic), n_topics * n_words))


def _weigh_words(pattern: sp.csr_matrix, rng: np.random.Generator) -> sp.csr_matrix:
    """Multiply the values by tf-idf weights of geometric counts, then make each non-empty row of unit length."""
    n_rows, n_cols = pattern.shape
    document_frequency = np.bincount(pattern.indices, minlength=n_cols)
    idf = np.log((1.0 + n_rows) / (1.0 + document_frequency)) + 1.0
    pattern.data *= (1.0 + np.log(rng.geometric(0.7, pattern.nnz))) * idf[pattern.indices]
    norms = np.sqrt(np.asarray(pattern.multiply(pattern).sum(axis=1)).ravel())
    norms[norms == 0.0] = 1.0
    pattern.data /= np.repeat(norms, np.diff(pattern.indptr))
    return pattern


def _stream_key(rng: np.random.Generator) -> np.uint64:
    return rng.integers(0, 2**63, dtype=np.uint64)


@numba.njit(cache=True)
def _mix(state):
    """SplitMix64's finaliser: 64 well-mixed bits from any counter."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_A
    state = (state ^ (state >> np.uint64(27))) * _MIX_B
    return state ^ (state >> np.uint64(31))


@numba.njit(cache=True)
def _unit(state):
    """Return a number in (0, 1) from the counter `state`; never 0, so that its logarithm is finite."""
    return (np.float64(_mix(state) >> np.uint64(11)) + 0.5) * _TO_UNIT


@numba.njit(cache=True)
def _next_column(state, col, bound, factor, col_weights):
    """Find the next stored column from `col` on; returns the stream's state, that column, and the bound from there."""
    n_cols = len(col_weights)
    while col < n_cols:
        if bound < 1.0:
            state += _GOLDEN
            skip = np.log(_unit(state)) / np.log1p(-bound)
            if skip >= n_cols - col:
                return state, n_cols, bound
            col += np.int64(skip)
        probability = min(1.0, factor * col_weights[col])
        state += _GOLDEN
        accepted = _unit(state) * bound < probability
        bound = probability
        if accepted:
            return state, col, bound
        col += 1
    return state, n_cols, bound


@numba.njit(cache=True, parallel=True)
def _count_columns(key, row_factors, col_weights, counts):
    n_cols = len(col_weights)
    for r in numba.prange(len(row_factors)):
        state = _mix(key + np.uint64(r) * _MIX_B)
        bound = min(1.0, row_factors[r] * col_weights[0])
        n_found = 0
        state, col, bound = _next_column(state, 0, bound, row_factors[r], col_weights)
        while col < n_cols:
            n_found += 1
            state, col, bound = _next_column(state, col + 1, bound, row_factors[r], col_weights)
        counts[r] = n_found


@numba.njit(cache=True, parallel=True)
def _fill_columns(key, row_factors, col_weights, col_ids, indptr, indices):
    """Repeat the draws of `_count_columns`, store the columns' shuffled ids and sort them within each row."""
    for r in numba.prange(len(row_factors)):
        state = _mix(key + np.uint64(r) * _MIX_B)
        bound = min(1.0, row_factors[r] * col_weights[0])
        col = -1
        for place in range(indptr[r], indptr[r + 1]):
            state, col, bound = _next_column(state, col + 1, bound, row_factors[r], col_weights)
            indices[place] = col_ids[col]
        indices[indptr[r] : indptr[r + 1]].sort()


@numba.njit(cache=True, parallel=True)
def _fill_ratings(key, indptr, indices, values, U, V, row_effect, col_effect):
    for r in numba.prange(len(indptr) - 1):
        for place in range(indptr[r], indptr[r + 1]):
            c = indices[place]
            value = row_effect[r] + col_effect[c]
            for q in range(U.shape[1]):
                value += U[r, q] * V[c, q]
            counter = key + np.uint64(place) * _GOLDEN
            radius = np.sqrt(-2.0 * np.log(_unit(counter)))
            angle = 2.0 * np.pi * _unit(counter ^ _MIX_A)
            values[place] = value + np.float32(NOISE * radius * np.cos(angle))


@numba.njit(cache=True, parallel=True)
def _fill_topic_words(key, topic, n_words, indptr, indices):
    """Walk a topic's words in order and keep each with the probability that leaves room for the rest of the row's."""
    for r in numba.prange(len(topic)):
        state = _mix(key + np.uint64(r) * _MIX_B)
        place = indptr[r]
        for word in range(n_words):
            state += _GOLDEN
            missing = indptr[r + 1] - place
            if _unit(state) * (n_words - word) < missing:
                indices[place] = topic[r] * n_words + word
                place += 1
