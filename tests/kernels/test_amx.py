"""The kernels with tile instructions against PyTorch in fp64, on a processor with AMX and emulated on any other."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sprintnet.kernels import build, conv3x3_amx
from sprintnet.kernels.batchnorm import BatchNorm2d
from sprintnet.kernels.compiler import AMX_BF16, UnavailableError
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.kernels.gelu import gelu
from sprintnet.kernels.max_pool import MaxPool2x2
from sprintnet.kernels.tensors import is_hwnc, to_hwnc

Layer = Callable[[Tensor, Tensor], Tensor]
emulated = pytest.mark.usefixtures("tiles")


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(maps, weight, padding=1)


def convolve_then_pool(maps: Tensor, weight: Tensor) -> Tensor:
    return F.max_pool2d(convolve(maps, weight), 2)


def inputs(*shape: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns bf16 maps and fp32 filters with values of bf16, whose products are exact."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, shape[1], 3, 3, generator=generator).bfloat16().float()
    return torch.randn(shape, generator=generator).bfloat16(), weight


def output_and_gradients(layer: Layer, maps: Tensor, weight: Tensor, with_input: bool = True) -> list[Tensor]:
    maps, weight = maps.clone().requires_grad_(with_input), weight.clone().requires_grad_()
    output = layer(maps, weight)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(output.dtype)
    output.backward(gradient.contiguous(memory_format=torch.channels_last))
    return [tensor for tensor in (output.detach(), weight.grad, maps.grad) if tensor is not None]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@emulated
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (7, 7), (4, 9), (5, 17)])
@pytest.mark.parametrize(("channels", "outputs"), [(3, 64), (24, 32), (40, 96)])
@pytest.mark.parametrize("images", [32, 75])
def test_a_convolution_and_its_gradients_are_pytorchs(size: tuple[int, int], channels: int, outputs: int, images: int) -> None:
    maps, weight = inputs(images, channels, *size, outputs=outputs)
    output, grad_weight, grad_input = output_and_gradients(conv3x3_amx.convolve, maps, weight)
    expected, expected_grad_weight, expected_grad_input = output_and_gradients(convolve, maps.double(), weight.double())
    assert to_hwnc(output) is output
    assert relative_error(grad_weight, expected_grad_weight) < 1e-6  # fp32 sums
    assert relative_error(output, expected) < 0.003  # of bf16 values
    assert relative_error(grad_input, expected_grad_input) < 0.003


@emulated
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (5, 6), (8, 9), (2, 31)])
@pytest.mark.parametrize(("channels", "outputs"), [(2, 32), (24, 64), (32, 96)])
def test_maxima_and_gradients_are_those_of_two_layers(size: tuple[int, int], channels: int, outputs: int) -> None:
    maps, weight = inputs(37, channels, *size, outputs=outputs)
    maxima, grad_weight, grad_input = output_and_gradients(conv3x3_amx.convolve_and_pool, maps, weight)
    expected, expected_grad_weight, expected_grad_input = output_and_gradients(
        convolve_then_pool, maps.double(), weight.double()
    )
    assert to_hwnc(maxima) is maxima
    torch.testing.assert_close(maxima, expected.bfloat16(), rtol=0.01, atol=1e-3)  # a step of bf16, where sums round otherwise
    assert (maxima == expected.bfloat16()).float().mean() > 0.99
    torch.testing.assert_close(grad_weight, expected_grad_weight.float(), rtol=1e-4, atol=1e-4)
    assert relative_error(grad_input, expected_grad_input) < 0.003


@emulated
@pytest.mark.parametrize(
    ("layer", "reference"), [(conv3x3_amx.convolve, convolve), (conv3x3_amx.convolve_and_pool, convolve_then_pool)]
)
def test_maps_that_are_taller_than_a_band_of_rows_are_whole(layer: Layer, reference: Layer) -> None:
    maps, weight = inputs(32, 128, 9, 17, outputs=32)  # bands of 4 rows
    found, expected = output_and_gradients(layer, maps, weight), output_and_gradients(reference, maps.double(), weight.double())
    for ours, exact in zip(found, expected, strict=True):
        assert relative_error(ours, exact) < 0.003


@emulated
def test_the_first_of_equal_pixels_is_the_maximum_and_nan_is_the_largest() -> None:
    maps, weight = torch.ones(40, 32, 6, 6).bfloat16(), torch.full((32, 32, 3, 3), 0.5)
    found = output_and_gradients(conv3x3_amx.convolve_and_pool, maps, weight)
    expected = output_and_gradients(convolve_then_pool, maps.float(), weight)
    assert torch.equal(found[0].float(), expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)
    maps[1, 3, 2, 2], maps[2, 0, 0, 5] = torch.nan, torch.inf
    maxima, reference = conv3x3_amx.convolve_and_pool(maps, weight), convolve_then_pool(maps.float(), weight)
    torch.testing.assert_close(maxima.float(), reference, rtol=0, atol=0, equal_nan=True)


@emulated
@pytest.mark.parametrize("images", [32, 70])
def test_results_do_not_depend_on_threads_and_leave_nothing_unwritten(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, weight = inputs(images, 24, 9, 7, outputs=64)
    threads, found = torch.get_num_threads(), []
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    try:
        for count, is_filled in ((1, False), (3, False), (2, True)):
            torch.set_num_threads(count)
            torch.use_deterministic_algorithms(is_filled)  # fills what is empty with NaN
            layers = conv3x3_amx.convolve, conv3x3_amx.convolve_and_pool
            found.append([tensor for layer in layers for tensor in output_and_gradients(layer, maps, weight)])
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first, other) for more in found[1:] for first, other in zip(found[0], more, strict=True))


@emulated
@pytest.mark.parametrize("chunk_bytes", [1, 2**14, 2**16])
def test_gradients_do_not_depend_on_what_is_laid_out_at_once(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, weight = inputs(100, 32, 7, 5, outputs=32)
    expected = [output_and_gradients(layer, maps, weight)[1] for layer in (conv3x3_amx.convolve, conv3x3_amx.convolve_and_pool)]
    monkeypatch.setattr(conv3x3_amx, "CHUNK_BYTES", chunk_bytes)
    found = [output_and_gradients(layer, maps, weight)[1] for layer in (conv3x3_amx.convolve, conv3x3_amx.convolve_and_pool)]
    for ours, others in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, others, rtol=1e-5, atol=1e-4)


@emulated
def test_gelu_is_pytorchs_in_the_layout_that_the_convolution_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, layer = (3 * torch.randn(70, 24, 9, 5)).bfloat16(), Convolution3x3(24, 32)
    monkeypatch.setattr(layer, "choose_conv_pool", lambda maps: conv3x3_amx)
    found, exact = gelu(maps, layer), F.gelu(maps.double())
    torch.testing.assert_close(found.double(), exact, rtol=0.005, atol=1e-6)
    assert to_hwnc(found, conv3x3_amx.BLOCK) is found  # no copy in the convolution
    assert to_hwnc(gelu(maps.requires_grad_(), layer)) is not found  # PyTorch's, with a gradient


@pytest.mark.usefixtures("kernels")
def test_pooling_and_norm_are_the_same_in_both_layouts() -> None:
    maps, pool, norm = torch.randn(40, 64, 7, 5).bfloat16(), MaxPool2x2(), BatchNorm2d(64)
    found = []
    for layout in (to_hwnc, lambda maps: maps.contiguous(memory_format=torch.channels_last)):
        x = layout(maps).detach().requires_grad_()
        output = norm.forward_activated(pool(x), F.silu)
        output.backward(torch.ones_like(output))
        assert x.grad is not None
        assert is_hwnc(output) == is_hwnc(x) == is_hwnc(x.grad)
        found.append((output.detach(), x.grad))
    torch.testing.assert_close(*found, rtol=0.02, atol=1e-3)  # sums over a batch are in another order
    expected = torch.nn.BatchNorm2d(64)(maps.float())
    torch.testing.assert_close(norm(to_hwnc(maps.float())), expected)


@emulated
def test_arithmetic_is_counted_as_that_of_convolutions() -> None:
    maps, weight = inputs(64, 24, 9, 6, outputs=32)
    with FlopCounterMode(display=False) as counter:
        output_and_gradients(conv3x3_amx.convolve, maps, weight)
    assert counter.get_total_flops() == 3 * 2 * 64 * 24 * 32 * 9 * 9 * 6  # forward and two gradients
    with FlopCounterMode(display=False) as counter:
        output_and_gradients(conv3x3_amx.convolve_and_pool, maps, weight)
    assert counter.get_total_flops() == 3 * 2 * 64 * 24 * 32 * 9 * 8 * 6  # without the last row


@pytest.mark.usefixtures("available")
@pytest.mark.parametrize(
    ("maps", "weight"),
    [
        (torch.zeros(32, 24, 4, 4), torch.zeros(32, 24, 3, 3)),
        (torch.zeros(32, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 16, 3, 3)),
        (torch.zeros(32, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(48, 24, 3, 3)),
        (torch.zeros(32, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(1056, 24, 3, 3)),
        (torch.zeros(32, 1025, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 1025, 3, 3)),
        (torch.zeros(31, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 24, 3, 3)),
        (torch.zeros(32, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 24, 3, 3, device="meta")),
    ],
)
def test_what_would_overrun_its_memory_is_refused(maps: Tensor, weight: Tensor) -> None:
    for layer in (conv3x3_amx.convolve, conv3x3_amx.convolve_and_pool):
        with pytest.raises(ValueError, match="conv3x3_amx: not for maps"):
            layer(maps, weight)


def test_a_system_without_permission_for_tiles_has_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UnavailableError("the system does not permit AMX")

    monkeypatch.setattr(build, "cpu_flags", lambda: AMX_BF16.features)
    monkeypatch.setattr(build, "_request_tiles", refuse)
    build._library.cache_clear()
    assert not conv3x3_amx.is_supported(64, 64, 7, 7)
    assert build._library("conv3x3_amx", build.SOURCES) == "the system does not permit AMX"
    build._library.cache_clear()
