"""The speed of each implementation of a layer on this machine, against the choice that kernels/choices.csv makes."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from operator import truediv
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sprintnet.kernels import conv3x3_amx, conv_pool, dispatch
from sprintnet.kernels.max_pool import MaxPool2x2
from sprintnet.kernels.tensors import is_hwnc, to_hwnc

PYTORCH = "pytorch"
IMAGES, WARM_UP, REPEATS = 500, 2, 15
SUPPORTED = {
    torch.bfloat16: ("amx", "winograd", "winograd_torch", "avx512_bf16"),
    torch.float32: ("winograd_fp32", "winograd_torch"),
}
TOLERANCE = 1.05
"""How much slower than the best a choice may be measured."""


class LayerTimes(NamedTuple):
    """Milliseconds of forward and backward for 1,000 images by implementation, and the one that is chosen here."""

    layer: str
    channels: int
    out_channels: int
    side: int
    milliseconds: dict[str, float]
    chosen: str

    @property
    def is_best(self) -> bool:
        """Returns whether no other implementation is faster by more than the tolerance."""
        return self.milliseconds[self.chosen] <= TOLERANCE * min(self.milliseconds.values())

    def gflops(self, name: str) -> float:
        """Returns the rate in GFLOP/s as if every implementation computed a direct convolution."""
        products = 3 if _has_input_gradient(self.layer, self.channels) else 2  # forward, gradients of weight and input
        flop = products * 2 * 9 * self.channels * self.out_channels * self.side**2 * 1000
        return flop / self.milliseconds[name] / 1e6


def measure_layers(dtype: torch.dtype) -> Iterator[LayerTimes]:
    """Yields the times of each layer of the table in bf16 or fp32, with the implementations in alternation."""
    shapes = [(layer, *choice[:3]) for (_, layer), rows in dispatch.choices().items() for choice in rows]
    for layer, channels, out_channels, side in dict.fromkeys(shapes):
        chosen = dispatch.choose(layer, dtype, channels, out_channels, side, side)
        names = [
            name
            for name, module in dispatch.IMPLEMENTATIONS[layer].items()
            if name in SUPPORTED[dtype]
            and module.is_supported(channels, out_channels, side, side)
            and (layer == "conv3x3" or module.HAS_INPUT_GRADIENT or not _has_input_gradient(layer, channels))
        ]
        seconds = _measure(layer, dtype, channels, out_channels, side, [*names, PYTORCH])
        chosen_name = next((name for name in names if dispatch.IMPLEMENTATIONS[layer][name] is chosen), PYTORCH)
        milliseconds = {name: value / IMAGES * 1e6 for name, value in seconds.items()}
        yield LayerTimes(layer, channels, out_channels, side, milliseconds, chosen_name)


def _measure(layer: str, dtype: torch.dtype, channels: int, out_channels: int, side: int, names: list[str]) -> dict[str, float]:
    """Returns the seconds of forward and backward by implementation.

    On a shared host all of them slow down together for seconds at a time: the median of the ratios to PyTorch's in the same
    round counts, and PyTorch's best time.
    """
    maps = torch.randn(IMAGES, channels, side, side).to(dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(out_channels, channels, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    trials = {}
    for name in names:
        function = _function(layer, name)
        with torch.no_grad():
            output = function(maps, weight)
        gradient, has_gradient = torch.randn_like(output), _has_input_gradient(layer, channels)
        inputs = to_hwnc(maps, conv3x3_amx.BLOCK) if is_hwnc(output) else maps  # as the layer before lays them out
        trials[name] = function, inputs.detach().requires_grad_(has_gradient), gradient
    laps: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(WARM_UP + REPEATS):
        for name, (function, maps, gradient) in trials.items():
            maps.grad = weight.grad = None
            started = time.perf_counter()
            torch.autograd.backward(function(maps, weight), gradient)
            if repeat >= WARM_UP:
                laps[name].append(time.perf_counter() - started)
    best = min(laps[PYTORCH])
    return {name: best * median(map(truediv, values, laps[PYTORCH])) for name, values in laps.items()}


def _has_input_gradient(layer: str, channels: int) -> bool:
    """Returns whether a layer needs it: all but the first, the only one with pooling and few channels."""
    return layer == "conv3x3" or channels > conv_pool.MAX_INPUT_CHANNELS


def _function(layer: str, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns what computes a layer of maps and weight."""
    if name != PYTORCH:
        module = dispatch.IMPLEMENTATIONS[layer][name]
        return module.convolve if layer == "conv3x3" else module.convolve_and_pool  # type: ignore[no-any-return]
    return _convolve if layer == "conv3x3" else partial(_convolve_then_pool, MaxPool2x2())


def _convolve(maps: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(maps, weight.to(maps.dtype), padding=1)


def _convolve_then_pool(pool: MaxPool2x2, maps: Tensor, weight: Tensor) -> Tensor:
    pooled: Tensor = pool(_convolve(maps, weight))
    return pooled
