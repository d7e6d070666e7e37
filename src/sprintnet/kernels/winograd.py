"""Winograd convolution in C, some images at a time, so that the transformed tiles stay in a core's cache.

Tiles of 2 to 5 pixels (in fp32 to 8) cover a feature map X (toom_cook.py). For one channel and one filter W, a tile is

    Y = A [(B X B') * (G W G')] A',        * elementwise, ' transposed:

summed over the channels, that is one matrix product for each element of the transform, with two to four times (in fp32 to six
times) fewer multiplications than a direct convolution (Winograd 1980; in networks: Lavin and Gray 2016, arXiv:1509.09308).
The gradient of X is the same with every matrix transposed; that of W, products of the transforms of X and of Y's gradient.
"""

import ctypes
import math
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from sprintnet.kernels.build import BF16_LANES, call, load_library
from sprintnet.kernels.tensors import empty_maps, require_supported
from sprintnet.kernels.toom_cook import POINTS, toom_cook

TAPS, MAX_TILE_ELEMENTS, GEMM_ROWS = 3, 10, 12
"""As in winograd_transforms.h, winograd_filters.c and winograd.c: filter taps, elements along a tile's side at most, rows of a
product at once."""
MAX_TILE_PIXELS = {torch.bfloat16: 5, torch.float32: 8}
"""Output pixels along a tile's side at most: rounding between the transforms grows with it."""
TRANSFORM_COST = {torch.bfloat16: 0.0, torch.float32: 2.5}
"""Time of a multiplication in a transform, in multiplications of the products: fp32 as measured on AVX2, bf16 not measured."""
GROUP_BYTES = 700_000
"""Transformed inputs and outputs of a group of images: most of a core's cache."""
MIN_GROUP_ROWS = {torch.bfloat16: GEMM_ROWS, torch.float32: 48}
"""Tiles of a group, where the batch has the images: in fp32, wide filters do not fit the cache, and each group reads them."""
MIN_GROUPS = 16
"""Groups of a batch, where it has the images for them and for whole products: that many cores can share it. Results do not
depend on the number of cores."""
MAX_CHANNELS, MAX_SIDE = 1024, 32


