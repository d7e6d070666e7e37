"""Which implementation a layer takes, and shapes and FLOPs of the custom ops; all of it on any machine."""

import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sprintnet.kernels import build, conv3x3_amx, conv_pool, conv_pool_fp32, dispatch, winograd, winograd_fp32, winograd_torch
from sprintnet.kernels.batchnorm import Norm
from sprintnet.kernels.compiler import ASIMD
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.runs.environment import cpu_flags

TABLE = """processor,layer,channels,out_channels,side,implementations
amx_bf16,conv3x3,64,64,15,amx pytorch winograd
amx_bf16,conv3x3,256,256,3,winograd_torch amx
amx_bf16,conv_pool,24,64,31,amx pytorch
avx512_bf16,conv3x3,24,64,31,pytorch
avx512_bf16,conv3x3,64,64,15,winograd
avx512_bf16,conv3x3,256,256,7,winograd winograd_torch
avx512_bf16,conv_pool,24,64,31,avx512_bf16
avx2,conv3x3,64,64,15,winograd_fp32 pytorch
avx2,conv_pool,24,64,31,winograd_fp32 pytorch
"""
BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget_choices: Callable[[], None]) -> Iterator[None]:
    """A table of choices for these tests."""
    monkeypatch.setattr(dispatch, "TABLE", tmp_path / "choices.csv")
    dispatch.TABLE.write_text(TABLE, "utf-8")
    dispatch.choices.cache_clear()
    yield
    dispatch.choices.cache_clear()


