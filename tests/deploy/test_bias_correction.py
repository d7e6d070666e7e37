"""Biases that make up for rounded weights: exact for images of one colour, on the mean for others."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from sprintnet.deploy.export.bias_correction import correct_biases

GENERATOR = np.random.default_rng(0)
CHANNELS, OUTPUTS = 4, 6


def convolution(groups: int, weights: np.ndarray, nodes: int = 1, *, has_bias: bool = True) -> onnx.ModelProto:
    """Images float (N, 4, H, W) -> the sum of `nodes` convolutions that share weights, the later ones of doubled images."""
    stored = [
        numpy_helper.from_array(weights, "weight"),
        numpy_helper.from_array(np.zeros(OUTPUTS, np.float32), "bias"),
        numpy_helper.from_array(np.float32(2), "two"),
    ]
    parameters = ["weight", "bias"] if has_bias else ["weight"]
    steps = [helper.make_node("Conv", ["images", *parameters], ["conv0"], name="conv0", group=groups)]
    if nodes > 1:
        steps.append(helper.make_node("Mul", ["images", "two"], ["doubled"], name="mul"))
        steps.append(helper.make_node("Conv", ["doubled", *parameters], ["conv1"], name="conv1", group=groups))
    steps.append(helper.make_node("Sum", [f"conv{number}" for number in range(nodes)], ["sum"], name="sum"))
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", CHANNELS, "H", "W"])
    result = helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(steps, "graph", [images], [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    found: np.ndarray = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})[0]
    return found


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with its weights rounded to 64 levels of either sign, by output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == "weight":
            weights = numpy_helper.to_array(tensor)
            scale = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 64
            tensor.CopyFrom(numpy_helper.from_array(np.rint(weights / scale) * scale, "weight"))
    return copy


def weights(groups: int) -> np.ndarray:
    return GENERATOR.normal(size=(OUTPUTS, CHANNELS // groups, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("has_bias", [True, False])
def test_images_of_one_colour_give_exactly_what_unrounded_weights_give(groups: int, nodes: int, has_bias: bool) -> None:
    model = convolution(groups, weights(groups), nodes, has_bias=has_bias)
    colour = GENERATOR.uniform(1, 2, size=CHANNELS).astype(np.float32)
    images = np.broadcast_to(colour[None, :, None, None], (2, CHANNELS, 5, 7)).copy()
    expected = run(model, images)
    assert np.abs(run(rounded(model), images) - expected).max() > 0.01
    corrected = correct_biases(model, [images[:1], images[1:]], ())
    np.testing.assert_allclose(run(rounded(corrected), images), expected, atol=1e-4)
    assert {tensor.name for tensor in corrected.graph.initializer} <= {"weight", "weight_corrected_bias", "two"}
    assert model.graph.initializer[1].name == "bias"  # the model that was given is as before


def test_the_mean_over_images_and_places_is_kept_and_batches_count_by_their_images() -> None:
    model = convolution(1, weights(1))
    images = GENERATOR.uniform(0, 1, size=(7, CHANNELS, 64, 64)).astype(np.float32)
    corrected = rounded(correct_biases(model, [images[:6], images[6:]], ()))
    before, after = (np.abs((run(each, images) - run(model, images)).mean((0, 2, 3))) for each in (rounded(model), corrected))
    assert after.max() < before.max() / 10


def test_excluded_convolutions_keep_their_bias() -> None:
    model = convolution(1, weights(1))
    images = np.ones((1, CHANNELS, 4, 4), np.float32)
    kept = correct_biases(model, [images], {"conv0"})
    assert list(kept.graph.node) == list(model.graph.node)
