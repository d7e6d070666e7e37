"""The trained model as an ONNX graph that includes preprocessing: raw pixels in, probabilities out."""

import contextlib
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import onnx
import onnx_ir as ir
import torch
from onnx import helper
from torch import Tensor, nn

from sprintnet.data.preprocessing import View, smoothing_bounds
from sprintnet.deploy.export.resizing import resize_first
from sprintnet.deploy.predictor import DIGEST, NO_DIGEST, content_digest
from sprintnet.evaluation.predict import views_of
from sprintnet.evaluation.trained_model import TrainedModel

OPSET = 23
IMAGE_ITSELF = View(0, False, 1.0)


class InferenceModel(nn.Module):
    """uint8 pixels (N, C, H, W) of the network's input size -> the outputs of `predictor.OUTPUTS`, or some of them.

    With TTA in the preprocessing, logits are the weighted mean over views; the rest is of the image itself.
    Activation maps (N, K, h, w) are Grad-CAM of the last feature layer.
    """

    def __init__(self, trained: TrainedModel, outputs: Sequence[str]):
        super().__init__()
        self.network = trained.model
        tta = trained.preprocessing.tta
        self.views = trained.preprocessing.views(tta) if tta else (IMAGE_ITSELF,)
        self.outputs, self.activate = outputs, trained.task.activate
        self.label_smoothing, self.temperature = trained.preprocessing.label_smoothing, trained.preprocessing.temperature or 1.0
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (trained.preprocessing.normalisation.mean, trained.preprocessing.normalisation.std)
        )
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs in the order of `outputs`."""
        images = views_of(pixels.float() * self.get_buffer("scale") + self.get_buffer("offset"), self.views)
        # one view after the other: the exporter would fix the size of a joined batch
        maps = [self.network.features(image) for image in images]
        embeddings = [self.network.embed(found) for found in maps]
        of_views = [self.network.classify(found) for found in embeddings]
        logits = of_views[0]
        if len(of_views) > 1:
            logits = torch.stack([view.weight * each for view, each in zip(self.views, of_views, strict=True)]).sum(0)
        found = {
            "probabilities": self.activate(self.unsmoothed(logits) / self.temperature),
            "logits": logits,
            "embeddings": embeddings[0],
            "novelty": self.network.novelty(embeddings[0]),
            "activation_maps": self.network.activation_maps(maps[0]),
        }
        return tuple(found[name] for name in self.outputs)

    def unsmoothed(self, logits: Tensor) -> Tensor:
        """Returns logits with label smoothing undone, as `Preprocessing.unsmoothed` does."""
        if not (alpha := self.label_smoothing):
            return logits
        floor, lowest = smoothing_bounds(alpha, logits.shape[1])
        sharpened = lowest + logits.softmax(1) / (1 - alpha)
        return sharpened.clamp(min=floor).log() + (sharpened - floor).clamp(max=0) * (math.log(2) / (floor - lowest))


def build_graph(trained: TrainedModel, outputs: Sequence[str]) -> onnx.ModelProto:
    """Returns an ONNX model (fp32): images uint8 (N, H, W, C) of any size -> outputs."""
    inference = InferenceModel(trained, outputs).eval()
    height, width, channels = trained.preprocessing.image_shape
    logger = logging.getLogger("torch.onnx")
    # the exporter warns about itself: its own deprecations, missing torchvision
    with warnings.catch_warnings(action="ignore"), contextlib.ExitStack() as stack:
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        program = torch.onnx.export(
            inference, (torch.zeros(2, channels, height, width, dtype=torch.uint8),),
            input_names=["pixels"], output_names=list(outputs), dynamic_shapes={"pixels": {0: torch.export.Dim("N")}},
            dynamo=True, external_data=False, opset_version=OPSET, verbose=False, optimize=False,
        )  # fmt: skip
        assert program is not None
        _move_norms_before_pools(program.model.graph)
        program.optimize()
    model = program.model_proto
    resize_first(model.graph, trained.preprocessing.image_shape, trained.preprocessing.resize)
    _remove_source_notes(model)
    return model


def add_metadata(model: onnx.ModelProto, facts: Mapping[str, str]) -> None:
    """Adds facts to the model's metadata."""
    helper.set_model_props(model, {**{entry.key: entry.value for entry in model.metadata_props}, **facts})


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Returns the content of a file, with a SHA-256 of itself in its metadata (`predictor.content_digest`)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    add_metadata(copy, {DIGEST: NO_DIGEST})
    content: bytes = copy.SerializeToString()
    return content.replace(NO_DIGEST.encode(), content_digest(content, NO_DIGEST).encode())


def _move_norms_before_pools(graph: ir.Graph) -> None:
    """Moves a batch norm before the max-pool that it follows, where the optimizer folds it into the convolution. Maxima
    commute with a shift and a scale of at least 0."""
    for norm in [node for node in graph if node.op_type == "BatchNormalization"]:
        pooled, scale, *_ = cast("tuple[Any, ...]", norm.inputs)  # inputs of other operators may be None
        pool = pooled.producer()
        if pool is None or pool.op_type != "MaxPool" or len(pooled.uses()) > 1 or (scale.const_value.numpy() < 0).any():
            continue
        norm.outputs[0].replace_all_uses_with(pooled)
        norm.replace_input_with(0, pool.inputs[0])
        norm.outputs[0].shape = pool.inputs[0].shape
        pool.replace_input_with(0, norm.outputs[0])
        graph.remove(norm)
        graph.insert_before(pool, norm)


def _remove_source_notes(model: onnx.ModelProto) -> None:
    """Removes the exporter's notes, which include lines of code and local paths."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