@pytest.mark.parametrize(
    ("processor", "layer", "dtype", "shape", "expected", "without_kernels"),
    [
        ("amx_bf16", "conv3x3", BF16, (64, 64, 15, 15), conv3x3_amx, None),
        ("amx_bf16", "conv3x3", BF16, (64, 96, 32, 2), conv3x3_amx, None),
        ("amx_bf16", "conv3x3", BF16, (128, 130, 3, 3), winograd_torch, winograd_torch),
        ("amx_bf16", "conv3x3", BF16, (64, 80, 15, 15), None, None),  # not a multiple of 32; PyTorch comes before Winograd
        ("amx_bf16", "conv_pool", BF16, (24, 64, 23, 23), conv3x3_amx, None),
        ("amx_bf16", "conv_pool", BF16, (24, 80, 31, 31), None, None),
        ("amx_bf16", "conv3x3", FP32, (64, 64, 15, 15), None, None),  # no row
        ("avx512_bf16", "conv3x3", BF16, (64, 64, 15, 15), winograd, None),
        ("avx512_bf16", "conv3x3", BF16, (256, 256, 7, 7), winograd, winograd_torch),
        ("avx512_bf16", "conv3x3", BF16, (256, 130, 7, 7), winograd_torch, winograd_torch),
        ("avx512_bf16", "conv3x3", BF16, (2048, 256, 7, 7), winograd_torch, winograd_torch),  # too many for a thread's stack
        ("avx512_bf16", "conv3x3", BF16, (128, 128, 1, 7), None, None),
        ("avx512_bf16", "conv3x3", BF16, (24, 64, 23, 23), None, None),
        ("avx512_bf16", "conv_pool", BF16, (24, 64, 31, 31), conv_pool, None),
        ("avx2", "conv3x3", FP32, (128, 64, 7, 7), winograd_fp32, None),
        ("avx2", "conv3x3", BF16, (128, 64, 7, 7), None, None),
        ("avx2", "conv_pool", FP32, (24, 64, 23, 23), conv_pool_fp32, None),
        ("avx2", "conv_pool", FP32, (23, 64, 23, 23), None, None),
        (None, "conv3x3", BF16, (64, 64, 15, 15), None, None),
    ],
)
def test_a_layer_takes_the_first_implementation_that_supports_it_of_the_nearest_row(
    processor: str | None,
    layer: str,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    expected: ModuleType | None,
    without_kernels: ModuleType | None,
    table: None,
    available: None,
    unavailable: Callable[[], None],
    on_processor: Callable[[str | None], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "fp32_lanes", lambda: 8 if winograd.load_library("winograd_fp32") else 0)
    on_processor(processor)
    assert dispatch.choose(layer, dtype, *shape) is expected
    unavailable()
    on_processor(processor)
    assert dispatch.choose(layer, dtype, *shape) is without_kernels


def test_the_shipped_table_names_implementations_that_support_their_layer(
    available: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = {"asimd": 4, "avx2": 8, "avx512f": 16}
    for (processor, layer), choices in dispatch.choices().items():
        assert processor in {*build.PROCESSORS["bf16"], *build.PROCESSORS["fp32"]}
        monkeypatch.setattr(winograd, "fp32_lanes", lambda kind=processor: lanes.get(kind, 0))
        for channels, out_channels, side, implementations in choices:
            for name in set(implementations) - {"pytorch"}:
                assert dispatch.IMPLEMENTATIONS[layer][name].is_supported(channels, out_channels, side, side)


def test_a_processor_of_arm_has_kernels_in_fp32(available: None, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch.choices()  # before files seem to be others
    monkeypatch.setattr(Path, "read_text", lambda *_: "processor\t: 0\nFeatures\t: fp asimd crc32\n\nprocessor\t: 1\n")
    monkeypatch.setattr(winograd, "fp32_lanes", lambda: 4)
    assert cpu_flags() == {"fp", "asimd", "crc32"}
    assert (build.processor("fp32"), build.processor("bf16")) == ("asimd", None)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert build.instruction_set("winograd_fp32") is ASIMD
    assert dispatch.choose("conv3x3", FP32, 64, 64, 15, 15) is winograd_fp32
    assert dispatch.choose("conv3x3", BF16, 64, 64, 15, 15) is None


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
        assert norm.train().library(images)
        assert norm.library(images.float()) == "batchnorm_fp32"
        assert not norm.library(images.half())
        assert not norm.library(images[:1, :, :1, :1])  # one value has no variance
        assert not norm.eval().library(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert convolution.train().choose_conv_pool(maps)
            assert not convolution.choose_conv_pool(maps[:63])
            assert not convolution.choose_conv_pool(maps[:, :, :1])
            assert not convolution.eval().choose_conv_pool(maps)
        assert not convolution.train().choose_conv_pool(maps)
    unavailable()
    assert not norm.train().library(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolution.choose_conv_pool(maps)


@pytest.mark.parametrize(("dtype", "elements_of_a_tile", "tiles"), [(torch.bfloat16, 36, 4), (torch.float32, 100, 1)])
def test_winograd_ops_have_shapes_and_flops_without_being_computed(
    dtype: torch.dtype, elements_of_a_tile: int, tiles: int
) -> None:
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        maps, weight = torch.empty(72, 32, 8, 8, dtype=dtype), torch.empty(64, 32, 3, 3)
        features, transformed = winograd._products(maps, weight.transpose(0, 1), False)
        assert (features.shape, features.dtype) == ((72, 64, 8, 8), dtype)
        assert features.is_contiguous(memory_format=torch.channels_last)
        (elements, rows, channels) = transformed.shape
        assert (elements, channels) == (elements_of_a_tile, 32)
        assert rows >= 72 * tiles
        assert counter.get_total_flops() == 2 * elements * rows * 32 * 64
        grad_input, grad_transformed = winograd._products(features, weight, True)
        assert grad_input.shape == maps.shape
        gradient = winograd._weight_products(transformed, grad_transformed[:, :rows])
        assert (gradient.shape, gradient.dtype) == ((elements, 32, 64), torch.float32)


@pytest.mark.parametrize("size", [(9, 6), (7, 7), (2, 3)])  # 7 pixels: a gradient of 3x3 pixels, as a filter has
@pytest.mark.parametrize(("module", "dtype"), [(conv_pool, BF16), (conv_pool_fp32, FP32)])
def test_conv_pool_ops_have_shapes_and_flops_without_being_computed(
    size: tuple[int, int], module: ModuleType, dtype: torch.dtype
) -> None:
    rows, columns = size[0] // 2, size[1] // 2
    expected = 2 * 64 * 24 * 32 * 9 * 4 * rows * columns
    with FakeTensorMode():
        maps, weight = torch.empty(64, 24, *size, dtype=dtype), torch.empty(32, 24, 3, 3)
        with FlopCounterMode(display=False) as forward:
            maxima, indices = module._conv_pool(maps, weight)
        with FlopCounterMode(display=False) as backward:
            gradient = module._grad_weight(maps, maxima, indices)
        assert (maxima.shape, indices.dtype, gradient.shape) == ((64, 32, rows, columns), torch.uint8, weight.shape)
    assert forward.get_total_flops() == backward.get_total_flops() == expected
