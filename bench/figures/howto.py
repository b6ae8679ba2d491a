"""Pictures of the how-to pages, from the values that their own code computes."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from bench.figures import style
from bench.figures.pages import run_page


def counts() -> Figure:
    """Groups of cells in the plane of two components, and the variance that the components explain."""
    page = run_page("counts.md")
    figure, (plane, shares) = plt.subplots(1, 2, figsize=(8, 3.4), width_ratios=(3, 2), layout="constrained")
    for j, (colour, marker) in enumerate(style.GROUPS):
        points = page["scores"][page["kind"] == j]
        plane.scatter(points[:, 0], points[:, 1], s=12, c=colour, marker=marker, linewidths=0.8, label=f"kind {j + 1}")
    plane.set(xlabel="component 1", ylabel="component 2", title="1,000 synthetic cells")
    plane.legend(frameon=False, markerscale=1.6)
    ratios = page["result"].explained_variance_ratio
    shares.bar(np.arange(len(ratios)) + 1, 100 * ratios, color=style.BLUE)
    shares.set(xlabel="component", ylabel="% of the variance", xticks=np.arange(len(ratios)) + 1)
    return figure


def inpainting() -> Figure:
    """The picture, what was left of it, and what was made of that."""
    page = run_page("inpainting.md")
    picture, lost, filled = page["picture"], page["lost"], page["filled"]
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 2.6), layout="constrained")
    limits = {"vmin": 0, "vmax": 255}
    style.show_picture(panels[0], picture, "whole", **limits)
    style.show_picture(panels[1], np.where(lost, 0, picture), f"{lost.mean():.0%} lost (black)", **limits)
    style.show_picture(panels[2], filled, f"filled in, rank {page['model'].rank}", **limits)
    return figure
