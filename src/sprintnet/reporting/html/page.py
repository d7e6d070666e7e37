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

from sprintnet.reporting.figures.run_figures import IMAGE_FIGURES
from sprintnet.reporting.text import task_scores
from sprintnet.reporting.text.times import seconds_text

TEMPLATES = Path(__file__).parent
LARGE_PNG_BYTES = 2_500_000  # larger ones take a lower JPEG quality: a page stays below 5 MB


def render(template: str, figures: Mapping[str, Mapping[str, str]], **contents: Any) -> str:
    """Returns a page; `contents` are escaped, `figures` data URIs by name and theme. Raises ValueError where one is missing."""
    script = (TEMPLATES / "report.js").read_text("utf-8")
    # the page's content security policy allows this script alone
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        name: getattr(task_scores, name) for name in ("percent", "interval", "class_score", "calibration_error")
    }
    environment.filters["seconds_text"] = seconds_text
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
    if path.with_name(f"{path.stem}-narrow-dark.svg").exists():
        files |= {
            "narrow_light": path.with_stem(f"{path.stem}-narrow"),
            "narrow_dark": path.with_stem(f"{path.stem}-narrow-dark"),
        }
    if path.stem in IMAGE_FIGURES:
        quality = 80 if path.stat().st_size < LARGE_PNG_BYTES else 25
        return {theme: _image_uri(Image.open(file).convert("RGB"), "jpeg", quality=quality) for theme, file in files.items()}
    return {theme: _data_uri("image/svg+xml", file.with_suffix(".svg").read_bytes()) for theme, file in files.items()}


def image_uri(image: NDArray[np.uint8]) -> str:
    """Returns the data URI of an image (H, W, C) as PNG."""
    return _image_uri(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), "png", optimize=True)


def _image_uri(image: Image.Image, format: str, **options: Any) -> str:
    data = io.BytesIO()
    image.save(data, format, **options)
    return _data_uri(f"image/{format}", data.getvalue())


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
