"""A 3x3 convolution by fewer products, in a compiled kernel: some images at a time, so that what lies between stays cached.

Tiles of 2 to 5 pixels cover a map X (toom_cook.py). Of one channel and one filter W, a tile is

    Y = A [(B X B') * (G W G')] A',        * entry by entry, ' transposed:

summed over the channels, that is one matrix product for each entry: two to four times fewer products than a convolution makes
(Winograd 1980; in networks: Lavin and Gray 2016, arXiv:1509.09308). The gradient of X is the same with all that is transposed;
that of W, products of the entries of X and of Y's gradient.
"""

import ctypes
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sprintnet.kernels.build import call, load_library
from sprintnet.kernels.flops import count_products
from sprintnet.kernels.toom_cook import POINTS, toom_cook

TAPS, LANES, MAX_TILE_ENTRIES, ROWS = 3, 32, 7, 12
"""As in winograd.c: taps of a filter, channels at once, entries of a tile at most (along a side), rows of a product at once."""
GROUP = 350_000
"""Entries of a group of images at most, of maps and features together: 0.7 MB, most of a core's own cache."""
MIN_GROUPS = 16
"""Of a batch, where it has the images: so many cores can share it. Not by their number, of which results are independent."""
MIN_CHANNELS = 64
"""With fewer the transforms take a larger share than the products save."""
MAX_CHANNELS, MAX_MAP_SIDE = 1024, 32
"""So that what a thread needs fits its stack."""


class _Line(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("size", "tiles", "first", "step", "pixels", "entries")),
        ("matrix", ctypes.c_float * MAX_TILE_ENTRIES * MAX_TILE_ENTRIES),
    )


class _Tiling(ctypes.Structure):
    _fields_ = (("channels", ctypes.c_int64), ("rows", _Line), ("columns", _Line))


class _Bank(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "entries", "of_input", "of_output", "of_row", "of_column")),
        ("matrix", ctypes.c_float * TAPS * MAX_TILE_ENTRIES),
    )


def is_profitable(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether layers of this shape gain, and the kernel takes them here."""
    return min(channels, outputs) >= MIN_CHANNELS and is_supported(channels, outputs, height, width)


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is there and takes layers of this shape."""
    is_small = 2 <= min(height, width) <= max(height, width) <= MAX_MAP_SIDE and max(channels, outputs) <= MAX_CHANNELS
    fits = is_small and channels % LANES == outputs % LANES == 0
    return fits and all(load_library(name) is not None for name in ("winograd", "winograd_filters"))


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns bf16 maps (N, C, H, W) convolved with weight (O, C, 3, 3), padding 1, as (N, O, H, W) in channels_last.

    `is_profitable` says which shapes it takes.
    """
    (_, channels, *size), outputs = maps.shape, len(weight)
    assert weight.shape == (outputs, channels, 3, 3)
    assert (maps.dtype, weight.dtype) == (torch.bfloat16, torch.float32)
    assert maps.device.type == weight.device.type == "cpu"
    assert is_supported(channels, outputs, *size)
    features: Tensor = _Convolution.apply(maps, weight)  # type: ignore[no-untyped-call]
    return features


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:
        (outputs, channels, *_), size = weight.shape, maps.shape[2:]
        taken, given = _input_tiling(channels, *size), _output_tiling(outputs, *size)
        features, entries = _products(maps, weight.transpose(0, 1), taken, given)
        ctx.save_for_backward(entries, weight)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_features: Tensor) -> tuple[Tensor, Tensor]:
        entries, weight = ctx.saved_tensors
        (outputs, channels, *_), size = weight.shape, of_features.shape[2:]
        taken, given = _output_tiling(outputs, *size), _input_tiling(channels, *size)
        of_maps, of_products = _products(of_features, weight, taken, given)
        of_entries = torch.empty(len(entries), channels, outputs, dtype=torch.float32, device=entries.device)
        count_products(len(entries), channels, entries.shape[1], outputs)
        call("winograd", "correlate", *entries.shape, outputs, entries, of_products, of_entries)
        of_weight = torch.empty_like(weight)
        call("winograd_filters", "gather_filters", _bank(of_weight.transpose(0, 1), *size), of_entries, of_weight)
        return of_maps, of_weight


def _products(maps: Tensor, taps: Tensor, taken: _Tiling, given: _Tiling) -> tuple[Tensor, Tensor]:
    """Returns features (N, O, H, W) of maps by the filters of taps (C, O, 3, 3), and the maps' entries (entries, rows, C)."""
    maps = maps.contiguous(memory_format=torch.channels_last)
    (channels, outputs, *_), entries = taps.shape, taken.rows.entries * taken.columns.entries
    filters = maps.new_empty(entries, channels * outputs)
    call("winograd_filters", "spread_filters", _bank(taps, *maps.shape[2:]), taps, filters)
    tiles = taken.rows.tiles * taken.columns.tiles
    even = math.lcm(tiles, ROWS) // tiles  # images whose tiles fill whole ROWS
    largest = min(GROUP // (tiles * entries * (channels + outputs)), len(maps) // MIN_GROUPS)
    group = max(largest // even, 1) * even
    threads = torch.get_num_threads()
    shape = (len(maps), outputs, *maps.shape[2:])
    features = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
    kept = maps.new_empty(entries, -(-len(maps) // group) * group * tiles, channels)
    scratch = maps.new_empty(threads, group * tiles * entries * (channels + outputs))
    count_products(entries, kept.shape[1], channels, outputs)
    call("winograd", "convolve", taken, given, len(maps), group, maps, filters, features, kept, scratch, threads)
    return features, kept


def _tile_side(height: int, width: int) -> int:
    """Returns the outputs along a side of a tile with which a map takes the fewest products."""
    return min(POINTS, key=lambda side: -(-height // side) * -(-width // side) * (side + 2) ** 2)


def _bank(taps: Tensor, height: int, width: int) -> _Bank:
    """Returns where taps (C, O, 3, 3) lie, and what makes them entries for maps of this size."""
    _, matrix, _ = toom_cook(_tile_side(height, width))
    bank = _Bank(*taps.shape[:2], len(matrix), *taps.stride())
    for row, values in zip(bank.matrix, matrix.tolist(), strict=False):
        row[:] = values
    return bank


@cache
def _input_tiling(channels: int, height: int, width: int) -> _Tiling:
    """Returns the tiles of the input transform, by B: a pixel further than those that they give."""
    side = _tile_side(height, width)
    return _Tiling(channels, *(_line(size, side, -1, toom_cook(side)[2]) for size in (height, width)))


@cache
def _output_tiling(channels: int, height: int, width: int) -> _Tiling:
    """Returns the tiles of the output transform, by A'."""
    side = _tile_side(height, width)
    return _Tiling(channels, *(_line(size, side, 0, toom_cook(side)[0].T) for size in (height, width)))


def _line(size: int, side: int, first: int, matrix: Tensor) -> _Line:
    entries, pixels = matrix.shape
    line = _Line(size, -(-size // side), first, side, pixels, entries)
    for row, values in zip(line.matrix, matrix.tolist(), strict=False):
        row[:pixels] = values
    return line
