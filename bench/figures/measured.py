"""Pictures of measurements, from the results that are kept in bench/results/."""

from pathlib import Path

from matplotlib.figure import Figure

from bench import plots, record

RESULTS = Path(__file__).resolve().parents[1] / "results"


def per_entry() -> Figure:
    """Error against time where every entry counts."""
    return plots.draw_curves(record.load(RESULTS / "per-entry.json"), "per_entry")
