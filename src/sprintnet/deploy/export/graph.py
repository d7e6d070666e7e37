"""The trained model as an ONNX graph that includes preprocessing: raw pixels in, probabilities out."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.deploy.export.resizing import resize_first
from sprintnet.evaluation.trained_model import TrainedModel

OPSET = 23


class InferenceModel(nn.Module):
    """uint8 pixels (N, C, H, W) of the network's input size -> probabilities, logits and activation maps, or some of them.

    Activation maps (N, K, h, w) are Grad-CAM of the last feature layer in closed form: through max-pool and linear, the
    gradient of a class's logit averaged over the feature map is the class's weight divided by the map's area.
    """

    def __init__(self, trained: TrainedModel, outputs: Sequence[str]):
        super().__init__()
        self.network = trained.model
        self.outputs, self.activate = outputs, trained.task.activate
        self.temperature = trained.preprocessing.temperature or 1.0
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (trained.preprocessing.normalisation.mean, trained.preprocessing.normalisation.std)
        )
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs in the order of `outputs`."""
        features = self.network.features(pixels.float() * self.scale + self.offset)  # type: ignore[operator]
        logits = self.network.classify(features)  # type: ignore[operator]
        weights = self.network.get_parameter("linear.weight") * (self.network.logit_scale / features[0, 0].numel())
        found = {
            "probabilities": self.activate(logits / self.temperature),
            "logits": logits,
            "activation_maps": F.relu(F.conv2d(features, weights[:, :, None, None])),
        }
        return tuple(found[name] for name in self.outputs)


def build_graph(trained: TrainedModel, outputs: Sequence[str]) -> onnx.ModelProto:
    """Returns a checked ONNX model (fp32): images uint8 (N, H, W, C) of any size -> outputs."""
    inference = InferenceModel(trained, outputs).eval()
    height, width, channels = trained.preprocessing.image_shape
    with _quiet():
        program = torch.onnx.export(
            inference,
            (torch.zeros(2, channels, height, width, dtype=torch.uint8),),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=list(outputs),
            dynamic_shapes={"pixels": {0: torch.export.Dim("N")}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _fold_norms(model.graph)
    resize_first(model.graph, trained.preprocessing.image_shape, trained.preprocessing.resize)
    _remove_source_notes(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def add_metadata(model: onnx.ModelProto, facts: Mapping[str, str]) -> None:
    """Adds facts to the model's metadata."""
    helper.set_model_props(model, {**{entry.key: entry.value for entry in model.metadata_props}, **facts})


def _fold_norms(graph: onnx.GraphProto) -> None:
    """Folds a batch norm after convolution and max-pool into the convolution's weights, unless a scale is negative.

    Maxima commute with a positive scale and a shift. ONNX Runtime folds a norm only directly after a convolution.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    uses = [name for node in graph.node for name in node.input]
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        pool = producers.get(norm.input[0])
        if pool is None or pool.op_type != "MaxPool" or uses.count(norm.input[0]) > 1 or uses.count(pool.input[0]) > 1:
            continue
        convolution = producers.get(pool.input[0])
        if convolution is None or convolution.op_type != "Conv":
            continue
        gamma, beta, mean, variance = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in norm.input[1:])
        epsilon = next(entry.f for entry in norm.attribute if entry.name == "epsilon")
        scale = gamma / np.sqrt(variance + epsilon)
        if (scale < 0).any():
            continue
        weight, *bias = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in convolution.input[1:])
        shift = (bias[0] if bias else 0) * scale + beta - mean * scale
        folded = {f"{norm.name}.weight": weight * scale[:, None, None, None], f"{norm.name}.bias": shift}
        graph.initializer.extend(numpy_helper.from_array(array.astype(np.float32), name) for name, array in folded.items())
        convolution.input[1:] = list(folded)
        pool.output[0] = norm.output[0]
        graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _remove_source_notes(model: onnx.ModelProto) -> None:
    """Removes the exporter's notes, which include lines of code and local paths."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's warnings about itself (its own deprecations, missing torchvision)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
