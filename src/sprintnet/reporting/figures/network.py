"""A picture of a network: a box a layer, its blocks, and what passes by them, from the table that the run folder keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

LAYER_NAMES = {
    "Conv2d": "conv",
    "MaxPool2d": "max pool",
    "AdaptiveMaxPool2d": "max pool",
    "AdaptiveAvgPool2d": "mean pool",
    "Linear": "linear",
}
"""What a layer's box is called; norms and activations, which follow almost every convolution, have none."""
COLOURS = {"image": "C6", "conv": "C0", "linear": "C1"}
SHAPES, NAMES, COUNTS, BLOCKS = 0.74, -0.6, -0.7, -0.86
"""At which height each line of text stands; boxes are within 0.5 of zero, skips between them and the shapes."""


def network_picture(network: Mapping[str, Any]) -> Figure:
    """Returns boxes from the image to the logits; a box is as tall as its map and as thick as the root of its channels.

    `network` has input_shape (C, H, W); layers, rows with name, type, shape (C, H, W) or (K,), parameters; blocks, starts of
    their names; and skips, for each sum the beginnings of the names that one of its terms passes by.
    """
    layers = [row for row in network["layers"] if row["type"] in LAYER_NAMES]
    image = {"name": "", "type": "image", "shape": network["input_shape"], "parameters": 0}
    boxes = [image, *layers]
    tallest = max(row["shape"][1] for row in boxes if len(row["shape"]) == 3)
    figure = Figure(figsize=(max(7.2, 0.78 * len(boxes)), 3.1))
    axes = figure.subplots()
    tops = []
    for number, row in enumerate(boxes):
        channels, *sides = row["shape"]
        height = 0.12 + 0.88 * (sides[0] / tallest if sides else 0)
        width = 0.18 + 0.6 * min(1.0, (channels / 512) ** 0.5)
        tops.append(height / 2)
        name = LAYER_NAMES.get(row["type"], row["type"])
        style = "round,pad=0,rounding_size=0.03"
        colour = COLOURS.get(name, "C2")
        axes.add_patch(FancyBboxPatch((number - width / 2, -height / 2), width, height, style, color=colour, alpha=0.85))
        axes.text(number, SHAPES, " x ".join(map(str, row["shape"])), ha="center", fontsize=6.5)
        axes.text(number, NAMES, name, ha="center", va="top", fontsize=6.5)
        axes.text(number, COUNTS, f"{row['parameters']:,}" if row["parameters"] else "", ha="center", va="top", fontsize=6.5)
    for block in network["blocks"]:
        _bracket(axes, _inside(boxes, [block]), block)
    for layers_passed_by in network["skips"]:
        _arrow(axes, _inside(boxes, layers_passed_by), tops)
    axes.set(xlim=(-0.7, len(boxes) - 0.3), ylim=(-1.0, 0.84), title="Network: output shape above, layer and parameters below")
    axes.set_axis_off()
    return figure


def _bracket(axes: Axes, members: list[int], label: str) -> None:
    left, right = members[0] - 0.4, members[-1] + 0.4
    axes.plot([left, left, right, right], [BLOCKS + 0.03, BLOCKS, BLOCKS, BLOCKS + 0.03], color="C6", linewidth=0.8)
    axes.text((left + right) / 2, BLOCKS - 0.03, label, ha="center", va="top", fontsize=6.5)


def _arrow(axes: Axes, members: list[int], tops: list[float]) -> None:
    """Draws the way of what is added: from the box before these to the last of them, above all."""
    before, last = members[0] - 1, members[-1]
    ends = ((before, tops[before] + 0.02), (last, tops[last] + 0.02))
    bow = "arc3,rad=-0.45" if last - before == 1 else "arc3,rad=-0.3"
    axes.add_patch(FancyArrowPatch(*ends, connectionstyle=bow, arrowstyle="-|>", mutation_scale=8, color="C6", linewidth=0.9))


def _inside(boxes: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> list[int]:
    """Returns the numbers of the boxes that belong to one of these parts of the network."""
    return [number for number, row in enumerate(boxes) if any(f"{row['name']}.".startswith(f"{part}.") for part in parts)]
