"""What an epoch on a cluster costs: a model of seconds and bytes, and its constants from measured runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

ITEM = 4  # bytes of a number of the factors
NAMES = ("epoch_ms", "entry_ns", "number_ns", "task_ms", "byte_ns")


@dataclass(frozen=True)
class Setting:
    """A fit on a cluster of workers with one thread each.

    Attributes
    ----------
    n_rows, n_cols, n_entries, rank : int
    n_workers : int
        A power of two, at most the number of parts.
    n_cores : int
        That the workers share: more of them than this do not compute faster.
    bandwidth : float or None
        Bytes per second between machines; None: all are on one machine, as they were where the constants come from.
    """

    n_rows: int
    n_cols: int
    n_entries: int
    rank: int
    n_workers: int
    n_cores: int
    bandwidth: float | None = None

    @property
    def n_tasks(self) -> int:
        """Tasks of an epoch: each group of rows meets each group of columns, and the two halves are taken apart."""
        return 3 * self.n_workers**2

    @property
    def gathered(self) -> int:
        """Bytes that the client gets at the end of an epoch: all factors and biases."""
        return ITEM * (self.rank + 1) * (self.n_rows + self.n_cols)

    @property
    def passed_on(self) -> int:
        """Bytes of column factors that a worker gets from the others in an epoch; all workers do so at once."""
        return ITEM * (self.rank + 1) * self.n_cols * (self.n_workers - 1) // self.n_workers

    @property
    def terms(self) -> NDArray[np.float64]:
        """What each constant is multiplied by; on one machine all bytes go through the same memory."""
        at_once = min(self.n_workers, self.n_cores)
        moved = self.gathered + self.passed_on * self.n_workers
        each = self.n_entries / at_once
        return np.array([1e-3, 1e-9 * each, 1e-9 * each * self.rank, 1e-3 * self.n_tasks, 1e-9 * moved])


def fit_constants(settings: Sequence[Setting], seconds: Sequence[float]) -> dict[str, float]:
    """Return the constants, none negative, with the least sum of squared relative errors."""
    measured = np.array(seconds)
    rows = np.array([setting.terms for setting in settings]) / measured[:, None]
    found, _ = nnls(rows, np.ones(len(measured)))
    return dict(zip(NAMES, found.tolist(), strict=True))


def predict(setting: Setting, constants: dict[str, float]) -> float:
    """Return the seconds of an epoch; between machines, bytes take the network's time on top."""
    local = float(setting.terms @ [constants[name] for name in NAMES])
    if setting.bandwidth is None:
        return local
    return local + (setting.gathered + setting.passed_on) / setting.bandwidth


def main() -> None:
    """Fit the constants again to a result of the suite `scale`, and tell what they say of its other runs."""
    import sys

    from bench import record
    from bench.suites.scale import report

    result = record.load(Path(sys.argv[1]))
    report(record.Recorder(n_threads=result["n_threads"]), result)


if __name__ == "__main__":
    main()
