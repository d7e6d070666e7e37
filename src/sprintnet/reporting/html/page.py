"""A page that needs nothing beside itself: templates, style and pictures in one file."""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from sprintnet.reporting.figures.style import OF_IMAGES, raster

HERE = Path(__file__).parent
JPEG_QUALITIES = (88, 75, 50, 25)
MAX_FIGURE_BYTES = 600_000
"""Of one figure made of images, unless even the lowest quality is larger."""
Figures = Mapping[str, Mapping[str, str]]
"""The addresses of figures by name, each `light` and `dark`."""


def render(template: str, figures: Figures, **contents: Any) -> str:
    """Returns a page; text in `contents` is escaped, figures are those that `embedded` returned."""
    script = (HERE / "report.js").read_text("utf-8")
    # the page's own script and no other: a name with markup that slipped through could still run nothing
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    templates = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = templates.get_template(template).render(
        figures=figures,
        # our own files, not the user's text: the only unescaped parts
        css=Markup((HERE / "report.css").read_text("utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_digest=digest,
        **contents,
    )
    return page.encode("utf-8", "backslashreplace").decode()  # a folder's name need not be text


def embedded(path: Path) -> dict[str, str]:
    """Returns the addresses of a figure that `style.save` wrote: as SVG, or as JPEG, far smaller, if made of images."""
    places = {"light": path, "dark": path.with_name(f"{path.name}-dark")}
    if path.name not in OF_IMAGES:
        return {
            key: _address("image/svg+xml", place.with_name(f"{place.name}.svg").read_bytes()) for key, place in places.items()
        }
    found = {}
    for key, place in places.items():
        pixels = Image.open(raster(place)).convert("RGB")
        for quality in JPEG_QUALITIES:
            data = io.BytesIO()
            pixels.save(data, "JPEG", quality=quality)
            if data.tell() <= MAX_FIGURE_BYTES:
                break
        found[key] = _address("image/jpeg", data.getvalue())
    return found


def picture(image: NDArray[np.uint8]) -> str:
    """Returns the address of an image (H, W, C)."""
    data = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(data, "PNG", optimize=True)
    return _address("image/png", data.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
