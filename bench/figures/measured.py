"""Pictures of measurements, from the results that are kept in bench/results/."""

from pathlib import Path

from matplotlib.figure import Figure

from bench import plots, record

RESULTS = Path(__file__).resolve().parents[1] / "results"


def per_entry() -> Figure:
    """Error against time where every entry counts."""
    return plots.draw_curves(record.load(RESULTS / "per-entry.json"), "per_entry")


def time_to_rmse() -> Figure:
    """Test error against time, peers at their tuned options."""
    return plots.draw_curves(record.load(RESULTS / "time-to-rmse.json"), "time_to_rmse")


def speed() -> Figure:
    """Updates a second by rank."""
    return plots.draw_speed(record.load(RESULTS / "epochs.json"))
