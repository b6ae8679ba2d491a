"""Pictures of the pages about the SVD and its uses, from the values that their own code computes."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import fastfactor as ff
from bench.figures import style
from bench.figures.pages import run_page

_RANKS = (2, 8, 32, 128)


def best_approximation() -> Figure:
    """A photograph at four ranks, and how much of it is left out at each."""
    A = run_page("best_approximation.md")["A"]
    figure, panels = plt.subplot_mosaic("ABE;CDE", figsize=(10, 4.2), width_ratios=(1, 1, 1.25), layout="constrained")
    whole = ff.svd(A, _RANKS[-1])
    for name, k in zip("ABCD", _RANKS, strict=True):
        approximation = (whole.U[:, :k] * whole.s[:k]) @ whole.Vt[:k]
        style.show_picture(panels[name], approximation, f"rank {k}", vmin=0, vmax=255)
    left = np.sqrt(np.maximum(np.sum(A**2) - np.cumsum(whole.s**2), 0)) / np.linalg.norm(A)
    axes = panels["E"]
    axes.plot(np.arange(len(left)) + 1, left, color=style.BLUE)
    axes.plot(_RANKS, left[np.array(_RANKS) - 1], "o", color=style.BLUE)
    axes.set(xscale="log", yscale="log", xlabel="rank k", ylabel=r"$\|A - A_k\|_F \,/\, \|A\|_F$")
    axes.set_xticks((1, *_RANKS), [str(k) for k in (1, *_RANKS)], minor=False)
    style.label_plainly(axes.yaxis)
    axes.grid(alpha=0.3, which="both")
    return figure


def eigendecomposition() -> Figure:
    """The spectrum of A^T A, and its leading eigenvectors as pictures."""
    page = run_page("eigendecomposition.md")
    figure, panels = plt.subplot_mosaic(
        "S123;S456", figsize=(8.5, 3.2), width_ratios=(2.2, 1, 1, 1), layout="constrained"
    )
    w, _ = ff.svd(page["A"], 61).eigh("right")  # three of the 64 pixels are always zero
    panels["S"].plot(np.arange(len(w)) + 1, w, ".", color=style.BLUE)
    panels["S"].plot(np.arange(6) + 1, w[:6], "o", color=style.RED, label="shown on the right")
    panels["S"].set(yscale="log", xlabel="q", ylabel="eigenvalue of $A^T A$")
    panels["S"].legend(frameon=False)
    panels["S"].grid(alpha=0.3)
    for q in range(6):
        vector = page["Q"][:, q].reshape(8, 8)
        bound = np.abs(vector).max()
        style.show_picture(panels[str(q + 1)], vector, f"q = {q + 1}", vmin=-bound, vmax=bound)
    return figure


def pca() -> Figure:
    """Four of the ten digits in the plane of two components, and the variance of the leading ones."""
    page = run_page("pca.md")
    result, digit = page["result"], page["digit"]
    scores = result.U * result.s
    figure, (plane, shares) = plt.subplots(1, 2, figsize=(8.5, 3.6), width_ratios=(3, 2), layout="constrained")
    for j, (colour, marker) in zip((0, 3, 7, 4), style.GROUPS, strict=True):
        points = scores[digit == j]
        plane.scatter(points[:, 0], points[:, 1], s=12, c=colour, marker=marker, linewidths=0.8, label=str(j))
    plane.set(xlabel="component 1", ylabel="component 2")
    plane.legend(title="digit", frameon=False, markerscale=1.6)
    total = np.cumsum(result.explained_variance_ratio)
    shares.bar(np.arange(len(total)) + 1, 100 * result.explained_variance_ratio, color=style.BLUE, label="of each")
    shares.plot(np.arange(len(total)) + 1, 100 * total, "s--", color=style.RED, markersize=4, label="together")
    shares.set(xlabel="component", ylabel="% of the variance", xticks=np.arange(len(total)) + 1)
    shares.legend(frameon=False)
    return figure


def pseudo_inverse() -> Figure:
    """A blurred signal, what two cut-offs make of it, and where they cut the spectrum."""
    page = run_page("pseudo_inverse.md")
    t, result, measured = page["t"], page["result"], page["measured"]
    figure, (curves, spectrum) = plt.subplots(1, 2, figsize=(9, 3.4), width_ratios=(3, 2), layout="constrained")
    curves.plot(t, page["signal"], color="0.6", linewidth=3, label="signal")
    curves.plot(t, measured, "--", color=style.ORANGE, label="blurred, with noise")
    curves.plot(t, result.pinv(2e-2) @ measured, color=style.BLUE, label="pinv(2e-2) of it")
    size = np.abs(result.pinv(1e-12) @ measured).max()
    curves.set(xlabel="t", ylim=(-0.3, 1.6), title=f"pinv(1e-12) is off the scale: up to {size:.0e}")
    curves.legend(frameon=False, ncols=3, loc="upper center")
    s = result.s / result.s[0]
    spectrum.plot(np.arange(len(s)) + 1, np.maximum(s, 1e-18), ".", color=style.BLUE, markersize=4)
    for rcond, line in ((2e-2, "-"), (1e-12, ":")):
        spectrum.axhline(rcond, color="black", linestyle=line, label=f"rcond {rcond:.0e}")
    spectrum.set(yscale="log", xlabel="q", ylabel=r"$\sigma_q / \sigma_1$")
    spectrum.legend(frameon=False)
    return figure


def completion() -> Figure:
    """Ten digits: whole, with gaps, and from both ways to read the gaps."""
    page = run_page("completion.md")
    A, known, model = page["A"], page["known"], page["model"]
    U, s, Vt = ff.svd(np.where(known, A, 0), k=8)
    versions = {
        "whole": A,
        "half of it": np.where(known, A, np.nan),
        "SVD, gaps as 0": (U * s) @ Vt,
        "completion": model.reconstruct(),
    }
    figure, panels = plt.subplots(4, 10, figsize=(8.5, 3.8), layout="constrained")
    shown = plt.get_cmap("gray_r").copy()
    shown.set_bad("#9ecae1")  # gaps have a dot as well, for grey
    for row, (title, values) in zip(panels, versions.items(), strict=True):
        for axes, picture in zip(row, values, strict=False):
            axes.imshow(np.ma.masked_invalid(picture.reshape(8, 8)), cmap=shown, vmin=0, vmax=16)
            axes.plot(*np.nonzero(np.isnan(picture.reshape(8, 8)))[::-1], "k.", markersize=1.5)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
        row[0].set_ylabel(title, rotation=0, ha="right", va="center")
    return figure
