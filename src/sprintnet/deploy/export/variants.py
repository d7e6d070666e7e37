"""Reduced-precision variants of an exported model: int8 and fp16."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from sprintnet.data.dataset import ImageDataset, Images, images_at_a_time
from sprintnet.deploy.export.bias_correction import correct_biases

CALIBRATION_IMAGES = 500
CALIBRATION_BATCH = 100  # images at a time, at most
QUANTIZED_OPERATORS = ["Conv", "MaxPool", "Sigmoid", "Mul", "Add", "Relu", "Clip"]
POOLS = ("MaxPool", "ReduceMean")
FP32_OPERATORS = ["Resize", "Cast"]


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with its features, weights and arithmetic, in fp16; what follows the last pooling stays in fp32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inside = _before_pools(model.graph)
    head = [node.name for node in model.graph.node if node.name not in inside]
    settings = {"keep_io_types": True, "op_block_list": FP32_OPERATORS, "node_block_list": head}
    proto = convert_float_to_float16(copy, **settings)
    del proto.graph.value_info[:]  # of which some have the types of before
    converted = ir.from_proto(proto)
    converted.graph.sort()  # the conversion appends its casts; nodes must follow what they read
    return cast("onnx.ModelProto", ir.to_proto(converted))


def to_int8(model: onnx.ModelProto, training_images: ImageDataset) -> onnx.ModelProto:
    """Returns the model with int8 convolutions: static QDQ quantisation per channel, calibrated on training images.

    Weights have 7 bits (`reduce_range`): on x86 processors without VNNI, sums of products of 8 bits saturate at 16. Biases make
    up for their rounding.
    """
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()):
        given, prepared, quantized = (Path(work) / name for name in ("given.onnx", "prepared.onnx", "quantized.onnx"))
        images, outside = _calibration_images(training_images), _outside_features(model.graph)
        onnx.save(correct_biases(model, _batches(images), outside), given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True, skip_optimization=True)
        quantize_static(
            prepared, quantized, _Calibration(images),
            quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            reduce_range=True,
            op_types_to_quantize=QUANTIZED_OPERATORS, nodes_to_exclude=outside,
        )  # fmt: skip
        return onnx.load(quantized)


def _calibration_images(images: ImageDataset) -> Images:
    """Returns images at equal distances through the set: an image folder is sorted by class."""
    count = min(CALIBRATION_IMAGES, len(images))
    return images.take(np.linspace(0, len(images) - 1, count).astype(np.int64)).images


def _outside_features(graph: onnx.GraphProto) -> list[str]:
    """Returns the nodes before the first convolution (preprocessing) and after the last pooling (outputs), of every view."""
    convolved: set[str] = set()  # tensors that follow a convolution
    for node in graph.node:
        if node.op_type == "Conv" or convolved & set(node.input):
            convolved |= set(node.output)
    inside = _before_pools(graph)
    return [node.name for node in graph.node if node.name not in inside or not convolved & set(node.output)]


def _before_pools(graph: onnx.GraphProto) -> set[str]:
    """Returns the names of the poolings and of all nodes that lead to one."""
    wanted: set[str] = set()  # tensors
    names = set()
    for node in reversed(graph.node):
        if node.op_type in POOLS or wanted & set(node.output):
            wanted |= set(node.input)
            names.add(node.name)
    return names


def _batches(images: Images) -> Iterator[Images]:
    size = images_at_a_time(CALIBRATION_BATCH, images.shape[1:])
    return (images[start : start + size] for start in range(0, len(images), size))


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Images):
        self._batches = _batches(images)

    def get_next(self) -> dict[str, Images] | None:
        return next(({"images": batch} for batch in self._batches), None)
