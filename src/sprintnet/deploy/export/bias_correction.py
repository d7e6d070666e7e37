"""Bias correction: the mean error of rounded weights is taken from the biases (Nagel et al. 2019, arXiv:1906.04721)."""

from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession

from sprintnet.data.dataset import Images

Array = npt.NDArray[np.float32]

LEVELS = 64  # of either sign that a weight of 7 bits has, as ONNX Runtime quantises with reduce_range


def correct_biases(model: onnx.ModelProto, batches: Iterable[Images], excluded: Collection[str]) -> onnx.ModelProto:
    """Returns the model with biases that make up for the rounding of weights to 7 bits, on the mean over images.

    `excluded` convolutions keep theirs. Those that share their weights, such as those of several views, share the bias too.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    nodes = [node for node in copy.graph.node if node.op_type == "Conv" and node.name not in excluded]
    means = _channel_means(copy, [node.input[0] for node in nodes], batches)
    sharing: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    for node in nodes:
        sharing.setdefault((node.input[1], "".join(node.input[2:])), []).append(node)
    for (weight, bias), convolutions in sharing.items():
        error = _rounding_error(numpy_helper.to_array(stored[weight])).sum((2, 3))  # (outputs, inputs of a group)
        mean = np.mean([means[node.input[0]] for node in convolutions], axis=0).reshape(-1, 1, error.shape[1])  # by group
        shift = (error.reshape(len(mean), -1, error.shape[1]) * mean).sum(2).ravel()
        corrected = (numpy_helper.to_array(stored[bias]) if bias else 0) - shift
        copy.graph.initializer.append(numpy_helper.from_array(corrected.astype(np.float32), f"{weight}_corrected_bias"))
        for node in convolutions:
            del node.input[2:]
            node.input.append(f"{weight}_corrected_bias")
    used = {name for node in copy.graph.node for name in node.input}
    for tensor in stored.values():
        if tensor.name not in used:
            copy.graph.initializer.remove(tensor)
    return copy


def _rounding_error(weights: Array) -> Array:
    """Returns rounded weights (outputs, inputs, h, w) less the weights, with one scale for each output."""
    scale = np.abs(weights).max((1, 2, 3), keepdims=True) / LEVELS
    scale[scale == 0] = 1
    return np.asarray(np.rint(weights / scale) * scale - weights, np.float32)


def _channel_means(model: onnx.ModelProto, tensors: list[str], batches: Iterable[Images]) -> dict[str, Array]:
    """Returns the mean of each channel of tensors (N, C, h, w) over images."""
    names = list(dict.fromkeys(tensors))
    if not names:
        return {}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "bias_correction_axes"))
    for number, name in enumerate(names):
        node = helper.make_node("ReduceMean", [name, "bias_correction_axes"], [f"bias_correction_{number}"], keepdims=0)
        watched.graph.node.append(node)
        watched.graph.output.append(helper.make_empty_tensor_value_info(f"bias_correction_{number}"))
    session = InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [f"bias_correction_{number}" for number in range(len(names))]
    sums, images = [np.zeros(1, np.float32)] * len(names), 0
    for batch in batches:
        sums = [total + len(batch) * mean for total, mean in zip(sums, session.run(wanted, {"images": batch}), strict=True)]
        images += len(batch)
    return {name: np.asarray(total / images, np.float32) for name, total in zip(names, sums, strict=True)}
