"""Figures made of images: augmented beside originals, wrong answers, Grad-CAM maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sprintnet.reporting.figures.predictions import class_label

COLUMNS = 8
INCHES = 0.98
"""Side of one picture."""
NARROW = 13
"""Letters of a class above one picture."""
SIDE = 96
"""Most pixels of a side."""


def augmented(originals: NDArray[np.uint8], variants: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> Figure:
    """Returns a column an image (N, H, W, C) under its class: the original above its variants."""
    rows = [originals, *variants]
    figure, axes = _grid(len(rows), len(originals))
    for row, images in zip(axes, rows, strict=True):
        for cell, image in zip(row, images, strict=True):
            _show(cell, image)
    for cell, name in zip(axes[0], names, strict=True):
        cell.set_title(class_label(name), fontsize=7, loc="center", fontweight="normal")
    for row, label in zip(axes, ["original", *(f"variant {number}" for number in range(1, len(rows)))], strict=True):
        row[0].set_ylabel(label, fontsize=7)
    return figure


def prediction_errors(images: NDArray[np.uint8], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns wrongly answered images (N, H, W, C) over what they are and what was said (rows of predictions.csv)."""
    figure, axes = _grid(-(-len(images) // COLUMNS), min(COLUMNS, len(images)), caption=0.42)
    for cell, image, row in zip(axes.flat, images, rows, strict=False):
        _show(cell, image)
        said = f"{class_label(row['predicted'])}, {100 * float(row['confidence']):.0f} %"
        cell.set_xlabel(f"{class_label(row['true'])}\nsaid {said}", fontsize=6)
    return figure


def grad_cam(images: NDArray[np.uint8], maps: Mapping[str, NDArray[Any]], answers: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns images (N, H, W, C) under their answers; under each image every map (label -> (N, H, W) in 0..1) laid over it."""
    columns, bands = min(COLUMNS, len(images)), -(-len(images) // COLUMNS)
    figure, axes = _grid(bands * (1 + len(maps)), columns, caption=0.14)
    for index, (image, answer) in enumerate(zip(images, answers, strict=True)):
        band, column = divmod(index, columns)
        top = band * (1 + len(maps))
        _show(axes[top, column], image)
        axes[top, column].set_title(_caption(answer), fontsize=6.5, loc="center", fontweight="normal")
        for row, values in enumerate(maps.values(), top + 1):
            _show(axes[row, column], image)
            shown = thumbnail(values[index][..., None].astype(np.float32))[..., 0]
            axes[row, column].imshow(shown, cmap="inferno", alpha=0.55, vmin=0, vmax=1, interpolation="bilinear")
    for row, label in enumerate(["image", *maps] * bands):
        axes[row, 0].set_ylabel(label, fontsize=7)
    return figure


def _caption(answer: Mapping[str, Any]) -> str:
    said = f"{class_label(answer['predicted'], NARROW)} {answer['confidence']:.0%}"
    if answer.get("file"):
        said = f"{class_label(Path(answer['file']).name)}:\n{said}"
    if answer["true"] not in (None, answer["predicted"]):
        said = f"{class_label(answer['true'], NARROW)}, said:\n{said}"
    return said if answer["asked"] == answer["predicted"] else f"{said}\nmap of {class_label(answer['asked'], NARROW)}"


def _grid(rows: int, columns: int, caption: float = 0.0) -> tuple[Figure, NDArray[Any]]:
    figure = Figure(figsize=(INCHES * columns + 0.3, (INCHES + caption) * rows + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in axes.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        cell.grid(visible=False)
        cell.spines[:].set_visible(False)
    return figure, axes


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    """Draws an image (H, W, C) of 1 to 4 channels; the second of two is transparency, as in PNG."""
    if image.shape[2] <= 2:
        image = np.concatenate([np.repeat(image[..., :1], 3, axis=2), image[..., 1:]], axis=2)
    axes.imshow(thumbnail(image), interpolation="nearest")


def thumbnail(image: NDArray[Any]) -> NDArray[Any]:
    """Returns every n-th pixel of an image (H, W, C), so that no side has more than SIDE: an SVG keeps each pixel."""
    step = -(-max(image.shape[:2]) // SIDE)
    return image[::step, ::step]
