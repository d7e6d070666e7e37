"""Figures of images and of the network: every image, map, name and number is in its place."""

import numpy as np
import pytest

from sprintnet.reporting.figures.images import MAX_THUMBNAIL_SIDE, augmented, grad_cam, prediction_errors, thumbnail
from sprintnet.reporting.figures.network import network_diagram

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)


def test_originals_stand_over_their_variants_under_their_class() -> None:
    variants = [255 - IMAGES[:3], IMAGES[:3] // 2]
    axes = np.array(augmented(IMAGES[:3], variants, ("cat", "dog", "$x$")).axes).reshape(3, 3)
    for row, images in zip(axes, [IMAGES[:3], *variants], strict=True):
        for cell, image in zip(row, images, strict=True):
            assert np.array_equal(cell.get_images()[0].get_array(), image)
    assert [cell.get_title(loc="center") for cell in axes[0]] == ["cat", "dog", r"\$x\$"]
    assert [row[0].get_ylabel() for row in axes] == ["original", "variant 1", "variant 2"]


def test_wrong_predictions_have_true_class_predicted_class_and_confidence() -> None:
    rows = [{"true": "cat", "predicted": "dog", "confidence": "0.914"} for _ in IMAGES]
    axes = prediction_errors(IMAGES, rows).axes
    assert len(axes) == 16  # two rows of eight, the last six empty
    assert axes[9].get_xlabel() == "cat →\ndog 91%"
    assert np.array_equal(axes[9].get_images()[0].get_array(), IMAGES[9])
    assert not axes[10].get_images()


def test_maps_lie_under_their_image_eight_to_a_row() -> None:
    predictions = [{"true": "cat", "predicted": "dog", "confidence": 0.5, "target": "dog", "file": None}] * 9
    predictions.append({"true": None, "predicted": "dog", "confidence": 0.75, "target": "cat"})
    maps = {name: np.random.default_rng(seed).random((10, 8, 8)) for seed, name in enumerate(("last", "mean"))}
    axes = np.array(grad_cam(IMAGES, maps, predictions).axes).reshape(6, 8)
    assert [row[0].get_ylabel() for row in axes] == ["image", "last", "mean"] * 2
    assert axes[3, 1].get_title(loc="center") == "dog 75%\nmap of cat"
    assert axes[0, 0].get_title(loc="center") == "cat →\ndog 50%"
    for row, values in ((4, maps["last"]), (5, maps["mean"])):
        image, laid_over = axes[row, 1].get_images()
        assert np.array_equal(image.get_array(), IMAGES[9])
        assert np.asarray(laid_over.get_array()) == pytest.approx(values[9], abs=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_one_to_four_channels_are_drawn(channels: int) -> None:
    image = IMAGES[:1, ..., [0, 1, 2, 0][:channels]]
    shown = augmented(image, [], ("cat",)).axes[0].get_images()[0].get_array()
    assert shown.shape[2] == (3 if channels in (1, 3) else 4)


def test_thumbnails_keep_small_images_and_bound_large_ones() -> None:
    assert np.array_equal(thumbnail(IMAGES[0]), IMAGES[0])
    assert max(thumbnail(np.zeros((1000, 300, 3))).shape) <= MAX_THUMBNAIL_SIDE


def test_the_network_has_a_box_a_layer_with_shape_and_parameters() -> None:
    layers = [
        {"name": "stem", "type": "Conv2d", "shape": [64, 32, 32], "parameters": 1728},
        {"name": "block.conv1", "type": "Conv2d", "shape": [64, 32, 32], "parameters": 36864},
        {"name": "block.norm", "type": "BatchNorm2d", "shape": [64, 32, 32], "parameters": 128},
        {"name": "block.conv2", "type": "Conv2d", "shape": [64, 32, 32], "parameters": 36864},
        {"name": "linear", "type": "Linear", "shape": [10], "parameters": 5130},
    ]
    network = {
        "input_shape": [3, 32, 32],
        "layers": layers,
        "blocks": ["block"],
        "skips": [["block.conv2"]],
        "activated": ["block.norm"],
    }
    axes = network_diagram(network).axes[0]
    texts = [text.get_text() for text in axes.texts]
    *boxes, skip = axes.patches
    assert len(boxes) == 5  # the image, three convolutions, the linear layer
    assert {"3 x 32 x 32", "64 x 32 x 32", "10", "1,728", "5,130", "block", "+"} < set(texts)
    _, norm, activation, bracket = axes.lines
    assert bracket.get_xdata()[0] < 2 < 3 < bracket.get_xdata()[-1] < 4  # round both of the block's convolutions
    assert 2 < norm.get_xdata()[0] < activation.get_xdata()[0] < 2.5  # behind the block's first one
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["norm", "activation"]
    start, *_, end = skip._path_original.vertices[:, 0]
    assert 2.5 < start < 3 < end < 4  # by the block's second one
