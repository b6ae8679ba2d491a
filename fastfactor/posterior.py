"""Posterior averaging: the fit of `posterior_samples=N`, and what its model says of its own errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import ndtri

from fastfactor.decomposition import svds
from fastfactor.kernels.ridge import Stored
from fastfactor.matrix.inputs import Observations, as_observations
from fastfactor.matrix.positives import store_rows, transpose_rows
from fastfactor.model import Factorization
from fastfactor.model_selection import random_split
from fastfactor.options import Options
from fastfactor.problems import Problem, fit_missing
from fastfactor.solvers.averaging import Average, compress
from fastfactor.solvers.journal import Journal
from fastfactor.solvers.sampling import N_PLAIN, Side, run_chain

Array = NDArray[Any]

_BURN_IN = 20  # sweeps before the first sample; the chain starts at a fitted model
_THIN = 2  # sweeps per sample
_LEAST_RANK = 4
_SHARE = 0.7  # of the samples' mean in the model, the rest being the plain fit's
_MAX_DRAWS = 16  # kept for the spread of the samples
LEVELS = np.arange(1, 200) / 200  # of the quantiles that intervals are made of
_HELD_SHARE = 0.1  # of the entries, held out to find them
_MOST_HELD, _LEAST_HELD = 20_000, 100  # of these entries; with fewer the quantiles are a normal distribution's
_CALIBRATING = 20  # samples of the fit that has not seen them
_PATTERN_RANK = 48  # features of each row and column from which entries there are
_PATTERN_SHRINKAGE = 20.0  # entries that each row and column is taken to have more
_PATTERN_SCALE = 0.3  # of these features: the smaller, the less is expected of them
_PAIRS = 1 << 14  # predicted at a time


def describe_pattern(stored: Stored, shape: tuple[int, int], seed: int) -> tuple[Array, Array]:
    """Return features of rows and of columns: 1, the log of the count, and singular vectors of which entries exist.

    Each but the first has mean 0 over the entries, and there the variance 1 (the log) or 0.1. What a row with few
    entries has beyond that is cut to the average length: its numbers would hang on features seen nowhere else.
    """
    counts = [np.diff(stored.indptr), np.bincount(stored.indices, minlength=shape[1])]
    scales = [1 / np.sqrt(count + _PATTERN_SHRINKAGE) for count in counts]
    features: list[list[Array]] = [[np.log(np.maximum(count, 1))[:, None]] for count in counts]
    k = min(_PATTERN_RANK, min(shape) - 1)
    if k > 0:
        rows = np.repeat(np.arange(shape[0]), counts[0])
        pattern = (scales[0][rows] * scales[1][stored.indices], stored.indices, stored.indptr)
        U, _, Vt = svds(sp.csr_array(pattern, shape=shape), k, rng=seed, tol=1e-3)
        features[0].append(U * scales[0][:, None])
        features[1].append(Vt.T * scales[1][:, None])

    def normalise(parts: list[Array], count: Array) -> Array:
        F, share = np.hstack(parts), count / count.sum()
        F = F - share @ F
        spread = np.sqrt(share @ F**2)
        # What is the same for all (a matrix without gaps) says nothing: rounding is not to be blown up.
        F = F / np.where(spread > 1e-6 * np.abs(F).max(axis=0, initial=1e-300), spread, np.inf)
        F[:, N_PLAIN - 1 :] *= _PATTERN_SCALE
        lengths, average = np.linalg.norm(F, axis=1), np.sqrt(share @ np.sum(F**2, axis=1))
        F *= np.minimum(1, average / np.maximum(lengths, 1e-300))[:, None]
        return np.hstack([np.ones((len(count), 1)), F])

    return normalise(features[0], counts[0]), normalise(features[1], counts[1])


def _set_out(observed: Observations, start: Factorization, rank: int, std: float, seed: int) -> tuple[Side, Side]:
    values = (observed.data[: observed.n_entries] - start.mean) / std
    # Copies of one type, writable: the kernels are compiled once.
    indptr, indices = observed.indptr.astype(np.int64), observed.indices.astype(np.int32)
    stored = store_rows(indptr, indices, values, None, np.dtype(np.float32))
    features = describe_pattern(stored, observed.shape, seed)
    sides = []
    for entries, F, factors, bias in zip(
        (stored, transpose_rows(stored, observed.shape[1])),
        features,
        compress(start.U, start.V, rank),
        (start.row_bias, start.col_bias),
        strict=True,
    ):
        numbers = np.hstack([factors / std**0.5, bias[:, None] / std]).astype(np.float32)
        ones = np.ones(len(F), np.float32)
        sides.append(Side(entries, F, numbers, ones, ones))
    return sides[0], sides[1]


def choose_rank(observed: Observations, rank: int) -> int:
    """Return the rank of the samples: no more numbers than entries to tell them from."""
    return min(rank, max(_LEAST_RANK, observed.n_entries // sum(observed.shape)))


def _as_single(variances: NDArray[Any]) -> NDArray[np.float32]:
    """Return variances in single precision: what it has no number for as its largest."""
    return np.minimum(variances, np.finfo(np.float32).max).astype(np.float32)


@dataclass(frozen=True)
class Parts:
    """What a model of samples is made of: a plain fit, and what was kept of the sweeps that start there."""

    plain: Factorization
    average: Average
    std: float
    n_samples: int

    def blend(self, share: float) -> Factorization:
        """Return the model whose predictions are that share of the average and the rest of the plain fit."""
        plain, average, std = self.plain, self.average, self.std
        root = std**-0.5
        U, V = average.blend(plain.U * root, plain.V * root, share, plain.rank)
        biases = [
            (share * std * ours + (1 - share) * theirs).astype(np.float32)
            for ours, theirs in ((average.row_bias, plain.row_bias), (average.col_bias, plain.col_bias))
        ]
        posterior = {
            "n_samples": self.n_samples,
            "std": std,
            "row_draws": average.row_draws,
            "col_draws": average.col_draws,
            "row_noise": _as_single(average.row_noise),
            "col_noise": _as_single(average.col_noise),
            "quantiles": ndtri(LEVELS),
        }
        return replace(plain, U=U / root, V=V / root, row_bias=biases[0], col_bias=biases[1], posterior=posterior)


def fit_posterior(problem: Problem, options: Options, n_samples: int, journal: Journal) -> Factorization:
    """Fit as usual, sample from there and blend both; calibrate the intervals on what a second fit does not see."""
    observed = as_observations(problem.X, shape=problem.shape, duplicates=problem.duplicates)
    if observed.data.dtype.kind == "c":
        raise TypeError("posterior_samples needs real values, X is complex")

    def fit(problem: Problem, observed: Observations, n: int) -> Factorization:
        return _sample(observed, fit_missing(problem, options, journal), options, n).blend(_SHARE)

    model = fit(problem, observed, n_samples)
    share = min(_HELD_SHARE, _MOST_HELD / observed.n_entries)
    if share * observed.n_entries < _LEAST_HELD:
        return model
    n = observed.n_entries
    stored = sp.csr_array((observed.data[:n], observed.indices[:n], observed.indptr), shape=observed.shape)
    seen, held = random_split(stored, share, seed=options.seed)
    again = fit(replace(problem, X=seen), as_observations(seen), min(n_samples, _CALIBRATING))
    return replace(model, posterior={**model.posterior, "quantiles": find_quantiles(again, held)})


def _sample(observed: Observations, plain: Factorization, options: Options, n_samples: int) -> Parts:
    std = float(observed.std) or 1.0
    rows, cols = _set_out(observed, plain, choose_rank(observed, options.rank), std, options.seed)
    n_sweeps = _THIN * n_samples
    sweeps = islice(run_chain(rows, cols, options.seed), _BURN_IN, _BURN_IN + n_sweeps)
    return Parts(plain, Average(sweeps, n_sweeps, min(n_samples, _MAX_DRAWS)), std, n_samples)


def find_quantiles(model: Factorization, held: sp.csr_array) -> Array:
    """Return the quantiles LEVELS of errors over their standard deviations, on entries that `model` has not seen."""
    pairs = held.tocoo()
    predictions, std = model.predict(pairs.row, pairs.col, return_std=True)
    return np.asarray(np.quantile((held.data - predictions) / std, LEVELS))


def check_sampled(model: Factorization, name: str) -> None:
    """Raise a ValueError unless the model is one of samples."""
    if not model.posterior:
        raise ValueError(f"{name} needs a model of samples: fit with posterior_samples, such as 50")


def predict_std(model: Factorization, rows: Array, cols: Array) -> Array:
    """Return the predictive standard deviation of each pair: the spread of the samples and the noise together.

    Parameters
    ----------
    model : Factorization
        Of samples.
    rows, cols : (n,) integer arrays
    """
    posterior = model.posterior
    out = np.empty(len(rows), model.U.dtype)
    for first in range(0, len(rows), _PAIRS):
        r, c = rows[first : first + _PAIRS], cols[first : first + _PAIRS]
        R, C = posterior["row_draws"][r].astype(np.float32), posterior["col_draws"][c].astype(np.float32)
        samples = np.einsum("isk,isk->is", R[:, :, :-2], C[:, :, :-1]) + R[:, :, -2] + R[:, :, -1] * C[:, :, -1]
        noise = posterior["row_noise"][r].astype(np.float64) * posterior["col_noise"][c]
        out[first : first + _PAIRS] = posterior["std"] * np.sqrt(samples.var(axis=1, dtype=np.float64) + noise)
    return out


def find_margins(model: Factorization, coverage: float) -> Array:
    """Return how many standard deviations below and above the prediction hold that share of new entries.

    The quantiles that the model has are interpolated; beyond the last ones they grow as those of a normal distribution.
    """
    ends = np.array([(1 - coverage) / 2, (1 + coverage) / 2])
    inside = np.clip(ends, LEVELS[0], LEVELS[-1])
    margins = np.interp(inside, LEVELS, model.posterior["quantiles"])
    beyond = inside != ends
    margins[beyond] *= ndtri(ends[beyond]) / ndtri(inside[beyond])
    return np.asarray(margins)
