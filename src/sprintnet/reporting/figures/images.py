"""Figures of images: augmentation, wrong predictions, Grad-CAM."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sprintnet.reporting.figures.predictions import class_label
from sprintnet.reporting.figures.style import StyledFigure, styled

IMAGES_PER_ROW = 8
IMAGE_INCHES = 0.98
MAX_CAPTION_NAME = 13  # characters of a class name in the caption of an image
MAX_THUMBNAIL_SIDE = 96


@styled
def examples(images: NDArray[np.uint8], names: Sequence[str]) -> StyledFigure:
    """Returns images (N, H, W, C), each headed by its class."""
    rows = -(-len(images) // (IMAGES_PER_ROW + 2))
    figure, axes = _grid(rows, -(-len(images) // rows), caption=0.14)
    for cell, image, name in zip(axes.flat, images, names, strict=False):
        _show(cell, image)
        cell.set_title(class_label(name, MAX_CAPTION_NAME), fontsize=7, loc="center", fontweight="normal")
    return figure


@styled
def augmented(originals: NDArray[np.uint8], variants: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> StyledFigure:
    """Returns a column for each image (N, H, W, C), headed by its class: the original above its variants."""
    rows = {"original": originals} | {f"variant {number}": images for number, images in enumerate(variants, 1)}
    figure, axes = _grid(len(rows), len(originals))
    for row, (label, images) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(label, fontsize=7)
        for cell, image in zip(row, images, strict=True):
            _show(cell, image)
    for cell, name in zip(axes[0], names, strict=True):
        cell.set_title(class_label(name), fontsize=7, loc="center", fontweight="normal")
    return figure


@styled
def near_duplicates(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8], str]]) -> StyledFigure:
    """Returns pairs of images (H, W, C) side by side, each pair with its caption of two lines."""
    columns = min(2 * (IMAGES_PER_ROW // 2), 2 * len(pairs))
    figure, axes = _grid(-(-2 * len(pairs) // columns), columns, caption=0.26)
    for cells, (*images, caption) in zip(axes.reshape(-1, 2), pairs, strict=False):
        for cell, image, line in zip(cells, images, caption.split("\n"), strict=True):
            _show(cell, image)
            cell.set_xlabel(class_label(line, MAX_CAPTION_NAME), fontsize=6)
    return figure


@styled
def prediction_errors(images: NDArray[np.uint8], rows: Sequence[Mapping[str, Any]]) -> StyledFigure:
    """Returns images (N, H, W, C) with their true class, predicted class and confidence (rows of predictions.csv)."""
    figure, axes = _grid(-(-len(images) // IMAGES_PER_ROW), min(IMAGES_PER_ROW, len(images)), caption=0.3)
    for cell, image, row in zip(axes.flat, images, rows, strict=False):
        _show(cell, image)
        cell.set_xlabel(_caption(row["predicted"], float(row["confidence"]), row["true"]), fontsize=6)
    return figure


@styled
def grad_cam(
    images: NDArray[np.uint8], maps: Mapping[str, NDArray[Any]], predictions: Sequence[Mapping[str, Any]]
) -> StyledFigure:
    """Returns images (N, H, W, C) headed by their predictions, above overlays of each map (name -> (N, H, W) in 0..1).

    `predictions` are those of `evaluation.explain.Explanation`.
    """
    columns, bands = min(IMAGES_PER_ROW, len(images)), -(-len(images) // IMAGES_PER_ROW)
    figure, axes = _grid(bands * (1 + len(maps)), columns, caption=0.14)
    for index, (image, prediction) in enumerate(zip(images, predictions, strict=True)):
        band, column = divmod(index, columns)
        top = band * (1 + len(maps))
        _show(axes[top, column], image)
        axes[top, column].set_title(_caption(**prediction), fontsize=6.5, loc="center", fontweight="normal")
        for row, values in enumerate(maps.values(), top + 1):
            _show(axes[row, column], image)
            overlay = thumbnail(values[index][..., None].astype(np.float32))[..., 0]
            axes[row, column].imshow(overlay, cmap="inferno", alpha=0.55, vmin=0, vmax=1, interpolation="bilinear")
    for row, label in enumerate(["image", *maps] * bands):
        axes[row, 0].set_ylabel(label, fontsize=7)
    return figure


def thumbnail(image: NDArray[Any]) -> NDArray[Any]:
    """Returns every n-th pixel of an image (H, W, C), at most MAX_THUMBNAIL_SIDE a side: an SVG keeps each pixel."""
    step = -(-max(image.shape[:2]) // MAX_THUMBNAIL_SIDE)
    return image[::step, ::step]


def _caption(predicted: str, confidence: float, true: str | None, target: str | None = None, file: str | None = None) -> str:
    """Returns the lines: file:, true class →, predicted class with confidence, map of the target."""
    lines = [f"{class_label(Path(file).name)}:"] if file else []
    lines += [f"{class_label(true, MAX_CAPTION_NAME)} →"] if true not in (None, predicted) else []
    lines += [f"{class_label(predicted, MAX_CAPTION_NAME)} {confidence:.0%}"]
    lines += [f"map of {class_label(target, MAX_CAPTION_NAME)}"] if target not in (None, predicted) else []
    return "\n".join(lines)


def _grid(rows: int, columns: int, caption: float = 0.0) -> tuple[StyledFigure, NDArray[Any]]:
    figure = StyledFigure(figsize=(IMAGE_INCHES * columns + 0.3, (IMAGE_INCHES + caption) * rows + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in axes.flat:
        cell.set(xticks=[], yticks=[])
        cell.grid(visible=False)
        cell.spines[:].set_visible(False)
    return figure, axes


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    """Draws an image (H, W, C) of 1 to 4 channels; the second of two is transparency, as in PNG."""
    if image.shape[2] <= 2:
        image = np.concatenate([np.repeat(image[..., :1], 3, axis=2), image[..., 1:]], axis=2)
    axes.imshow(thumbnail(image), interpolation="nearest")
