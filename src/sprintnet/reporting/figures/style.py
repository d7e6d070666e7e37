"""The one style of all figures: light and dark sheets, Okabe and Ito's colours, which colour-blind readers tell apart."""

import warnings
from collections.abc import Callable
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

LIGHT = Path(__file__).with_name("light.mplstyle")
DARK = Path(__file__).with_name("dark.mplstyle")
WIDE = (7.2, 3.2)
"""Inches of a figure as wide as a report's column."""
OF_IMAGES = ("train_batch0", "wrong", "grad_cam", "grad_cam_files")
"""Figures made of images: their pixels, not lines, take the room."""


def save(draw: Callable[[], Figure], path: Path) -> Path:
    """Draws NAME.png and NAME.svg for light pages, the same as NAME-dark for dark ones; `path` is their place without suffix.

    Returns the place of the first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # scripts that the font lacks: the SVG, which pages show, has its text as text, for the reader's fonts
    warnings.filterwarnings("ignore", "Glyph .* missing from")
    for sheets, place in (([LIGHT], path), ([LIGHT, DARK], path.with_name(f"{path.name}-dark"))):
        with style.context(sheets):
            figure = draw()
            figure.savefig(raster(place))
            figure.savefig(place.with_name(f"{place.name}.svg"), metadata={"Date": None})  # the same figure, the same bytes
    return raster(path)


def raster(path: Path) -> Path:
    """Returns where a figure's pixels lie: NAME.png, but train_batch0.jpg, as users of Ultralytics know it."""
    return path.with_name(f"{path.name}.{'jpg' if path.name.startswith('train_batch') else 'png'}")
