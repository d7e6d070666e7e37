"""TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158): one random change of each image, of random strength.

Of its fourteen changes, five are affine maps, which `augment.warp` applies with those of other settings; the rest change
colours, before normalisation. The strengths are those of the paper's wide space; new pixels have the mean colour, not black.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_ANGLE = math.radians(135)
MAX_SHEAR, MAX_ENHANCEMENT = 0.99, 0.99
MAX_SHIFT = 32 / 32  # of the image's side; the paper's 32 pixels are those of images of 32
MIN_BITS = 2
GREY = (0.299, 0.587, 0.114)


def sample_changes(count: int, generator: torch.Generator) -> Tensor:
    """Returns the change of each of `count` images (N, 2): its number in CHANGES, and its strength in -1..1."""
    kinds = torch.randint(len(CHANGES), (count,), generator=generator)
    return torch.stack([kinds, torch.rand(count, generator=generator) * 2 - 1], 1)


def affine_matrices(changes: Tensor) -> Tensor:
    """Returns the maps (N, 2, 3) from output to input positions, both in -1..1, of affine changes; of others the identity."""
    matrices = torch.eye(2, 3).repeat(len(changes), 1, 1)
    kinds, strengths = changes.unbind(1)
    for name, (row, column), value in (
        ("shear_x", (0, 1), MAX_SHEAR * strengths),
        ("shear_y", (1, 0), MAX_SHEAR * strengths),
        ("shift_x", (0, 2), 2 * MAX_SHIFT * strengths),
        ("shift_y", (1, 2), 2 * MAX_SHIFT * strengths),
    ):
        matrices[:, row, column] += torch.where(kinds == CHANGES.index(name), value, 0)
    angles = torch.where(kinds == CHANGES.index("rotate"), MAX_ANGLE * strengths, 0)
    cosine, sine = torch.cos(angles), torch.sin(angles)
    rotation = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    return torch.cat([rotation @ matrices[:, :, :2], matrices[:, :, 2:]], 2)


def change_colours(pixels: Tensor, changes: Tensor) -> Tensor:
    """Returns pixels (B, H, W, C) of whole numbers 0..255, changed; transparency, the last of 2 or 4 channels, is kept."""
    pixels, (kinds, strengths) = pixels.float(), changes.unbind(1)
    colours = pixels[..., : 3 if pixels.shape[-1] >= 3 else 1]
    for name, change in COLOUR_CHANGES.items():
        chosen = (kinds == CHANGES.index(name)).nonzero()[:, 0]
        if len(chosen):
            colours[chosen] = change(colours[chosen], strengths[chosen, None, None, None]).clamp(0, 255)
    return pixels


def _enhanced(pixels: Tensor, plain: Tensor, strengths: Tensor) -> Tensor:
    """Returns pixels moved away from plain ones, or towards them."""
    return torch.lerp(plain, pixels, 1 + MAX_ENHANCEMENT * strengths)


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[-1] == 1:
        return pixels
    return (pixels @ pixels.new_tensor(GREY))[..., None].round()


def _brightness(pixels: Tensor, strengths: Tensor) -> Tensor:
    return _enhanced(pixels, torch.zeros_like(pixels), strengths)


def _saturation(pixels: Tensor, strengths: Tensor) -> Tensor:
    return _enhanced(pixels, _grey(pixels).expand_as(pixels), strengths)


def _contrast(pixels: Tensor, strengths: Tensor) -> Tensor:
    mean = _grey(pixels).mean((1, 2, 3), keepdim=True).round()
    return _enhanced(pixels, mean.expand_as(pixels), strengths)


def _sharpness(pixels: Tensor, strengths: Tensor) -> Tensor:
    """Away from a smoothed image, or towards it; the border is kept."""
    channels = pixels.shape[-1]
    kernel = pixels.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]).div(13).expand(channels, 1, 3, 3)
    smooth = pixels.clone()
    if min(pixels.shape[1:3]) > 2:
        inner = F.conv2d(pixels.permute(0, 3, 1, 2), kernel, groups=channels).round()
        smooth[:, 1:-1, 1:-1] = inner.permute(0, 2, 3, 1)
    return _enhanced(pixels, smooth, strengths)


def _posterized(pixels: Tensor, strengths: Tensor) -> Tensor:
    steps = 2.0 ** (strengths.abs() * (8 - MIN_BITS)).round()
    return (pixels / steps).floor() * steps


def _solarized(pixels: Tensor, strengths: Tensor) -> Tensor:
    return torch.where(pixels < 255 * (1 - strengths.abs()), pixels, 255 - pixels)


def _auto_contrast(pixels: Tensor, _: Tensor) -> Tensor:
    low, high = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
    spread = (pixels - low) * (255 / (high - low).clamp(min=1))
    return torch.where(high > low, spread.floor(), pixels)


def _equalized(pixels: Tensor, _: Tensor) -> Tensor:
    """Each channel with every value about equally often."""
    count, height, width, channels = pixels.shape
    values = pixels.permute(0, 3, 1, 2).reshape(count * channels, height * width).long()
    histogram = torch.zeros(len(values), 256, dtype=torch.long, device=pixels.device)
    histogram.scatter_add_(1, values, torch.ones_like(values))
    step = (height * width - histogram.gather(1, values.amax(1, keepdim=True))) // 255  # without the largest value
    before = histogram.cumsum(1) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    equal = torch.where(step > 0, table.gather(1, values), values)
    return equal.reshape(count, channels, height, width).permute(0, 2, 3, 1).to(pixels)


COLOUR_CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness, "saturation": _saturation, "contrast": _contrast, "sharpness": _sharpness,
    "posterize": _posterized, "solarize": _solarized, "auto_contrast": _auto_contrast, "equalize": _equalized,
}  # fmt: skip
CHANGES: Sequence[str] = ("none", "shear_x", "shear_y", "shift_x", "shift_y", "rotate", *COLOUR_CHANGES)
