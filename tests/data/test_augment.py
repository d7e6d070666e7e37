"""Augmentation: closed forms first, then properties of sampled parameters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sprintnet.data.augment import AugmentParams, _affine_matrices, augment, crop, cut_out, flip, resize, sample_params, warp
from sprintnet.data.settings import AugmentSettings

IMAGES = torch.randn(6, 3, 12, 16, generator=torch.Generator().manual_seed(0))
SQUARE = IMAGES[..., :12]


def matrices(count: int, angle: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0, 0)) -> torch.Tensor:
    return _affine_matrices(
        torch.full((count,), math.radians(angle)),
        torch.full((count,), scale),
        torch.tensor([shift] * count),
        torch.ones(count, dtype=torch.bool),
    )


def test_half_the_side_is_the_mean_of_each_four_pixels() -> None:
    halved = resize(IMAGES, 0.5)
    fours = IMAGES.unflatten(2, (6, 2)).unflatten(4, (8, 2))
    torch.testing.assert_close(halved, fours.mean(dim=(3, 5)))
    assert halved.is_contiguous(memory_format=torch.channels_last)
    assert resize(IMAGES, 1) is IMAGES


@given(st.floats(0.2, 1))
def test_resizing_keeps_the_range_and_rounds_the_sides(share: float) -> None:
    resized = resize(IMAGES, share)
    assert resized.shape[2:] == (round(share * 12), round(share * 16))
    assert IMAGES.min() <= resized.min() <= resized.max() <= IMAGES.max()


def test_a_crop_at_the_padding_is_the_image() -> None:
    assert torch.equal(crop(IMAGES, torch.full((6, 2), 4), 4), IMAGES)


def test_a_crop_is_the_window_of_the_padded_image() -> None:
    padded = torch.nn.functional.pad(IMAGES, (4, 4, 4, 4))
    corners = torch.tensor([[0, 0], [8, 8], [1, 7], [3, 2], [8, 0], [4, 5]])
    expected = torch.stack([image[:, y : y + 12, x : x + 16] for image, (y, x) in zip(padded, corners.tolist(), strict=True)])
    assert torch.equal(crop(IMAGES, corners, 4), expected)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_a_flipping_crop_equals_a_crop_and_a_flip(mode: str) -> None:
    corners, chosen = torch.randint(9, (6, 2)), torch.tensor([True, False, True, True, False, False])
    padded = torch.nn.functional.pad(IMAGES, (4, 4, 4, 4), mode)
    expected = torch.stack([image[:, y : y + 12, x : x + 16] for image, (y, x) in zip(padded, corners.tolist(), strict=True)])
    assert torch.equal(crop(IMAGES, corners, 4, mode), expected)
    assert torch.equal(crop(IMAGES, corners, 4, mode, chosen), flip(expected, chosen))


def test_a_flip_applies_to_the_chosen_images_and_twice_is_the_identity() -> None:
    chosen = torch.tensor([True, False, True, True, False, False])
    once = flip(IMAGES, chosen)
    assert torch.equal(once[chosen], IMAGES[chosen].flip(-1))
    assert torch.equal(once[~chosen], IMAGES[~chosen])
    assert torch.equal(flip(once, chosen), IMAGES)


@pytest.mark.parametrize(("angle", "turns"), [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_quarter_turns_are_exact(angle: float, turns: int) -> None:
    torch.testing.assert_close(warp(SQUARE, matrices(6, angle)), torch.rot90(SQUARE, turns, (2, 3)), atol=1e-4, rtol=0)


def test_a_shift_by_integer_pixels_moves_them_and_fills_with_zeros() -> None:
    moved = warp(SQUARE, matrices(6, shift=(2 * 3 / 12, 0)))  # 3 of 12 pixels
    torch.testing.assert_close(moved[..., :-3], SQUARE[..., 3:], atol=1e-4, rtol=0)
    assert moved[..., -3:].abs().max() < 1e-4


def test_a_scale_of_two_shows_the_centre() -> None:
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    assert warp(ramp, matrices(1, scale=2.0))[0, 0, 6] == pytest.approx([3 + (2 * i - 1) / 4 for i in range(12)], abs=1e-4)


def test_images_not_chosen_are_unchanged() -> None:
    kept = _affine_matrices(torch.ones(6), torch.full((6,), 2.0), torch.ones(6, 2), torch.zeros(6, dtype=torch.bool))
    torch.testing.assert_close(warp(IMAGES, kept), IMAGES, atol=1e-4, rtol=1e-4)


def test_cutout_zeroes_one_square_clipped_at_the_border() -> None:
    ones = torch.ones(4, 2, 12, 16)
    cut = cut_out(ones, torch.tensor([[6, 8], [0, 0], [11, 15], [0, 8]]), 8)
    assert (cut == 0).sum(dim=(2, 3))[:, 0].tolist() == [64, 16, 25, 32]
    assert (cut[0, :, 2:10, 4:12] == 0).all()
    assert torch.equal(cut[:, 0], cut[:, 1])


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_sampled_parameters_are_in_range_and_a_function_of_the_generator(seed: int, start: int) -> None:
    variation = AugmentSettings()
    params = sample_params(64, 12, 16, variation, torch.Generator().manual_seed(seed))
    again = sample_params(64, 12, 16, variation, torch.Generator().manual_seed(seed))
    assert params.crop is not None
    assert params.affine is not None
    assert params.cutout is not None
    assert 0 <= params.crop.min() <= params.crop.max() <= 2 * variation.crop_padding
    assert (params.cutout >= 0).all()
    assert (params.cutout < torch.tensor([12, 16])).all()
    angle = torch.atan2(params.affine[:, 1, 0], params.affine[:, 0, 0]).abs()
    assert angle.max() <= math.radians(variation.rotate) + 1e-6
    assert params.affine[:, :, 2].abs().max() <= 2 * variation.shift  # in -1..1 across the image
    images = torch.randn(4, 3, 12, 16)
    part = slice(start, start + 4)
    assert torch.equal(augment(images, params[part], variation), augment(images, again[part], variation))


def test_flips_and_warps_have_the_given_probabilities() -> None:
    params = sample_params(10_000, 8, 8, AugmentSettings(flip=0.3, affine=0.7), torch.Generator().manual_seed(0))
    assert params.flip is not None
    assert params.affine is not None
    assert params.flip.float().mean() == pytest.approx(0.3, abs=0.02)
    is_identity = (params.affine == torch.eye(2, 3)).all(dim=(1, 2))
    assert is_identity.float().mean() == pytest.approx(0.3, abs=0.02)


def test_everything_off_changes_and_draws_nothing() -> None:
    off, generator = AugmentSettings(crop_padding=0, flip=0, affine=0, cutout=0), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert sample_params(6, 12, 16, off, generator) == AugmentParams(None, None, None, None)
    assert torch.equal(generator.get_state(), before)
    assert augment(IMAGES, sample_params(6, 12, 16, off, torch.Generator()), off) is IMAGES


def test_a_reflecting_crop_shows_the_mirrored_border() -> None:
    padded = torch.nn.functional.pad(IMAGES, (2, 2, 2, 2), mode="reflect")
    corners = torch.tensor([[0, 0], [4, 4], [2, 2], [1, 3], [4, 0], [0, 2]])
    expected = torch.stack([image[:, y : y + 12, x : x + 16] for image, (y, x) in zip(padded, corners.tolist(), strict=True)])
    assert torch.equal(crop(IMAGES, corners, 2, "reflect"), expected)


@pytest.mark.parametrize(("padding", "side"), [(7, 8), (8, 8), (12, 8), (32, 8), (3, 2), (2, 1)])
def test_reflection_shows_no_other_image_and_repeats_with_large_padding(padding: int, side: int) -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, side, side).contiguous()
    for corner in (0, padding, 2 * padding):
        for mode in ("reflect", "constant"):
            windows = crop(images, torch.full((3, 2), corner), padding, mode)
            assert all(set(window.flatten().tolist()) <= {0.0, float(index)} for index, window in enumerate(windows))
    image = torch.rand(1, 1, side, side)
    expected = np.pad(image[0, 0].numpy(), padding, mode="reflect" if side > 1 else "edge")
    for corner in range(2 * padding + 1):
        window = crop(image, torch.tensor([[corner, 0]]), padding, "reflect")
        assert np.array_equal(window[0, 0].numpy(), expected[corner : corner + side, :side])


def test_a_corner_beyond_the_padding_is_clamped() -> None:
    assert torch.equal(crop(IMAGES, torch.full((6, 2), 99), 2), crop(IMAGES, torch.full((6, 2), 4), 2))
