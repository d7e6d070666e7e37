"""A diagram of a network: its layers, blocks and skip connections, from the run folder's network.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from sprintnet.reporting.figures.style import StyledFigure, styled

LAYER_NAMES = {  # layers that have a box; of the others, norms and activations are a line behind the box before them
    "Conv2d": "conv",
    "MaxPool2d": "max pool",
    "GlobalMaxPool2d": "max pool",
    "AdaptiveAvgPool2d": "mean pool",
    "Linear": "linear",
    "InvertedResidual": "block",  # whose own layers have none
}
ACTIVATIONS = ("ReLU", "ReLU6", "SiLU", "GELU", "Hardswish", "LeakyReLU", "ELU", "Mish", "PReLU", "Sigmoid", "Tanh")
COLOURS = {"image": "C6", "conv": "C0", "linear": "C1", "block": "C0", "norm": "C3", "activation": "C4"}
SHAPE_Y, NAME_Y, PARAMETERS_Y, BLOCK_Y = 0.74, -0.6, -0.7, -0.86
"""Heights of the lines of text; boxes are within 0.5 of zero, skips between them and the shapes."""
SUM_X, BRANCH_X = 0.5, 0.58  # from a box to the sum, and to the branch, behind it


@styled
def network_diagram(network: Mapping[str, Any]) -> StyledFigure:
    """Returns boxes from the image to the logits, as high as the feature map and as wide as the root of the channels.

    Norms and activations are lines behind the box that they follow; a skip ends at the sum.

    `network` has input_shape (C, H, W); layers, rows with name, type, shape (C, H, W) or (K,), parameters; blocks, prefixes of
    layer names; skips, for each sum the prefixes of the layers that one term skips; activated, the layers that an activation
    without a row follows.
    """
    image = {"name": "", "type": "image", "shape": network["input_shape"], "parameters": 0}
    boxes = [image, *_boxes(network["layers"])]
    max_side = max(row["shape"][1] for row in boxes if len(row["shape"]) == 3)
    figure = StyledFigure(figsize=(max(7.2, 0.78 * len(boxes)), 3.1))
    axes = figure.subplots()
    axes.plot([0, len(boxes) - 1], [0, 0], color="C6", linewidth=0.9, zorder=0)
    behind = _behind(network, boxes)
    tops = []
    for number, row in enumerate(boxes):
        channels, *sides = row["shape"]
        height = 0.12 + 0.88 * (sides[0] / max_side if sides else 0)
        width = 0.16 + 0.5 * min(1.0, (channels / 512) ** 0.5)
        tops.append(height / 2)
        name = LAYER_NAMES.get(row["type"], row["type"])
        shape, colour = "round,pad=0,rounding_size=0.03", COLOURS.get(name, "C2")
        axes.add_patch(FancyBboxPatch((number - width / 2, -height / 2), width, height, shape, facecolor=colour, linewidth=0))
        for place, kind in enumerate(behind[number]):
            x, reach = number + width / 2 + 0.035 + 0.055 * place, max(height, 0.2) / 2
            axes.plot([x, x], [-reach, reach], color=COLOURS[kind], linewidth=2, solid_capstyle="butt")
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
        start, end, top = members[0] - 1 + BRANCH_X, members[-1] + SUM_X, max(tops[number] for number in members) + 0.1
        path = Path([(start, 0), (start, top), (end, top), (end, 0.04)])
        axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=7, color="C6", fill=False, linewidth=0.9))
        circle = {"boxstyle": "circle,pad=0.1", "linewidth": 0.7, "facecolor": figure.get_facecolor(), "edgecolor": "C6"}
        axes.text(end, 0, "+", ha="center", va="center", fontsize=7, bbox=circle)
    axes.set(xlim=(-0.7, len(boxes) - 0.3), ylim=(-1.0, 0.84), title="Network: output shape above, layer and parameters below")
    axes.set_axis_off()
    if kinds := sorted({kind for follower in behind for kind in follower}, reverse=True):
        lines = [Line2D([], [], color=COLOURS[kind], linewidth=2) for kind in kinds]
        axes.legend(
            lines, kinds, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, ncols=2, fontsize=6.5, handlelength=0.8
        )  # fmt: skip
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


def _behind(network: Mapping[str, Any], boxes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Returns the norms and activations that follow each box, in their order; those within a block have no line."""
    numbers = {row["name"]: number for number, row in enumerate(boxes)}
    blocks = tuple(f"{row['name']}." for row in boxes if LAYER_NAMES.get(row["type"]) == "block")
    followers: list[list[str]] = [[] for _ in boxes]
    box = 0
    for row in network["layers"]:
        box = numbers.get(row["name"], box)
        if row["name"].startswith(blocks):
            continue
        if "Norm" in row["type"] and "Conv" not in row["type"]:
            followers[box].append("norm")
        if row["type"] in ACTIVATIONS or row["name"] in network.get("activated", ()):
            followers[box].append("activation")
    return followers


def _members(boxes: Sequence[Mapping[str, Any]], prefixes: Sequence[str]) -> list[int]:
    """Returns the numbers of the boxes whose layer is in one of these parts of the network."""
    dotted = [(number, f"{row['name']}.") for number, row in enumerate(boxes) if row["name"]]
    parts = [f"{part}." for part in prefixes]
    return [number for number, name in dotted if any(name.startswith(part) or part.startswith(name) for part in parts)]
