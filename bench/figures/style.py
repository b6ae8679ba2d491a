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

    def options(self, **more: Any) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line, **more}


BLUE, RED, GREEN, PINK, ORANGE, GREY, SKY = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#999999", "#56B4E9"),
)

PEERS = {
    "fastfactor": Style(BLUE, "o", "-"),
    "libmf": Style(RED, "s", "--"),
    "cmfrec": Style(GREEN, "^", "-."),
    "loops-blocks": Style(PINK, "v", ":"),
    "loops-reordered": Style(ORANGE, "D", ":"),
    "loops": Style(GREY, "x", ":"),
}
GROUPS = ((BLUE, "o"), (ORANGE, "^"), (PINK, "s"), ("#000000", "x"))  # of points
OTHER = Style(SKY, "P", "-")


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
