"""Self-contained HTML pages: template, style, script and images in one file."""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from sprintnet.reporting.text import task_scores

TEMPLATES = Path(__file__).parent
IMAGE_FIGURES = ("train_batch0", "errors", "grad_cam", "grad_cam_files")
"""Figures made of images, smaller as JPEG than as SVG."""
JPEG_QUALITIES = (88, 75, 50, 25)
MAX_FIGURE_BYTES = 600_000
"""Of one of these, unless the lowest quality is larger."""
Figures = Mapping[str, Mapping[str, str]]
"""The data URIs of figures by name: `light` and `dark`."""


def render(template: str, figures: Figures, **contents: Any) -> str:
    """Returns a page; text in `contents` is escaped, `figures` are data URIs. Raises ValueError for missing contents."""
    script = (TEMPLATES / "report.js").read_text("utf-8")
    # the page's content security policy allows this script alone
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for helper in (task_scores.percent, task_scores.interval, task_scores.class_score):
        environment.filters[helper.__name__] = helper
    # the package's own files are the only unescaped parts
    own = {"css": Markup((TEMPLATES / "report.css").read_text("utf-8")), "script": Markup(script)}  # noqa: S704
    try:
        page = environment.get_template(template).render(figures=figures, script_digest=digest, **own, **contents)
    except UndefinedError as error:
        raise ValueError(error.message) from None
    return page.encode("utf-8", "backslashreplace").decode()  # the name of a folder need not be valid text


def figure_uris(path: Path) -> dict[str, str]:
    """Returns the data URIs of a figure that `style.save` wrote as `path`: SVG, or JPEG for a figure made of images."""
    files = {"light": path, "dark": path.with_stem(f"{path.stem}-dark")}
    if path.stem in IMAGE_FIGURES:
        return {theme: _jpeg_uri(file) for theme, file in files.items()}
    return {theme: _data_uri("image/svg+xml", file.with_suffix(".svg").read_bytes()) for theme, file in files.items()}


def image_uri(image: NDArray[np.uint8]) -> str:
    """Returns the data URI of an image (H, W, C) as PNG."""
    data = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(data, "PNG", optimize=True)
    return _data_uri("image/png", data.getvalue())


def _jpeg_uri(file: Path) -> str:
    pixels = Image.open(file).convert("RGB")
    for quality in JPEG_QUALITIES:
        data = io.BytesIO()
        pixels.save(data, "JPEG", quality=quality)
        if data.tell() <= MAX_FIGURE_BYTES:
            break
    return _data_uri("image/jpeg", data.getvalue())


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
