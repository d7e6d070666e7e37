"""A picture of a network: one box a layer with its output shape and parameters, from the rows that the run folder keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

SHOWN = ("Conv2d", "MaxPool2d", "AdaptiveMaxPool2d", "AdaptiveAvgPool2d", "Linear")
"""Layers that get a box; norms and activations follow almost every convolution."""


def network_picture(input_shape: Sequence[int], layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns boxes from the image to the logits; a box is as tall as its map and as thick as the root of its channels.

    `layers` are rows with type, shape (C, H, W) or (K,), parameters.
    """
    boxes = [
        ("image", list(input_shape), 0),
        *((row["type"], row["shape"], row["parameters"]) for row in layers if row["type"] in SHOWN),
    ]
    tallest = max(shape[1] if len(shape) == 3 else 1 for _, shape, _ in boxes)
    figure = Figure(figsize=(max(7.2, 0.78 * len(boxes)), 3.0))
    axes = figure.subplots()
    for number, (kind, shape, parameters) in enumerate(boxes):
        height = 0.12 + 0.88 * (shape[1] / tallest if len(shape) == 3 else 0)
        width = 0.18 + 0.6 * min(1.0, (shape[0] / 512) ** 0.5)
        colour = {"Conv2d": "C0", "Linear": "C1", "image": "C6"}.get(kind, "C2")
        box = FancyBboxPatch(
            (number - width / 2, -height / 2), width, height, "round,pad=0,rounding_size=0.03", color=colour, alpha=0.85
        )
        axes.add_patch(box)
        axes.text(number, 0.56, " x ".join(map(str, shape)), ha="center", fontsize=6.5)
        axes.text(number, -0.6, _NAMES.get(kind, kind), ha="center", va="top", fontsize=6.5)
        axes.text(number, -0.7, f"{parameters:,}" if parameters else "", ha="center", va="top", fontsize=6.5)
    axes.set(xlim=(-0.7, len(boxes) - 0.3), ylim=(-0.82, 0.66), title="Network: output shape above, layer and parameters below")
    axes.set_axis_off()
    return figure


_NAMES = {
    "Conv2d": "conv",
    "MaxPool2d": "max pool",
    "AdaptiveMaxPool2d": "max pool",
    "AdaptiveAvgPool2d": "mean pool",
    "Linear": "linear",
}
