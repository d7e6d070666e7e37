"""A 3x3 convolution whose large layers train on a CPU in bf16 with fewer products, all of them products of matrices.

Toom and Cook's algorithm gives m outputs of a filter with 3 taps for m + 2 products instead of 3m (Winograd 1980; in networks:
Lavin and Gray 2016, arXiv:1509.09308). Here tiles of 2 to 4 pixels cover a whole map X with one channel, and per filter W

    Y = A [(B X B') * (G W G')] A',        * entry by entry, ' transposed:

summed over the channels, that is one matrix product for each entry, over all images at once: two to four times fewer products
(the transforms by A and B come on top, and G W G' once a batch). Autograd's gradients are matrix products again and cost as
little; that of the weights has none of the short rows on which a convolution's kernel starves.

The price is rounding: in bf16 a result is off by about 1.5 %, a convolution's own by 0.3 % (LOG.md has what training makes of
it). Answers outside training are PyTorch's own.
"""

from functools import cache

import torch
from torch import Tensor, nn

POINTS = {2: (0, 1, -1), 3: (0.4, -0.4, 1.3, -1.3), 4: (0, 0.6, -0.6, 1.6, -1.6)}
"""By size of tile, where polynomials are evaluated besides infinity: small errors in bf16 (LOG.md)."""
FEWEST_CHANNELS, FEWEST_IMAGES = 128, 128
"""With fewer there is little to gain, or a loss (LOG.md has the figures)."""
LARGEST_MAP = 16
"""Pixels: the largest side that was measured; the transforms' share grows with it."""


class Convolution3x3(nn.Conv2d):
    """nn.Conv2d with 3x3 filters, padding 1 and no bias; trained on a CPU in bf16, it takes fewer products."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H, W)."""
        in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if self.training and torch.is_grad_enabled() and input.device.type == "cpu" and in_bf16 and self._pays(input.shape):
            with torch.autocast("cpu", enabled=False):
                return convolve(input.bfloat16(), self.weight)
        return super().forward(input)

    def _pays(self, shape: torch.Size) -> bool:
        fits = len(shape) == 4 and min(shape[2:]) >= 2 and max(shape[2:]) <= LARGEST_MAP
        return fits and shape[0] >= FEWEST_IMAGES and min(self.in_channels, self.out_channels) >= FEWEST_CHANNELS


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns maps (N, C, H, W) convolved with weight (O, C, 3, 3), padding 1, as (N, O, H, W) in channels_last.

    The number format is that of the maps; H and W are 2 or more.
    """
    (images, channels, height, width), outputs = maps.shape, len(weight)
    (out_h, filter_h, in_h), (out_w, filter_w, in_w) = transforms(height), transforms(width)
    rows, columns = len(in_h), len(in_w)

    def transform(rows_first: Tensor, of_rows: Tensor, of_columns: Tensor) -> Tensor:
        """Returns of_rows X of_columns' for X (h, w * rest), as (h', w', rest)."""
        half = (of_rows.to(maps.dtype) @ rows_first).view(len(of_rows), of_columns.shape[1], -1)
        return torch.bmm(of_columns.to(maps.dtype).expand(len(half), -1, -1), half)

    # pixels first, images and channels last: so each step is one product of matrices, or a batch of them
    channels_last = maps.permute(0, 2, 3, 1)
    if channels_last.requires_grad:  # the layers before are several times slower on a gradient with pixels first
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
    assert size >= 2
    tiles = -(-size // max(POINTS))
    lengths = [size // tiles + (tile < size % tiles) for tile in range(tiles)]
    parts = [toom_cook(length) for length in lengths]
    padded = torch.zeros(size + 2 * tiles, size + 2, dtype=torch.float64)
    first = 0
    for tile, (length, (_, _, inputs)) in enumerate(zip(lengths, parts, strict=True)):
        row = first + 2 * tile
        padded[row : row + length + 2, first : first + length + 2] = inputs
        first += length
    output: Tensor = torch.block_diag(*[output for output, _, _ in parts])  # type: ignore[no-untyped-call]
    return output.float(), torch.cat([taps for _, taps, _ in parts]).float(), padded[:, 1:-1].float().contiguous()


def toom_cook(outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns A (m, m + 2), G (m + 2, 3) and B (m + 2, m + 2), fp64: y = A [(G w) * (B x)] slides w along x for m outputs.

    The rows of G and B have length 1, which keeps their entries alike in size and so the rounding small.
    """
    points = torch.tensor(POINTS[outputs], dtype=torch.float64)
    count = len(points)
    others = [torch.cat([points[:i], points[i + 1 :]]) for i in range(count)]
    output, taps, inputs = (points.new_zeros(shape) for shape in ((outputs, count + 1), (count + 1, 3), (count + 1, count + 1)))
    for i, point in enumerate(points):
        output[:, i] = point ** torch.arange(outputs)
        taps[i] = point ** torch.arange(3) / (point - others[i]).prod()
        inputs[i, :-1] = _polynomial(others[i])
    output[-1, -1] = taps[-1, -1] = 1
    inputs[-1] = _polynomial(points)
    of_taps, of_inputs = taps.norm(dim=1), inputs.norm(dim=1)
    return output * of_taps * of_inputs, taps / of_taps[:, None], inputs / of_inputs[:, None]


def _polynomial(roots: Tensor) -> Tensor:
    """Returns the coefficients of the monic polynomial with these roots, the constant first."""
    coefficients = roots.new_ones(1)
    for root in roots:
        shifted = torch.cat([coefficients.new_zeros(1), coefficients])
        shifted[:-1] -= root * coefficients
        coefficients = shifted
    return coefficients
