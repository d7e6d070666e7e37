"""Exported files resize images as training did."""

from typing import get_args, get_type_hints

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

from sprintnet.data.images import PIL_MODES, center_crop_box, letterbox_size, resize_image
from sprintnet.data.settings import DataSettings
from sprintnet.deploy.export.resizing import RESIZE_DESCRIPTIONS, RESIZE_STEPS, resize_first

POLICIES = get_args(get_type_hints(DataSettings)["resize"])


def test_every_policy_is_known_to_files() -> None:
    assert set(RESIZE_DESCRIPTIONS) == set(RESIZE_STEPS) == set(POLICIES)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 30, 1), (16, 16, 4)])
def test_pixels_are_those_of_training(policy: str, shape: tuple[int, int, int]) -> None:
    pixels = helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["N", shape[2], *shape[:2]])
    resized = helper.make_tensor_value_info("same", onnx.TensorProto.UINT8, ["N", shape[2], *shape[:2]])
    graph = helper.make_graph([helper.make_node("Identity", ["pixels"], ["same"])], "g", [pixels], [resized])
    resize_first(graph, shape, policy)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for height, width in [(32, 32), (20, 30), (47, 91), (300, 7), (1, 1), (5, 64), (128, 128)]:
        smooth = Image.fromarray(generator.integers(0, 256, (5, 6, shape[2]), np.uint8).squeeze(), PIL_MODES[shape[2]])
        given = np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, shape[2])
        image = Image.fromarray(given.squeeze(2) if shape[2] == 1 else given, PIL_MODES[shape[2]])
        wanted = np.asarray(resize_image(image, shape[:2], policy)).reshape(shape).astype(int)
        found = session.run(None, {"images": given[None]})[0][0].transpose(1, 2, 0)
        assert np.abs(wanted - found).max() <= 2, (policy, height, width)  # each rounds its two passes in its own way


def test_boxes_have_the_proportions_asked_for() -> None:
    assert center_crop_box((100, 200), (32, 32)) == (50, 0, 150, 100)
    assert center_crop_box((100, 200), (10, 40)) == (0, 25, 200, 75)
    assert letterbox_size((100, 200), (32, 32)) == (16, 32)
    assert letterbox_size((1000, 1), (32, 32)) == (32, 1)
    assert letterbox_size((24, 48), (32, 32)) == (16, 32)
