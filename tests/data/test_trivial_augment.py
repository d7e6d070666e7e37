"""TrivialAugment: each change against Pillow's, what it keeps, and how often each occurs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from sprintnet.data.augment import sample_params, warp
from sprintnet.data.settings import AugmentSettings
from sprintnet.data.trivial_augment import CHANGES, COLOUR_CHANGES, affine_matrices, change_colours, sample_changes

SIDE = 24


def photographs(channels: int = 3) -> np.ndarray:
    """Smooth images uint8 (4, SIDE, SIDE, C), as photographs are."""
    generator = np.random.default_rng(0)
    shape = (6, 6) if channels == 1 else (6, 6, channels)
    coarse = [Image.fromarray(generator.integers(20, 230, shape, np.uint8)) for _ in range(4)]
    images = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in coarse]
    return np.stack(images).reshape(4, SIDE, SIDE, channels)


def changed(name: str, strength: float, images: np.ndarray) -> np.ndarray:
    changes = torch.tensor([[CHANGES.index(name), strength]]).repeat(len(images), 1)
    return change_colours(torch.from_numpy(images), changes).numpy()


def by_pillow(name: str, strength: float, image: Image.Image) -> Image.Image:
    factor = 1 + 0.99 * strength
    enhancers = {"brightness": ImageEnhance.Brightness, "saturation": ImageEnhance.Color, "contrast": ImageEnhance.Contrast}
    enhancers["sharpness"] = ImageEnhance.Sharpness
    if name in enhancers:
        return enhancers[name](image).enhance(factor)
    if name == "posterize":
        return ImageOps.posterize(image, 8 - round(6 * abs(strength)))
    if name == "solarize":
        return ImageOps.solarize(image, math.ceil(255 * (1 - abs(strength))))
    return {"auto_contrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[name](image)


@pytest.mark.parametrize("name", list(COLOUR_CHANGES))
@pytest.mark.parametrize("strength", [-0.8, -0.3, 0.45, 0.9])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_as_pillow_changes_them(name: str, strength: float, channels: int) -> None:
    images = photographs(channels)
    found = changed(name, strength, images)
    pictures = [Image.fromarray(image[..., 0] if channels == 1 else image) for image in images]
    expected = np.stack([np.asarray(by_pillow(name, strength, picture)) for picture in pictures]).reshape(images.shape)
    assert np.abs(found - expected.astype(float)).max() <= 2  # Pillow rounds each step to a byte
    assert (name == "saturation" and channels == 1) or np.abs(found - images.astype(float)).max() > 2


def test_shapes_change_as_pillow_changes_them() -> None:
    image = photographs(1)[0, ..., 0]
    for name, strength in (("rotate", 0.2), ("shear_x", 0.4), ("shear_y", -0.3), ("shift_x", 0.25), ("shift_y", -0.5)):
        matrix = affine_matrices(torch.tensor([[float(CHANGES.index(name)), strength]]))
        found = warp(torch.from_numpy(image).float()[None, None], matrix)[0, 0].numpy()
        centre = SIDE / 2
        linear, shift = matrix[0, :, :2].numpy(), matrix[0, :, 2].numpy() * centre
        offset = centre + shift - linear @ (centre, centre)
        coefficients = (*linear[0], offset[0], *linear[1], offset[1])
        expected = Image.fromarray(image).transform(
            (SIDE, SIDE), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
        inner = np.asarray(expected, float)[3:-3, 3:-3]  # at the edge of the image, Pillow does not blend with the outside
        assert np.mean(np.abs(found[3:-3, 3:-3] - inner) > 2) < 0.06


@pytest.mark.parametrize(
    ("name", "strength", "point"),
    [("shift_x", 0.5, (-1, 0)), ("rotate", 2 / 3, (0, 1)), ("shear_x", 1 / 0.99, (1, 1)), ("none", 1.0, (0.3, 0.2))],
)
def test_strengths_are_those_of_the_paper(name: str, strength: float, point: tuple[float, float]) -> None:
    """From where the pixel at (0, 0), (1, 0), (0, 1) or itself is taken: half of 32 pixels, 90 of 135 degrees, a shear of 1."""
    matrix = affine_matrices(torch.tensor([[float(CHANGES.index(name)), strength]]))[0]
    start = {"shift_x": (-2, 0), "rotate": (1, 0), "shear_x": (0, 1), "none": point}[name]
    torch.testing.assert_close(
        matrix @ torch.tensor([*start, 1.0]), torch.tensor(point, dtype=torch.float32), atol=1e-5, rtol=0
    )


def test_with_affine_maps_of_the_settings_positions_pass_through_both() -> None:
    settings = AugmentSettings(crop_padding=0, flip=0, cutout=0, affine=1, trivial=True)
    both = sample_params(200, SIDE, SIDE, settings, torch.Generator().manual_seed(0))
    plain = sample_params(200, SIDE, SIDE, replace(settings, trivial=False), torch.Generator().manual_seed(0))
    assert both.affine is not None and plain.affine is not None and both.changes is not None
    point = torch.tensor([0.3, -0.4, 1.0])
    through = torch.cat([affine_matrices(both.changes) @ point, torch.ones(200, 1)], 1)
    torch.testing.assert_close(both.affine @ point, torch.einsum("nij,nj->ni", plain.affine, through))


def test_transparency_is_kept() -> None:
    images = np.concatenate([photographs(3), photographs(1)], axis=3)
    for name in COLOUR_CHANGES:
        np.testing.assert_array_equal(changed(name, 0.9, images)[..., 3], images[..., 3])


def test_each_change_is_as_frequent_and_strengths_are_even() -> None:
    changes = sample_changes(28_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(changes[:, 0].long(), minlength=len(CHANGES))
    assert len(CHANGES) == 14 == len(counts)
    assert (counts - 2000).abs().max() < 200  # 4.6 standard deviations
    assert -1 <= changes[:, 1].min() < -0.99 < 0.99 < changes[:, 1].max() <= 1


def test_one_call_changes_each_image_by_its_own_change() -> None:
    images, changes = (
        photographs(3),
        torch.tensor([[CHANGES.index(n), 0.7] for n in ("none", "solarize", "rotate", "equalize")]),
    )
    found = change_colours(torch.from_numpy(images), changes).numpy()
    np.testing.assert_array_equal(found[0], images[0])
    np.testing.assert_array_equal(found[2], images[2])  # a change of shape
    np.testing.assert_array_equal(found[1:2], changed("solarize", 0.7, images[1:2]))
    np.testing.assert_array_equal(found[3:], changed("equalize", 0.7, images[3:]))
