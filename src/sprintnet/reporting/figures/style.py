"""The style of all figures: a light and a dark theme, in Okabe and Ito's colours, which colour-blind readers can tell apart."""

import functools
import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

LIGHT, DARK = (Path(__file__).with_name(f"{name}.mplstyle") for name in ("light", "dark"))
THEMES = {"light": [LIGHT], "dark": [LIGHT, DARK]}
SVG_METADATA = {"Date": None}  # reproducible bytes
PHONE_WIDTH, PHONE_PANEL_HEIGHT = 3.6, 2.6  # inches
FULL_WIDTH = (7.2, 3.2)  # inches of a figure as wide as the text of a report


class StyledFigure(Figure):
    """A Matplotlib figure that always renders in its theme, and that Jupyter shows inline without pyplot."""

    theme = "light"

    def draw(self, renderer: RendererBase) -> None:
        """Draws the figure; Matplotlib reads some settings only now."""
        with style.context(THEMES[self.theme]):
            super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        data = io.BytesIO()
        self.savefig(data, format="png")
        return data.getvalue(), {"width": round(96 * self.get_figwidth())}  # CSS pixels: sharp on a dense screen


def styled(draw: Callable[..., StyledFigure]) -> Callable[..., StyledFigure]:
    """Makes a function draw in the light theme, or that of the keyword `theme`."""

    @functools.wraps(draw)
    def drawn(*arguments: Any, theme: str = "light", **keywords: Any) -> StyledFigure:
        with style.context(THEMES[theme]):
            figure = draw(*arguments, **keywords)
        figure.theme = theme
        return figure

    return drawn


def save(draw: Callable[..., StyledFigure], path: Path, *, for_phones: bool = False) -> Path:
    """Saves NAME.png and NAME.svg in the light theme, NAME-dark.* in the dark; returns the path of the first.

    `path` has no suffix; `draw` is a `styled` function. With `for_phones` NAME-narrow.svg and NAME-narrow-dark.svg have the
    panels one below the other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the font lacks some scripts; the SVG, which pages show, keeps text as text, for the reader's fonts
    warnings.filterwarnings("ignore", "Glyph .* missing from")
    for theme, ending in (("light", ""), ("dark", "-dark")):
        figure, place = draw(theme=theme), path.with_name(f"{path.name}{ending}")
        with style.context(THEMES[theme]):
            figure.savefig(place.with_suffix(".png"))
            figure.set_layout_engine("none")  # it is laid out now: again for the SVG would take as long as drawing
            figure.savefig(place.with_suffix(".svg"), metadata=SVG_METADATA)
        narrow = path.with_name(f"{path.name}-narrow{ending}.svg")
        narrow.unlink(missing_ok=True)
        if for_phones:
            figure = draw(theme=theme)
            _stack(figure)
            with style.context(THEMES[theme]), warnings.catch_warnings(), suppress(UserWarning):
                warnings.filterwarnings("error", "constrained_layout not applied")  # long labels leave no room: it scrolls
                figure.savefig(narrow, metadata=SVG_METADATA)
    return path.with_suffix(".png")


def _stack(figure: Figure) -> None:
    """Makes a figure as narrow as a phone, its panels one below the other."""
    panels = [axes for axes in figure.axes if axes.get_subplotspec()]
    grid = GridSpec(len(panels), 1, figure)
    for row, axes in enumerate(panels):
        axes.set_subplotspec(grid[row])
        axes.tick_params(labelleft=True)  # which panels beside each other share
    height = figure.get_figheight() if len(panels) == 1 else PHONE_PANEL_HEIGHT * len(panels)
    figure.set_size_inches(PHONE_WIDTH, height)
