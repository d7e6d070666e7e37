"""Which implementation a layer takes on a CPU, chosen once for each shape from a table of measurements.

choices.csv has a row for each layer on each kind of processor, with its implementations from fast to slow. A layer takes the
row of the nearest shape, and of its implementations the first that is available and supports the layer. Rows of AMX and
AVX2 were measured layer by layer on such processors, those of AVX-512 on one of Intel's that hid its newer instructions
(before tiles of 6 to 8 pixels, hence 7x7 maps in AVX2's order; AMD has no AVX-512 without bf16), those of AVX512-BF16 by
whole steps and confirmed layer by layer; those of ARM (asimd) are AVX2's and not measured. `sprintnet benchmark --kernels`
measures those of this machine again, in training; predictions take the same choices where FOR_PREDICTIONS has the module.
"""

import csv
import math
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sprintnet.kernels import conv3x3_amx, conv_pool, conv_pool_fp32, winograd, winograd_fp32, winograd_torch
from sprintnet.kernels.build import BF16_LANES, FP32_LANES, load_library, processor

TABLE = Path(__file__).parent / "choices.csv"
IMPLEMENTATIONS: dict[str, dict[str, ModuleType]] = {
    "conv3x3": {"amx": conv3x3_amx, "winograd": winograd, "winograd_fp32": winograd_fp32, "winograd_torch": winograd_torch},
    "conv_pool": {"amx": conv3x3_amx, "avx512_bf16": conv_pool, "winograd_fp32": conv_pool_fp32},
}
"""Layer -> name in choices.csv -> module; `pytorch` stands for PyTorch's own operations."""
FOR_PREDICTIONS = (winograd_fp32, conv_pool_fp32)
"""Modules that compute predictions too, exact to 3e-5."""
PRECISIONS = {torch.bfloat16: "bf16", torch.float32: "fp32"}


class Choice(NamedTuple):
    """A row of choices.csv."""

    channels: int
    out_channels: int
    side: int
    implementations: tuple[str, ...]

    def distance(self, channels: int, out_channels: int, side: float) -> float:
        """Returns how far a layer's shape is away."""
        ratios = channels / self.channels, out_channels / self.out_channels, side / self.side
        return sum(math.log(ratio) ** 2 for ratio in ratios)


def can_train(layer: nn.Module, maps: Tensor) -> bool:
    """Returns whether the mode allows kernels now: a batch of feature maps on the CPU, in training, with gradients."""
    return layer.training and torch.is_grad_enabled() and maps.device.type == "cpu" and maps.dim() == 4


def can_predict(layer: nn.Module, maps: Tensor) -> bool:
    """Returns whether the mode allows kernels for predictions: a batch of feature maps on the CPU, no gradients, no export."""
    is_prediction = not (layer.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
    return is_prediction and maps.device.type == "cpu" and maps.dim() == 4


@cache
def choose(
    layer: str, dtype: torch.dtype, channels: int, out_channels: int, height: int, width: int, is_training: bool = True
) -> ModuleType | None:
    """Returns the module that computes a layer (conv3x3 or conv_pool) of this shape in training or in predictions, or None:
    PyTorch's own operations."""
    if min(height, width) < 2 or not (known := choices().get((processor(PRECISIONS.get(dtype, "")), layer))):
        return None
    nearest = min(known, key=lambda choice: choice.distance(channels, out_channels, math.sqrt(height * width)))
    for name in nearest.implementations:
        module = IMPLEMENTATIONS[layer].get(name)
        if module and not is_training and module not in FOR_PREDICTIONS:
            continue
        if module is None or module.is_supported(channels, out_channels, height, width):
            return module
    return None


@cache
def choices() -> dict[tuple[str | None, str], list[Choice]]:
    """Returns the rows of choices.csv by processor and layer."""
    found: dict[tuple[str | None, str], list[Choice]] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            channels, out_channels, side = (int(row[key]) for key in ("channels", "out_channels", "side"))
            choice = Choice(channels, out_channels, side, tuple(row["implementations"].split()))
            found.setdefault((row["processor"], row["layer"]), []).append(choice)
    return found


@cache
def pooling_library(dtype: torch.dtype, channels: int, height: int, width: int) -> str | None:
    """Returns the library whose max pooling takes feature maps of this shape, or None."""
    return _library("max_pool", dtype) if channels % BF16_LANES == 0 and min(height, width) >= 2 else None


@cache
def batchnorm_library(dtype: torch.dtype, channels: int) -> str | None:
    """Returns the library that fuses batch norm and an activation of feature maps of so many channels, or None."""
    return _library("batchnorm", dtype) if channels % FP32_LANES == 0 else None


def _library(name: str, dtype: torch.dtype) -> str | None:
    """Returns the name of the library for feature maps in this format; None where there is none."""
    name = f"{name}_fp32" if dtype == torch.float32 else name
    return name if dtype in PRECISIONS and load_library(name) is not None else None
