"""How pictures look: colours of Okabe and Ito (2008), which colour-blind readers tell apart, with markers for grey."""

from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter


class Style(NamedTuple):
    """Of one series."""

    colour: str
    marker: str
    line: str


BLUE, RED, GREEN, PINK, ORANGE, GREY, SKY = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#999999", "#56B4E9"),
)

_PEERS = {
    "fastfactor": Style(BLUE, "o", "-"),
    "libmf": Style(RED, "s", "--"),
    "cmfrec": Style(GREEN, "^", "-."),
    "loops-blocks": Style(PINK, "v", ":"),
    "loops-reordered": Style(ORANGE, "D", ":"),
    "loops": Style(GREY, "x", ":"),
    "per-entry SGD": Style(RED, "s", "--"),
    "fastfactor.svd": Style(BLUE, "o", "-"),
    "scipy arpack": Style(GREEN, "^", "-."),
    "scipy propack": Style("#000000", "x", ":"),
}
GROUPS = ((BLUE, "o"), (ORANGE, "^"), (PINK, "s"), ("#000000", "x"))  # of points
_OTHER = Style(SKY, "P", "-")


def of(peer: str, **more: Any) -> dict[str, Any]:
    """Return the options of a peer's line."""
    colour, marker, line = _PEERS.get(peer, _OTHER)
    return {"color": colour, "marker": marker, "linestyle": line, "label": peer, **more}


def show_picture(axes: Axes, values: Any, title: str = "", **options: Any) -> None:
    """A matrix of grey values, without axes."""
    axes.imshow(values, **{"cmap": "gray", **options})
    axes.set_axis_off()
    axes.set_title(title)


def label_plainly(axis: Axis) -> None:
    """Write 0.2, 0.5, 1, 2, ... on a logarithmic axis instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
