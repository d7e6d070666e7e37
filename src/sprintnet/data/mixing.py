"""Mixup and CutMix: each image of a batch is mixed with another, its label in the same proportion."""

import numpy as np
import torch
from torch import Tensor

from sprintnet.data.settings import AugmentSettings


def sample_mixes(count: int, height: int, width: int, settings: AugmentSettings, generator: torch.Generator) -> Tensor | None:
    """Returns for `count` images where, and how much, another image is mixed in; None: nothing is mixed.

    (N, 5): the share of the other image, and the box that it fills: top, bottom, left, right. Mixup (Zhang et al. 2017,
    arXiv:1710.09412) fills the whole image by a share of Beta(alpha, alpha), CutMix (Yun et al. 2019, arXiv:1905.04899) a box,
    of which that is the area. Where both are on, each image takes one of them.
    """
    if not (settings.mixup or settings.cutmix):
        return None
    numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))  # PyTorch's Beta takes no generator
    cuts = np.full(count, not settings.mixup) | (numbers.random(count) < 0.5 if settings.mixup and settings.cutmix else False)
    alpha = np.where(cuts, settings.cutmix, settings.mixup)
    share = numbers.beta(alpha, alpha)
    sizes = np.sqrt(share)[:, None] * (height, width)
    centres = numbers.random((count, 2)) * (height, width)
    low, high = (np.clip(np.rint(centres + side * sizes / 2), 0, (height, width)) for side in (-1, 1))
    whole = np.broadcast_to((0, height, 0, width), (count, 4))
    boxes = np.where(cuts[:, None], np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1), whole)
    return torch.from_numpy(np.column_stack([np.where(cuts, 1.0, share), boxes])).float()


def mix(images: Tensor, targets: Tensor, mixes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns images (B, C, H, W) and targets (B, K), each mixed with those of the batch in reverse order."""
    share, top, bottom, left, right = mixes.unbind(1)
    rows, columns = (torch.arange(length, device=images.device) for length in images.shape[2:])
    inside_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < right[:, None])
    shares = share[:, None, None] * (inside_rows[:, :, None] & inside_columns[:, None, :])  # of the other image, by pixel
    mixed = torch.lerp(images, images.flip(0), shares[:, None])
    return mixed, torch.lerp(targets, targets.flip(0), shares.mean((1, 2))[:, None])
