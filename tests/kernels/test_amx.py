"""The kernels with tile instructions against PyTorch in fp64, on a processor with AMX and emulated on any other."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sprintnet.kernels import build, conv3x3_amx, conv_pool_amx
from sprintnet.kernels.compiler import AMX_BF16, UnavailableError

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
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (7, 7), (4, 9), (15, 15), (31, 31), (5, 40)])
@pytest.mark.parametrize(("channels", "outputs"), [(24, 64), (32, 32), (40, 96)])
def test_a_convolution_and_its_gradients_are_pytorchs(size: tuple[int, int], channels: int, outputs: int) -> None:
    maps, weight = inputs(3, channels, *size, outputs=outputs)
    output, grad_weight, grad_input = output_and_gradients(conv3x3_amx.convolve, maps, weight)
    _, expected, _ = output_and_gradients(convolve, maps.double(), weight.double())
    assert relative_error(grad_weight, expected) < 1e-6  # the kernel: fp32 sums
    in_channels_last = maps.contiguous(memory_format=torch.channels_last)
    theirs, _, their_gradient = output_and_gradients(convolve, in_channels_last, weight.bfloat16())
    assert torch.equal(output, theirs)  # the rest is PyTorch's own
    assert torch.equal(grad_input, their_gradient)


@emulated
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (5, 6), (8, 9), (23, 23), (31, 31), (64, 3), (3, 64)])
@pytest.mark.parametrize(("channels", "outputs"), [(2, 32), (24, 64), (32, 96)])
def test_maxima_and_gradients_are_those_of_two_layers(size: tuple[int, int], channels: int, outputs: int) -> None:
    maps, weight = inputs(5, channels, *size, outputs=outputs)
    maxima, gradient = output_and_gradients(conv_pool_amx.convolve_and_pool, maps, weight, with_input=False)
    expected, expected_gradient = output_and_gradients(convolve_then_pool, maps.double(), weight.double(), with_input=False)
    torch.testing.assert_close(maxima, expected.bfloat16(), rtol=0.01, atol=1e-3)  # a step of bf16, where sums round otherwise
    assert (maxima == expected.bfloat16()).float().mean() > 0.99
    torch.testing.assert_close(gradient, expected_gradient.float(), rtol=1e-4, atol=1e-4)


@emulated
def test_the_first_of_equal_pixels_is_the_maximum_and_nan_is_the_largest() -> None:
    maps, weight = torch.ones(3, 8, 6, 6).bfloat16(), torch.full((32, 8, 3, 3), 0.5)
    maps[1, 3, 2, 2], maps[2, 0, 0, 5] = torch.nan, torch.inf
    maxima, gradient = output_and_gradients(conv_pool_amx.convolve_and_pool, maps[:1], weight, with_input=False)
    expected = output_and_gradients(convolve_then_pool, maps[:1].float(), weight, with_input=False)
    assert torch.equal(maxima.float(), expected[0])
    torch.testing.assert_close(gradient, expected[1], rtol=1e-5, atol=1e-5)
    maxima, reference = conv_pool_amx.convolve_and_pool(maps, weight), convolve_then_pool(maps.float(), weight)
    beside = F.max_pool2d(F.pad((~reference.isfinite()).float(), (0, 1)), (1, 2), 1) > 0  # and one window to the left
    assert maxima[reference.isnan()].isnan().all()
    assert not maxima[~beside].isnan().any()
    assert torch.equal(maxima[~beside].float(), reference[~beside])


@emulated
@pytest.mark.parametrize("images", [1, 7, 70])
def test_results_do_not_depend_on_threads_and_leave_nothing_unwritten(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, weight = inputs(images, 24, 9, 7, outputs=64)
    threads, found = torch.get_num_threads(), []
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    try:
        for count, is_filled in ((1, False), (3, False), (2, True)):
            torch.set_num_threads(count)
            torch.use_deterministic_algorithms(is_filled)  # fills what is empty with NaN
            grad_weight = output_and_gradients(conv3x3_amx.convolve, maps, weight)[1]
            found.append([grad_weight, *output_and_gradients(conv_pool_amx.convolve_and_pool, maps, weight, with_input=False)])
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first, other) for more in found[1:] for first, other in zip(found[0], more, strict=True))


@emulated
def test_arithmetic_is_counted_as_that_of_convolutions() -> None:
    maps, weight = inputs(64, 24, 9, 6, outputs=32)
    with FlopCounterMode(display=False) as counter:
        output_and_gradients(conv3x3_amx.convolve, maps, weight)
    assert counter.get_total_flops() == 3 * 2 * 64 * 24 * 32 * 9 * 9 * 6  # forward and two gradients
    with FlopCounterMode(display=False) as counter:
        output_and_gradients(conv_pool_amx.convolve_and_pool, maps, weight, with_input=False)
    assert counter.get_total_flops() == 2 * 64 * 24 * 32 * 9 * 2 * 8 * 6  # without the last row


@pytest.mark.usefixtures("available")
@pytest.mark.parametrize(
    ("maps", "weight"),
    [
        (torch.zeros(2, 24, 4, 4), torch.zeros(32, 24, 3, 3)),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 16, 3, 3)),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(48, 24, 3, 3)),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(1056, 24, 3, 3)),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 24, 3, 3, device="meta")),
    ],
)
def test_what_would_overrun_its_memory_is_refused(maps: Tensor, weight: Tensor) -> None:
    for layer in (conv3x3_amx.convolve, conv_pool_amx.convolve_and_pool):
        with pytest.raises(ValueError, match="_amx: not for maps"):
            layer(maps, weight)


@pytest.mark.usefixtures("available")
def test_pooling_has_no_gradient_of_its_input() -> None:
    maps = torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16).requires_grad_()
    with pytest.raises(ValueError, match="conv_pool_amx: not for maps"):
        conv_pool_amx.convolve_and_pool(maps, torch.zeros(32, 24, 3, 3))


@pytest.mark.usefixtures("available")
@pytest.mark.parametrize("shape", [(2, 24, 1, 4), (2, 40, 4, 4), (2, 9, 4, 4)])
def test_pooling_refuses_more_channels_odd_ones_and_maps_without_a_window(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="conv_pool_amx: not for maps"):
        conv_pool_amx.convolve_and_pool(torch.zeros(shape, dtype=torch.bfloat16), torch.zeros(32, shape[1], 3, 3))


def test_a_system_without_permission_for_tiles_has_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UnavailableError("the system does not permit AMX")

    monkeypatch.setattr(build, "cpu_flags", lambda: AMX_BF16.features)
    monkeypatch.setattr(build, "_request_tiles", refuse)
    build._library.cache_clear()
    assert not conv3x3_amx.is_supported(64, 64, 7, 7)
    assert build._library("conv3x3_amx", build.SOURCES) == "the system does not permit AMX"
    build._library.cache_clear()
