"""The one style of all figures: light and dark sheets, Okabe and Ito's colours, which colour-blind readers tell apart."""

from collections.abc import Callable
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

LIGHT = Path(__file__).with_name("light.mplstyle")
DARK = Path(__file__).with_name("dark.mplstyle")
WIDE = (7.2, 3.2)
"""Inches of a figure as wide as a report's column."""


def save(draw: Callable[[], Figure], path: Path) -> Path:
    """Draws NAME.png and NAME.svg for light pages and NAME-dark.svg for dark ones; `path` is their place without suffix.

    Returns the place of the first; `train_batch0` is a JPEG, as users of Ultralytics know it.
    """
    raster = path.with_name(f"{path.name}.{'jpg' if path.name == 'train_batch0' else 'png'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with style.context(LIGHT):
        figure = draw()
        figure.savefig(raster)
        figure.savefig(path.with_name(f"{path.name}.svg"))
    with style.context([LIGHT, DARK]):
        draw().savefig(path.with_name(f"{path.name}-dark.svg"))
    return raster
