"""The style of all figures: a light and a dark theme, in Okabe and Ito's colours, which colour-blind readers can tell apart."""

import functools
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

LIGHT, DARK = (Path(__file__).with_name(f"{name}.mplstyle") for name in ("light", "dark"))
THEMES = {"light": [LIGHT], "dark": [LIGHT, DARK]}
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


def save(draw: Callable[..., StyledFigure], path: Path) -> Path:
    """Saves NAME.png and NAME.svg in the light theme, NAME-dark.* in the dark; returns the path of the first.

    `path` has no suffix; `draw` is a `styled` function.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the font lacks some scripts; the SVG, which pages show, keeps text as text, for the reader's fonts
    warnings.filterwarnings("ignore", "Glyph .* missing from")
    for theme, place in (("light", path), ("dark", path.with_name(f"{path.name}-dark"))):
        figure = draw(theme=theme)
        with style.context(THEMES[theme]):
            figure.savefig(place.with_suffix(".png"))
            figure.set_layout_engine("none")  # it is laid out now: again for the SVG would take as long as drawing
            figure.savefig(place.with_suffix(".svg"), metadata={"Date": None})  # reproducible bytes
    return path.with_suffix(".png")
