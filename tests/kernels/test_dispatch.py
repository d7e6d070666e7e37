"""Which implementation a layer takes, and shapes and FLOPs of the custom ops; all of it on any machine."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sprintnet.kernels import build, conv3x3_amx, conv_pool, conv_pool_amx, dispatch, winograd, winograd_torch
from sprintnet.kernels.batchnorm_silu import Norm
from sprintnet.kernels.conv3x3 import Convolution3x3

NEAR_MEASURED = [
    ("conv3x3", (64, 64, 15, 15), {"amx_bf16": conv3x3_amx, "avx512_bf16": winograd}, None),
    ("conv3x3", (64, 96, 32, 2), {"amx_bf16": conv3x3_amx, "avx512_bf16": winograd}, None),
    ("conv3x3", (128, 256, 7, 7), {"amx_bf16": conv3x3_amx, "avx512_bf16": winograd}, winograd_torch),
    (
        "conv3x3",
        (128, 130, 3, 3),
        {"amx_bf16": winograd_torch, "avx512_bf16": winograd_torch},
        winograd_torch,
    ),  # not a multiple of 32
    ("conv3x3", (2048, 128, 3, 3), {"amx_bf16": winograd_torch, "avx512_bf16": winograd_torch}, winograd_torch),  # its stack
    ("conv3x3", (128, 128, 1, 7), {"amx_bf16": None, "avx512_bf16": None}, None),
    ("conv_pool", (24, 64, 31, 31), {"amx_bf16": conv_pool_amx, "avx512_bf16": conv_pool}, None),
    ("conv_pool", (24, 80, 31, 31), {"amx_bf16": None, "avx512_bf16": None}, None),
]
"""Layer, shape, the implementation by processor, and what AVX512-BF16 takes without a compiler."""


@pytest.mark.parametrize(("layer", "shape", "by_processor", "without_kernels"), NEAR_MEASURED)
def test_a_layer_takes_the_fastest_implementation_that_supports_its_shape(
    layer: str,
    shape: tuple[int, int, int, int],
    by_processor: dict[str, ModuleType | None],
    without_kernels: ModuleType | None,
    available: None,
    unavailable: Callable[[], None],
    on_processor: Callable[[str | None], None],
) -> None:
    for processor, expected in by_processor.items():
        on_processor(processor)
        assert dispatch.choose(layer, torch.bfloat16, *shape) is expected
    on_processor(None)  # without bf16
    assert dispatch.choose(layer, torch.bfloat16, *shape) is None
    unavailable()
    on_processor("avx512_bf16")
    assert dispatch.choose(layer, torch.bfloat16, *shape) is without_kernels


def test_the_table_names_what_there_is() -> None:
    table = dispatch.choices()
    assert {processor for processor, _ in table} <= {*build.PROCESSORS["bf16"], *build.PROCESSORS["fp32"]}
    for (processor, layer), choices in table.items():
        for choice in choices:
            assert set(choice.implementations) <= {"pytorch", *dispatch.IMPLEMENTATIONS[layer]}
            assert choice.implementations[-1] == "pytorch" or "bf16" in str(processor)


def test_an_implementation_is_chosen_once_for_a_shape(
    monkeypatch: pytest.MonkeyPatch, on_processor: Callable[[str | None], None]
) -> None:
    on_processor("avx512_bf16")
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(winograd, "is_supported", lambda *shape: bool(asked.append(shape)))
    for shape in [(64, 64, 7, 7), (64, 64, 7, 7), (64, 64, 3, 3), (64, 64, 7, 7)]:
        dispatch.choose("conv3x3", torch.bfloat16, *shape)
    assert asked == [(64, 64, 7, 7), (64, 64, 3, 3)]


def test_layers_follow_when_mode_or_dtype_or_shape_change(
    available: None, unavailable: Callable[[], None], on_processor: Callable[[str | None], None]
) -> None:
    on_processor("avx512_bf16")
    norm, convolution, maps = Norm(32), Convolution3x3(24, 64), torch.randn(64, 24, 7, 7)
    images = torch.randn(4, 32, 3, 3).bfloat16()
    for _ in range(2):  # the second time all shapes are known
        assert norm.train().silu_library(images)
        assert norm.silu_library(images.float()) == "batchnorm_silu_fp32"
        assert not norm.silu_library(images.half())
        assert not norm.silu_library(images[:1, :, :1, :1])  # one value has no variance
        assert not norm.eval().silu_library(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert convolution.train().choose_conv_pool(maps)
            assert not convolution.choose_conv_pool(maps[:63])
            assert not convolution.choose_conv_pool(maps[:, :, :1])
            assert not convolution.eval().choose_conv_pool(maps)
        assert not convolution.train().choose_conv_pool(maps)
    unavailable()
    assert not norm.train().silu_library(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolution.choose_conv_pool(maps)


def test_winograd_ops_have_shapes_and_flops_without_being_computed() -> None:
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        maps, weight = torch.empty(72, 32, 8, 8, dtype=torch.bfloat16), torch.empty(64, 32, 3, 3)
        features, transformed = winograd._products(maps, weight.transpose(0, 1), False)
        assert (features.shape, features.dtype) == ((72, 64, 8, 8), torch.bfloat16)
        assert features.is_contiguous(memory_format=torch.channels_last)
        (elements, rows, channels) = transformed.shape
        assert (elements, channels) == (36, 32)
        assert rows >= 72 * 4
        assert counter.get_total_flops() == 2 * 36 * rows * 32 * 64
        grad_input, grad_transformed = winograd._products(features, weight, True)
        assert grad_input.shape == maps.shape
        gradient = winograd._weight_products(transformed, grad_transformed[:, :rows])
        assert (gradient.shape, gradient.dtype) == ((36, 32, 64), torch.float32)


@pytest.mark.parametrize("size", [(9, 6), (7, 7), (2, 3)])  # 7 pixels: a gradient of 3x3 pixels, as a filter has
def test_conv_pool_ops_have_shapes_and_flops_without_being_computed(size: tuple[int, int]) -> None:
    rows, columns = size[0] // 2, size[1] // 2
    expected = 2 * 64 * 24 * 32 * 9 * 4 * rows * columns
    with FakeTensorMode():
        maps, weight = torch.empty(64, 24, *size, dtype=torch.bfloat16), torch.empty(32, 24, 3, 3)
        with FlopCounterMode(display=False) as forward:
            maxima, indices = conv_pool._conv_pool(maps, weight)
        with FlopCounterMode(display=False) as backward:
            gradient = conv_pool._grad_weight(maps, maxima, indices)
        assert (maxima.shape, indices.dtype, gradient.shape) == ((64, 32, rows, columns), torch.uint8, weight.shape)
    assert forward.get_total_flops() == backward.get_total_flops() == expected