class Axis(ctypes.Structure):
    """As `axis` in winograd_transforms.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("size", "tiles", "first", "step", "pixels", "elements")),
        ("matrix", ctypes.c_float * MAX_TILE_ELEMENTS * MAX_TILE_ELEMENTS),
    )


class _Tiling(ctypes.Structure):
    _fields_ = (("channels", ctypes.c_int64), ("rows", Axis), ("columns", Axis))


class _FilterBank(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("in_channels", "out_channels", "elements")),
        *((name, ctypes.c_int64) for name in ("in_stride", "out_stride", "row_stride", "column_stride")),
        ("matrix", ctypes.c_float * TAPS * MAX_TILE_ELEMENTS),
    )


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    fits = channels % BF16_LANES == outputs % BF16_LANES == 0 and fits_memory(channels, outputs, height, width)
    return fits and all(load_library(name) is not None for name in ("winograd", "winograd_filters"))


def fits_memory(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the working memory of layers of this shape fits a thread's stack."""
    return 2 <= min(height, width) <= max(height, width) <= MAX_SIDE and max(channels, outputs) <= MAX_CHANNELS


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns bf16 maps (N, C, H, W) convolved with fp32 weight (O, C, 3, 3), padding 1, as (N, O, H, W) in channels_last.

    Raises ValueError for tensors that the kernel does not support.
    """
    require_supported(sys.modules[__name__], maps, weight, torch.bfloat16)
    features: Tensor = Convolution.apply(maps, weight)  # type: ignore[no-untyped-call]
    return features


class Convolution(torch.autograd.Function):
    """The convolution in the number format of the maps, bf16 or fp32, of fp32 weights."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:
        """Returns features (N, O, H, W)."""
        features: Tensor
        features, transformed = _products(maps, weight.transpose(0, 1), False)
        ctx.save_for_backward(transformed, weight)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gradients of maps and weight."""
        transformed, weight = ctx.saved_tensors
        grad_input, grad_transformed = _products(grad_output, weight, True)
        return grad_input, _filter_gradient(_weight_products(transformed, grad_transformed), weight, grad_output)


def _transform_filters(filters: Tensor, maps: Tensor) -> Tensor:
    """Returns filters (C, O, 3, 3) transformed for these maps, in the panels that the kernel reads."""
    (channels, outputs), side = filters.shape[:2], _tile_side(maps, filters)
    if maps.dtype == torch.bfloat16:
        transformed = maps.new_empty((side + 2) ** 2, channels * outputs)
        call("winograd_filters", "transform_filters", _bank(filters, side), filters, transformed)
        return transformed
    return transform_filters_fp32(filters, side)


def transform_filters_fp32(filters: Tensor, side: int) -> Tensor:
    """Returns filters (C, O, 3, 3) transformed for tiles of `side` pixels, in the panels that products_fp32.h reads."""
    channels, outputs = filters.shape[:2]
    transformed = (_filter_matrix(side) @ filters.permute(2, 3, 0, 1).reshape(9, -1)).view(-1, channels, outputs)
    return torch.cat([columns.flatten(1) for columns in torch.split(transformed, 2 * fp32_lanes(), dim=2)], dim=1)


def fp32_lanes() -> int:
    """Returns the values in a vector of the kernel for fp32; 0 where it is unavailable."""
    return call("winograd_fp32", "lanes") if load_library("winograd_fp32") else 0


def _filter_gradient(gradient: Tensor, weight: Tensor, maps: Tensor) -> Tensor:
    """Returns the gradient of weight (O, C, 3, 3) from that of its transform (elements, C, O)."""
    side = _tile_side(maps, weight)
    if maps.dtype == torch.bfloat16:
        result = torch.empty_like(weight)
        bank = _bank(result.transpose(0, 1), side)
        call("winograd_filters", "transform_filters_backward", bank, gradient, result)
        return result
    return filter_gradient_fp32(gradient, side)


def filter_gradient_fp32(gradient: Tensor, side: int) -> Tensor:
    """Returns the gradient of the weight (O, C, 3, 3) from that of its transform (elements, C, O) for tiles of this side."""
    taps = _filter_matrix(side).T @ gradient.flatten(1)
    return taps.view(3, 3, *gradient.shape[1:]).permute(3, 2, 0, 1)


def _filter_matrix(side: int) -> Tensor:
    """Returns the matrix (elements, 9) that transforms the taps of a filter."""
    matrix = toom_cook(side)[1]
    return torch.kron(matrix, matrix).float()


@torch.library.custom_op("sprintnet::winograd_products", mutates_args=())
def _products(maps: Tensor, filters: Tensor, is_backward: bool) -> tuple[Tensor, Tensor]:
    """Returns features (N, O, H, W) of maps by filters (C, O, 3, 3), and the transformed maps (elements, rows, C)."""
    maps = maps.contiguous(memory_format=torch.channels_last)
    (channels, outputs, *_), size, side = filters.shape, maps.shape[2:], _tile_side(maps, filters)
    tilings = (_output_tiling, _input_tiling) if is_backward else (_input_tiling, _output_tiling)
    source, target = (tiling(count, *size, side) for tiling, count in zip(tilings, (channels, outputs), strict=True))
    elements, tiles = source.rows.elements * source.columns.elements, source.rows.tiles * source.columns.tiles
    group = _group(maps, tiles, elements * (channels + outputs))
    threads = torch.get_num_threads()
    features = empty_maps((len(maps), outputs, *size), maps.dtype, maps.device)
    transformed = maps.new_empty(elements, -(-len(maps) // group) * group * tiles, channels)
    scratch = maps.new_empty(threads, elements, group * tiles + 1, channels + outputs)
    tensors = maps, _transform_filters(filters, maps), features, transformed, scratch
    call(_library(maps), "convolve", source, target, len(maps), group, *tensors, threads)
    return features, transformed


@_products.register_fake
def _(maps: Tensor, filters: Tensor, is_backward: bool) -> tuple[Tensor, Tensor]:
    (images, channels, height, width), outputs = maps.shape, filters.shape[1]
    side = _tile_side(maps, filters)
    tiles, elements = -(-height // side) * -(-width // side), (side + 2) ** 2
    group = _group(maps, tiles, elements * (channels + outputs))
    features = empty_maps((images, outputs, height, width), maps.dtype, maps.device)
    return features, maps.new_empty(elements, -(-images // group) * group * tiles, channels)


@torch.library.custom_op("sprintnet::winograd_weight_products", mutates_args=())
def _weight_products(transformed: Tensor, grad_transformed: Tensor) -> Tensor:
    """Returns the gradient of the transformed filters, fp32 (elements, C, O)."""
    (elements, rows, channels), outputs = transformed.shape, grad_transformed.shape[2]
    grad_filters = torch.empty(elements, channels, outputs, dtype=torch.float32, device=transformed.device)
    call(
        _library(transformed), "weight_gradient", elements, rows, channels, outputs, transformed, grad_transformed, grad_filters
    )
    return grad_filters


@_weight_products.register_fake
def _(transformed: Tensor, grad_transformed: Tensor) -> Tensor:
    shape = len(transformed), transformed.shape[2], grad_transformed.shape[2]
    return transformed.new_empty(shape, dtype=torch.float32)


@register_flop_formula(torch.ops.sprintnet.winograd_products)
def _products_flop(maps: Any, filters: Any, is_backward: bool, *_: Any, out_shape: Any, **__: Any) -> int:
    _, (elements, rows, channels) = out_shape
    return int(2 * elements * rows * channels * filters[1])


@register_flop_formula(torch.ops.sprintnet.winograd_weight_products)
def _weight_products_flop(transformed: Any, grad_transformed: Any, *_: Any, **__: Any) -> int:
    elements, rows, channels = transformed
    return int(2 * elements * rows * channels * grad_transformed[2])


def _library(maps: Tensor) -> str:
    return "winograd" if maps.dtype == torch.bfloat16 else "winograd_fp32"


def _group(maps: Tensor, tiles: int, values: int) -> int:
    """Returns the images that are transformed and multiplied at once; their tiles fill a multiple of GEMM_ROWS.

    `values` are those of a tile, transformed, of inputs and outputs together.
    """
    even = math.lcm(tiles, GEMM_ROWS) // tiles
    fitting = max(GROUP_BYTES // (tiles * values * maps.element_size()), MIN_GROUP_ROWS[maps.dtype] // tiles)
    largest = min(fitting, len(maps) // MIN_GROUPS)
    return max(largest // even, 1) * even


def _tile_side(maps: Tensor, filters: Tensor) -> int:
    """Returns the side of the tiles, in output pixels, that take the least time for maps of this size and format."""
    (height, width), (inputs, outputs) = maps.shape[2:], filters.shape[:2]

    def cost(side: int) -> float:
        """Returns the multiplications for each pair of channels, with their share of the transforms."""
        transforms = TRANSFORM_COST[maps.dtype] * (side + 2) * (1 / inputs + 1 / outputs)
        return -(-height // side) * -(-width // side) * (side + 2) ** 2 * (1 + transforms)

    return min((side for side in POINTS if side <= MAX_TILE_PIXELS[maps.dtype]), key=cost)


def _bank(filters: Tensor, side: int) -> _FilterBank:
    """Returns the layout of filters (C, O, 3, 3) and their transform for tiles of this side."""
    _, matrix, _ = toom_cook(side)
    bank = _FilterBank(*filters.shape[:2], len(matrix), *filters.stride())
    for row, values in zip(bank.matrix, matrix.tolist(), strict=False):
        row[:] = values
    return bank


@cache
def _input_tiling(channels: int, height: int, width: int, side: int) -> _Tiling:
    """Returns the tiling of the input transform, by B: its tiles overlap by a pixel on each side."""
    return _Tiling(channels, *(tile_axis(size, side, -1, toom_cook(side)[2]) for size in (height, width)))


@cache
def _output_tiling(channels: int, height: int, width: int, side: int) -> _Tiling:
    """Returns the tiling of the output transform, by A'."""
    return _Tiling(channels, *(tile_axis(size, side, 0, toom_cook(side)[0].T) for size in (height, width)))


def tile_axis(size: int, side: int, first: int, matrix: Tensor) -> Axis:
    """Returns tiles that begin at `first`, `side` pixels apart, along an axis of `size` pixels, and their transform."""
    elements, pixels = matrix.shape
    line = Axis(size, -(-size // side), first, side, pixels, elements)
    for row, values in zip(line.matrix, matrix.tolist(), strict=False):
        row[:pixels] = values
    return line
