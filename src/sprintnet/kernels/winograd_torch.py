"""Winograd convolution of a whole batch in PyTorch's operations, where winograd.py's kernel is unavailable.

Tiles of 2 to 4 pixels cover a feature map X (toom_cook.py). For one channel and one filter W

    Y = A [(B X B') * (G W G')] A',        * elementwise, ' transposed:

summed over the channels, that is one matrix product for each element of the transform, over all images at once. Autograd's
gradients are matrix products too.
"""

from functools import cache

import torch
from torch import Tensor

from sprintnet.kernels.toom_cook import toom_cook

MAX_TILE = 4
"""Output pixels of a tile's side; in longer ones, rounding between the two transforms would matter."""


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether layers of this shape are supported: those of 2 pixels or more."""
    return min(height, width) >= 2


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns maps (N, C, H, W) convolved with weight (O, C, 3, 3), padding 1, as (N, O, H, W) in channels_last.

    The dtype is that of the maps; H and W are 2 or more.
    """
    (images, channels, height, width), outputs = maps.shape, len(weight)
    (out_h, filter_h, in_h), (out_w, filter_w, in_w) = transforms(height), transforms(width)
    rows, columns = len(in_h), len(in_w)

    def transform(rows_first: Tensor, of_rows: Tensor, of_columns: Tensor) -> Tensor:
        """Returns of_rows X of_columns' for X (h, w * rest), as (h', w', rest)."""
        half = (of_rows.to(maps.dtype) @ rows_first).view(len(of_rows), of_columns.shape[1], -1)
        return torch.bmm(of_columns.to(maps.dtype).expand(len(half), -1, -1), half)

    # pixels first, images and channels last: each step is one matrix product, or a batch of them
    channels_last = maps.permute(0, 2, 3, 1)
    if channels_last.requires_grad:  # earlier layers are several times slower on a gradient with pixels first
        channels_last.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
    pixels = channels_last.permute(1, 2, 0, 3).reshape(height, -1)
    entries = transform(pixels, in_h, in_w).view(rows * columns, images, channels)
    taps = weight.to(maps.dtype).permute(2, 3, 1, 0).reshape(9, -1)
    filters = torch.kron(filter_h, filter_w).to(maps.dtype) @ taps
    products = entries @ filters.view(rows * columns, channels, outputs)
    features = transform(products.view(rows, -1), out_h, out_w).view(height, width, images, outputs)
    return features.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


@cache
def transforms(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns A (size, P), G (P, 3) and B (P, size), fp32: y = A [(G w) * (B x)] convolves x with w, padding 1, by P products.

    The size is 2 or more.
    """
    lengths = tile_lengths(size)
    tiles = len(lengths)
    parts = [toom_cook(length) for length in lengths]
    padded = torch.zeros(size + 2 * tiles, size + 2, dtype=torch.float64)
    first = 0
    for tile, (length, (_, _, inputs)) in enumerate(zip(lengths, parts, strict=True)):
        row = first + 2 * tile
        padded[row : row + length + 2, first : first + length + 2] = inputs
        first += length
    output: Tensor = torch.block_diag(*[output for output, _, _ in parts])  # type: ignore[no-untyped-call]
    return output.float(), torch.cat([taps for _, taps, _ in parts]).float(), padded[:, 1:-1].float().contiguous()


def tile_lengths(size: int) -> list[int]:
    """Returns the outputs of each tile along a line of `size` pixels, 2 or more: longer tiles first."""
    if size < 2:
        raise ValueError(f"winograd: feature maps of {size} pixels along a side; 2 or more are needed")
    tiles = -(-size // MAX_TILE)
    return [size // tiles + (tile < size % tiles) for tile in range(tiles)]
