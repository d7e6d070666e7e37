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

HERE = Path(__file__).parent
Figures = Mapping[str, Mapping[str, str]]
"""The addresses of figures by name, each `light` and `dark`."""


def render(template: str, figures: Figures, **contents: Any) -> str:
    """Returns a page; text in `contents` is escaped, figures are those that `embedded` returned."""
    script = (HERE / "report.js").read_text("utf-8")
    # the page's own script and no other: a name with markup that slipped through could still run nothing
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    templates = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return templates.get_template(template).render(
        figures=figures,
        # our own files, not the user's text: the only unescaped parts
        css=Markup((HERE / "report.css").read_text("utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_digest=digest,
        **contents,
    )


def embedded(path: Path) -> dict[str, str]:
    """Returns the addresses of a figure that `style.save` wrote."""
    light, dark = path.with_name(f"{path.name}.svg"), path.with_name(f"{path.name}-dark.svg")
    return {"light": _address("image/svg+xml", light.read_bytes()), "dark": _address("image/svg+xml", dark.read_bytes())}


def picture(image: NDArray[np.uint8]) -> str:
    """Returns the address of an image (H, W, C)."""
    data = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(data, "PNG", optimize=True)
    return _address("image/png", data.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
