"""Results: what suites hand over, the JSON file they become, and what two such files say about each other."""

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine

FORMAT = 2


@dataclass(frozen=True)
class Measurement:
    """Repeated samples of one figure. `better` is "lower", "higher", or "" for what is only told.

    `exact` figures repeat to the last bit on one machine, such as the error of a seeded fit: they have no noise.
    """

    suite: str
    case: str
    peer: str
    metric: str
    unit: str
    samples: Sequence[float]
    better: str = "lower"
    exact: bool = False

    @property
    def value(self) -> float:
        return float(median(self.samples))


@dataclass(frozen=True)
class Curve:
    """Error against time for one peer: the shortest times, errors of what `measure` says."""

    suite: str
    case: str
    peer: str
    seconds: Sequence[float]
    errors: Sequence[float]
    measure: str


@dataclass
class Recorder:
    """Collects what suites measure, and tells as it goes; peers in `left_out` are not looked for."""

    quick: bool = False
    n_threads: int = field(default_factory=machine.n_cores)
    left_out: frozenset[str] = frozenset()
    measurements: list[Measurement] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    suite: str = ""

    def add(
        self,
        case: str,
        peer: str,
        metric: str,
        samples: Iterable[float] | float,
        unit: str = "s",
        better: str = "lower",
        exact: bool = False,
    ) -> float:
        """Keep the samples of one figure, print their median, and return it."""
        values = [float(samples)] if isinstance(samples, int | float) else [float(sample) for sample in samples]
        measurement = Measurement(self.suite, case, peer, metric, unit, values, better, exact)
        self.measurements.append(measurement)
        spread = f"  ({min(values):.4g} .. {max(values):.4g}, n={len(values)})" if len(values) > 1 else ""
        print(f"  {case:28} {peer:24} {metric:28} {measurement.value:10.4g} {unit}{spread}", flush=True)
        return measurement.value

    def add_curve(
        self, case: str, peer: str, seconds: Sequence[float], errors: Sequence[float], measure: str = "test RMSE"
    ) -> None:
        self.curves.append(Curve(self.suite, case, peer, list(seconds), list(errors), measure))

    def skip(self, what: str, reason: str) -> None:
        """Keep what was not measured, and why; once, however many cases it concerns."""
        line = f"{self.suite}: {what}: {reason.removeprefix(f'{what}: ')}"  # errors name what they are about
        if line not in self.skipped:
            self.skipped.append(line)
            print(f"  skipped {line}", flush=True)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
            "n_threads": self.n_threads,
            **machine.describe(),
            "measurements": [{**asdict(item), "value": item.value} for item in self.measurements],
            "curves": [asdict(curve) for curve in self.curves],
            "skipped": self.skipped,
        }


def save(recorder: Recorder, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recorder.to_json(), indent=1) + "\n")


def load(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if content.get("format") != FORMAT:
        raise ValueError(f"no result of this benchmark in format {FORMAT}")
    return content


@dataclass(frozen=True)
class Change:
    """How one figure moved; `factor` is above 1 where it got better."""

    name: str
    old: float
    new: float
    unit: str
    factor: float
    beyond_noise: bool


def compare(old: dict[str, Any], new: dict[str, Any], least: float = 0.05) -> list[Change]:
    """Changes of the figures that both results hold, worst first.

    A change is beyond noise when it exceeds `least` and the samples of the two do not overlap. With one sample on
    either side the spread is unknown, and three times `least` is asked for instead. Of exact figures a fiftieth of
    `least` is enough: another machine or version moves the last digits.
    """
    before = {_key(item): item for item in old["measurements"]}
    changes = []
    for item in new["measurements"]:
        earlier = before.get(_key(item))
        if earlier is None or not item["better"] or not item["value"] or not earlier["value"]:
            continue
        gain = earlier["value"] / item["value"]
        factor = gain if item["better"] == "lower" else 1.0 / gain
        name = " / ".join(_key(item))
        if item["exact"]:
            moved = max(gain, 1.0 / gain) - 1.0 > least / 50
        else:
            moved = _lie_apart(earlier["samples"], item["samples"], least, gain)
        changes.append(Change(name, earlier["value"], item["value"], item["unit"], factor, moved))
    return sorted(changes, key=lambda change: change.factor)


def _key(item: dict[str, Any]) -> tuple[str, str, str, str]:
    return item["suite"], item["case"], item["peer"], item["metric"]


def _lie_apart(old: Sequence[float], new: Sequence[float], least: float, gain: float) -> bool:
    moved = max(gain, 1.0 / gain) - 1.0
    if min(len(old), len(new)) < 2:
        return moved > 3 * least
    return moved > least and (max(new) < min(old) or max(old) < min(new))
