"""Augmentation: random parameters are sampled first, then applied to a batch by pure functions."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sprintnet.data.mixing import sample_mixes
from sprintnet.data.settings import AugmentSettings
from sprintnet.data.trivial_augment import affine_matrices, sample_changes


@dataclass(frozen=True)
class AugmentParams:
    """Sampled parameters for N images; None: this augmentation is off."""

    crop: Tensor | None
    """Top-left corner within the padded image, in pixels (N, 2)."""
    flip: Tensor | None
    """Whether to flip horizontally (N,)."""
    affine: Tensor | None
    """Map from output to input positions, both in -1..1 (N, 2, 3)."""
    cutout: Tensor | None
    """Centre of the erased square, in pixels (N, 2)."""
    changes: Tensor | None = None
    """See `trivial_augment.sample_changes`."""
    mixes: Tensor | None = None
    """See `mixing.sample_mixes`."""

    def __getitem__(self, part: Tensor) -> "AugmentParams":
        """Returns the parameters of the images at these indices."""
        return self._each(lambda values: values[part])

    def to(self, device: torch.device) -> "AugmentParams":
        """Returns the parameters on a device."""
        return self._each(lambda values: values.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "AugmentParams":
        values = (getattr(self, item.name) for item in fields(self))
        return AugmentParams(*(value if value is None else change(value) for value in values))


def sample_params(count: int, height: int, width: int, settings: AugmentSettings, generator: torch.Generator) -> AugmentParams:
    """Returns parameters for `count` images, a function of the generator's state alone."""

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * limit

    crop = flip = affine = cutout = None
    if settings.crop_padding:
        crop = torch.randint(2 * settings.crop_padding + 1, (count, 2), generator=generator)
    if settings.flip:
        flip = torch.rand(count, generator=generator) < settings.flip
    if settings.affine:
        affine = _affine_matrices(
            angle=uniform(math.radians(settings.rotate)),
            scale=1 + uniform(settings.scale),
            shift=uniform(2 * settings.shift, 2),
            chosen=torch.rand(count, generator=generator) < settings.affine,
        )
    if settings.cutout:
        cutout = torch.stack([torch.randint(side, (count,), generator=generator) for side in (height, width)], dim=1)
    changes = sample_changes(count, generator) if settings.trivial else None
    if changes is not None:
        affine = affine_matrices(changes) if affine is None else _after(affine, affine_matrices(changes))
    return AugmentParams(crop, flip, affine, cutout, changes, sample_mixes(count, height, width, settings, generator))


def augment(images: Tensor, params: AugmentParams, settings: AugmentSettings) -> Tensor:
    """Returns augmented images (B, C, H, W) of normalised ones; new pixels are 0, the mean colour.

    Their colours are changed before (`trivial_augment.change_colours`), and they are mixed afterwards (`mixing.mix`).
    """
    if params.crop is not None:
        mode = "reflect" if settings.padding == "reflect" else "constant"
        images = crop(images, params.crop, settings.crop_padding, mode, params.flip)
    elif params.flip is not None:
        images = flip(images, params.flip)
    if params.affine is not None:
        images = warp(images, params.affine)
    if params.cutout is not None:
        images = cut_out(images, params.cutout, settings.cutout)
    return images


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Returns the images, those of `chosen` (B,) flipped horizontally."""
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, corners: Tensor, padding: int, mode: str = "constant", flipped: Tensor | None = None) -> Tensor:
    """Returns windows of the images' size, with top-left corners (B, 2) in the images padded on each side.

    `mode` is "constant" (zeros) or "reflect". Images of `flipped` (B,) are also flipped, at no cost. Corners are clamped to
    0..2 * padding, since an index beyond an image would read another one.
    """
    count, _, height, width = images.shape
    corners = corners.clamp(0, 2 * padding)
    rows = corners[:, 0, None] + torch.arange(height, device=images.device)
    columns = corners[:, 1, None] + torch.arange(width, device=images.device)
    if flipped is not None:
        columns = torch.where(flipped[:, None], columns.flip(-1), columns)
    if mode == "reflect":  # needs no padded copy
        rows, columns = _reflect(rows - padding, height), _reflect(columns - padding, width)
    else:
        images = F.pad(images, (padding,) * 4)
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, C): a pixel's channels are copied together
    first = torch.arange(count, device=images.device)[:, None, None] * (pixels.shape[1] * pixels.shape[2])
    indices = first + rows[:, :, None] * pixels.shape[2] + columns[:, None, :]
    return pixels.flatten(0, 2).index_select(0, indices.flatten()).view(count, height, width, -1).permute(0, 3, 1, 2)


def _reflect(positions: Tensor, length: int) -> Tensor:
    """Returns positions mirrored at both ends of 0..length - 1, as often as necessary."""
    period = max(2 * (length - 1), 1)
    positions = positions % period
    return torch.minimum(positions, period - positions).clamp(max=length - 1)


def resize(images: Tensor, scale: float) -> Tensor:
    """Returns the images with sides scaled and rounded; each pixel is the mean of the area that it covers."""
    sides = [round(scale * side) for side in images.shape[2:]]
    if sides == list(images.shape[2:]):
        return images
    count, channels, height, width = images.shape
    kind = images.dtype, images.device
    # matrix products on rows of pixels with channels last: half the time of `F.interpolate`
    fewer_rows = _area_weights(height, sides[0], *kind) @ images.permute(0, 2, 3, 1).reshape(count, height, -1)
    fewer_columns = fewer_rows.flatten(0, 1) @ _area_weights_of_pixels(width, sides[1], channels, *kind)
    return fewer_columns.view(count, *sides, channels).permute(0, 3, 1, 2)


@cache
def _area_weights(length: int, shorter: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the weights (shorter, length) by which each output pixel averages the pixels of a line."""
    return F.adaptive_avg_pool1d(torch.eye(length), shorter).T.to(device, dtype)


@cache
def _area_weights_of_pixels(length: int, shorter: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the same for lines of pixels with their channels, (length * channels, shorter * channels)."""
    weights = F.adaptive_avg_pool1d(torch.eye(length), shorter)
    return torch.kron(weights.contiguous(), torch.eye(channels)).to(device, dtype)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Returns the images transformed by affine maps (B, 2, 3) from output to input positions, bilinear, zeros outside."""
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def cut_out(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """Returns the images with a square around centres (B, 2) set to 0: DeVries and Taylor 2017, arXiv:1708.04552."""
    inside = [
        (torch.arange(length, device=images.device) - (centres[:, axis, None] - side // 2)).clamp(-1, side)
        for axis, length in enumerate(images.shape[2:])
    ]
    rows, columns = ((offset >= 0) & (offset < side) for offset in inside)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _after(second: Tensor, first: Tensor) -> Tensor:
    """Returns the maps (N, 2, 3) that apply one and then another."""
    return torch.cat([second[:, :, :2] @ first[:, :, :2], second[:, :, :2] @ first[:, :, 2:] + second[:, :, 2:]], 2)


def _affine_matrices(angle: Tensor, scale: Tensor, shift: Tensor, chosen: Tensor) -> Tensor:
    """Returns (N, 2, 3): rotation by an angle in radians, scaling about the centre, shift; the identity if not chosen."""
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    rotation = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    matrices = torch.cat([rotation, shift[:, :, None]], 2)
    return torch.where(chosen[:, None, None], matrices, torch.eye(2, 3))
