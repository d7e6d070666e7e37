"""The resize policies of `images.resize_image` as ONNX operators."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

RESIZE_DESCRIPTIONS = {
    "stretch": "stretched to the input size (bilinear, antialiased, as in Pillow)",
    "letterbox": "resized to fit into the input size (bilinear, antialiased, as in Pillow), padded with black",
    "crop": "center-cropped to the input's aspect ratio, then resized (bilinear, antialiased, as in Pillow)",
}

Operation = tuple[str, list[str], str, dict[str, Any]]


def _resized(source: str, size: str, result: str) -> list[Operation]:
    return [
        ("Concat", ["images_and_channels", size], f"{result}_shape", {"axis": 0}),
        ("Resize", [source, "", "", f"{result}_shape"], result, {"mode": "linear", "antialias": 1, "exclude_outside": 1}),
    ]


def _largest(one: str, other: str, swapped: str, within: str) -> list[Operation]:
    """Returns the operators for `inner`, the largest size with one aspect ratio within another: one * other // swapped."""
    return [
        ("Shape", ["channels_first"], "given", {"start": 2, "end": 4}),
        ("Gather", ["given", "swap"], "swapped_given", {}),
        ("Mul", [one, other], "product", {}),
        ("Div", ["product", swapped], "quotient", {}),
        ("Max", ["quotient", "one"], "positive", {}),
        ("Min", ["positive", within], "inner", {}),
    ]


RESIZE_STEPS: dict[str, list[Operation]] = {
    "stretch": _resized("channels_first", "size", "pixels"),
    "crop": [
        *_largest("swapped_given", "size", "swapped_size", "given"),
        ("Sub", ["given", "inner"], "beside", {}),
        ("Div", ["beside", "two"], "before", {}),
        ("Add", ["before", "inner"], "end", {}),
        ("Slice", ["channels_first", "before", "end", "spatial"], "middle", {}),
        *_resized("middle", "size", "pixels"),
    ],
    "letterbox": [
        *_largest("given", "swapped_size", "swapped_given", "size"),
        *_resized("channels_first", "inner", "fitted"),
        ("Sub", ["size", "inner"], "beside", {}),
        ("Div", ["beside", "two"], "before", {}),
        ("Sub", ["beside", "before"], "after", {}),
        ("Concat", ["none", "before", "none", "after"], "pads", {"axis": 0}),
        ("Pad", ["fitted", "pads"], "pixels", {}),
    ],
}
"""The operators of each policy of `data.resize`, from `channels_first` to `pixels`."""


def resize_first(graph: onnx.GraphProto, image_shape: tuple[int, int, int], policy: str) -> None:
    """Inserts operators before the graph: images (N, H, W, C) -> its input pixels (N, C, height, width)."""
    height, width, channels = image_shape
    constants = {
        "size": [height, width],
        "swapped_size": [width, height],
        "swap": [1, 0],
        "one": [1],
        "two": [2],
        "none": [0, 0],
        "spatial": [2, 3],
    }
    steps: list[Operation] = [
        ("Transpose", ["images"], "channels_first", {"perm": [0, 3, 1, 2]}),
        ("Shape", ["channels_first"], "images_and_channels", {"start": 0, "end": 2}),
        *RESIZE_STEPS[policy],
    ]
    nodes = [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in steps]
    used = {name for node in nodes for name in node.input}
    arrays = [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in constants.items() if name in used]
    rest = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.initializer.extend(arrays)
    graph.node.extend([*nodes, *rest])
    graph.input.append(helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", "H", "W", channels]))
