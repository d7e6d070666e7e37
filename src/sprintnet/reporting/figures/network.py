"""A diagram of a network: its layers, blocks and skip connections, from the run folder's network.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sprintnet.reporting.figures.style import StyledFigure, styled

LAYER_NAMES = {  # layers that have a box; norms and activations, which follow almost every convolution, have none
    "Conv2d": "conv",
    "MaxPool2d": "max pool",
    "GlobalMaxPool2d": "max pool",
    "AdaptiveAvgPool2d": "mean pool",
    "Linear": "linear",
    "InvertedResidual": "block",  # whose own layers have none
}
COLOURS = {"image": "C6", "conv": "C0", "linear": "C1", "block": "C0"}
SHAPE_Y, NAME_Y, PARAMETERS_Y, BLOCK_Y = 0.74, -0.6, -0.7, -0.86
"""Heights of the lines of text; boxes are within 0.5 of zero, skips between them and the shapes."""


@styled
def network_diagram(network: Mapping[str, Any]) -> StyledFigure:
    """Returns boxes from the image to the logits, as high as the feature map and as wide as the root of the channels.

    `network` has input_shape (C, H, W); layers, rows with name, type, shape (C, H, W) or (K,), parameters; blocks, prefixes of
    layer names; skips, for each sum the prefixes of the layers that one term skips.
    """
    image = {"name": "", "type": "image", "shape": network["input_shape"], "parameters": 0}
    boxes = [image, *_boxes(network["layers"])]
    max_side = max(row["shape"][1] for row in boxes if len(row["shape"]) == 3)
    figure = StyledFigure(figsize=(max(7.2, 0.78 * len(boxes)), 3.1))
    axes = figure.subplots()
    tops = []
    for number, row in enumerate(boxes):
        channels, *sides = row["shape"]
        height = 0.12 + 0.88 * (sides[0] / max_side if sides else 0)
        width = 0.18 + 0.6 * min(1.0, (channels / 512) ** 0.5)
        tops.append(height / 2)
        name = LAYER_NAMES.get(row["type"], row["type"])
        shape, colour = "round,pad=0,rounding_size=0.03", COLOURS.get(name, "C2")
        axes.add_patch(FancyBboxPatch((number - width / 2, -height / 2), width, height, shape, color=colour, alpha=0.85))
        axes.text(number, SHAPE_Y, " x ".join(map(str, row["shape"])), ha="center", fontsize=6.5)
        axes.text(number, NAME_Y, name, ha="center", va="top", fontsize=6.5)
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        axes.text(number, PARAMETERS_Y, parameters, ha="center", va="top", fontsize=6.5)
    for block in network["blocks"]:
        members = _members(boxes, [block])
        left, right = members[0] - 0.4, members[-1] + 0.4
        heights = [BLOCK_Y + 0.03, BLOCK_Y, BLOCK_Y, BLOCK_Y + 0.03]
        axes.plot([left, left, right, right], heights, color="C6", linewidth=0.8)
        axes.text((left + right) / 2, BLOCK_Y - 0.03, block, ha="center", va="top", fontsize=6.5)
    for skipped in network["skips"]:
        members = _members(boxes, skipped)
        before, last = members[0] - 1, members[-1]
        ends = (before, tops[before] + 0.02), (last, tops[last] + 0.02)
        bow = "arc3,rad=-0.45" if last - before == 1 else "arc3,rad=-0.3"
        arrow = FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=8, connectionstyle=bow, color="C6", linewidth=0.9)
        axes.add_patch(arrow)
    axes.set(xlim=(-0.7, len(boxes) - 0.3), ylim=(-1.0, 0.84), title="Network: output shape above, layer and parameters below")
    axes.set_axis_off()
    return figure


def _boxes(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the rows that have a box; a block has the parameters of its layers, which have none."""
    blocks = [row["name"] for row in layers if LAYER_NAMES.get(row["type"]) == "block"]
    inner = {name: [row for row in layers if row["name"].startswith(f"{name}.")] for name in blocks}
    in_block = {row["name"] for rows in inner.values() for row in rows}
    return [
        {**row, "parameters": row["parameters"] + sum(part["parameters"] for part in inner.get(row["name"], ()))}
        for row in layers
        if row["type"] in LAYER_NAMES and row["name"] not in in_block
    ]


def _members(boxes: Sequence[Mapping[str, Any]], prefixes: Sequence[str]) -> list[int]:
    """Returns the numbers of the boxes whose layer is in one of these parts of the network."""
    dotted = [(number, f"{row['name']}.") for number, row in enumerate(boxes) if row["name"]]
    parts = [f"{part}." for part in prefixes]
    return [number for number, name in dotted if any(name.startswith(part) or part.startswith(name) for part in parts)]
