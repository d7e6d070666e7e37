"""Winograd convolution, in C and in PyTorch's operations: the same results and gradients as PyTorch's own convolution."""

from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sprintnet.kernels import toom_cook, winograd, winograd_torch

SIZES = [(2, 2), (3, 3), (4, 4), (5, 7), (7, 7), (8, 3), (9, 10), (15, 15), (16, 16)]
kernel = pytest.mark.usefixtures("kernels")


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def with_gradients(convolution: object, maps: Tensor, weight: Tensor) -> list[Tensor]:
    maps, weight = maps.clone().requires_grad_(), weight.clone().requires_grad_()
    features = convolution(maps, weight)  # type: ignore[operator]
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)).to(features.dtype)
    (features * weights).sum().backward()
    assert maps.grad is not None
    assert weight.grad is not None
    return [features.detach(), maps.grad, weight.grad]


def pytorchs_own(maps: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(maps, weight, padding=1)


def compare(way: ModuleType, maps: Tensor, weight: Tensor, dtype: torch.dtype, error: float) -> None:
    exact = with_gradients(pytorchs_own, maps.double(), weight.double())
    for found, expected in zip(with_gradients(way.convolve, maps.to(dtype), weight), exact, strict=True):
        assert found.shape == expected.shape
        assert relative_error(found, expected) < error


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
def test_pytorchs_operations_convolve(size: tuple[int, int], dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    compare(winograd_torch, torch.randn(6, 16, *size), torch.randn(24, 16, 3, 3), dtype, error)


@kernel
@pytest.mark.parametrize("size", [*SIZES, (5, 5), (31, 31), (32, 2)])
@pytest.mark.parametrize(("channels", "outputs"), [(32, 96), (64, 32)])
def test_the_kernel_convolves(size: tuple[int, int], channels: int, outputs: int) -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(7, channels, *size), torch.randn(outputs, channels, 3, 3)
    error = {2: 0.008, 3: 0.011, 4: 0.02, 5: 0.036}[winograd._tile_side(maps.bfloat16(), weight)]
    compare(winograd, maps, weight, torch.bfloat16, error)


@kernel
def test_the_kernel_takes_any_number_of_images_and_any_layout_of_memory() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 32, 3, 3)
    for images in (1, 2, 5, 129):
        maps = torch.randn(images, 32, 7, 7)
        assert maps.is_contiguous()  # channels first
        compare(winograd, maps, weight, torch.bfloat16, 0.02)
    shifted = torch.randn(2 * 32 * 49 + 1)[1:].view(2, 7, 7, 32).permute(0, 3, 1, 2).to(torch.bfloat16)
    beside = torch.empty(shifted.numel() + 1, dtype=torch.bfloat16)[1:].view(2, 7, 7, 32).permute(0, 3, 1, 2).copy_(shifted)
    assert beside.data_ptr() % 64  # where no line of memory begins
    assert torch.equal(winograd.convolve(beside, weight), winograd.convolve(shifted, weight))


@kernel
def test_filters_lie_as_they_may_and_their_gradient_alike() -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(5, 64, 7, 7).bfloat16(), torch.randn(32, 64, 3, 3)
    wide = torch.zeros(32, 64, 5, 5)[:, :, 1:4, 1:4]
    layouts = {
        (576, 9, 3, 1): weight,
        (576, 1, 192, 64): weight.to(memory_format=torch.channels_last),
        (576, 9, 1, 3): weight.mT.contiguous().mT,
    }
    found = [winograd.convolve(maps, wide.copy_(weight))]
    for strides, filters in layouts.items():
        assert filters.requires_grad_().stride() == strides
        features = winograd.convolve(maps, filters)
        (gradient,) = torch.autograd.grad(features.square().sum(), filters)
        assert gradient.stride() == strides
        found += [features, gradient]
    assert all(torch.equal(found[0], features) for features in found[1::2])
    assert all(torch.equal(found[2], gradient) for gradient in found[4::2])


@kernel
def test_the_kernels_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    maps, weight, threads = torch.randn(40, 64, 7, 7).bfloat16(), torch.randn(64, 64, 3, 3), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = with_gradients(winograd.convolve, maps, weight)
        torch.set_num_threads(3)
        together = with_gradients(winograd.convolve, maps, weight)
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, alone, together))


@kernel
def test_the_kernel_leaves_nothing_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(21, 96, 7, 9).bfloat16(), torch.randn(64, 96, 3, 3)
    plain = with_gradients(winograd.convolve, maps, weight)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)  # fills what is empty with NaN
    try:
        assert torch.empty(1).isnan()
        filled = with_gradients(winograd.convolve, maps, weight)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, plain, filled))


@kernel
def test_as_many_channels_as_are_allowed_fit_a_threads_stack() -> None:
    torch.manual_seed(0)
    compare(winograd, torch.randn(33, 1024, 3, 3), torch.randn(1024, 1024, 3, 3), torch.bfloat16, 0.02)
    compare(winograd, torch.randn(3, 32, 32, 32), torch.randn(32, 32, 3, 3), torch.bfloat16, 0.02)


@pytest.mark.usefixtures("available")
@pytest.mark.parametrize(
    ("maps", "weight"),
    [
        (torch.zeros(2, 32, 4, 4), torch.zeros(32, 32, 3, 3)),
        (torch.zeros(2, 32, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 32, 3, 3, dtype=torch.float64)),
        (torch.zeros(2, 32, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 32, 3, 3, device="meta")),
        (torch.zeros(2, 64, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 32, 3, 3)),
        (torch.zeros(2, 48, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 48, 3, 3)),
        (torch.zeros(2, 32, 4, 33, dtype=torch.bfloat16), torch.zeros(32, 32, 3, 3)),
        (torch.zeros(1, 2048, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 2048, 3, 3)),
    ],
)
def test_the_kernel_refuses_what_would_overrun_its_memory(maps: Tensor, weight: Tensor) -> None:
    with pytest.raises(ValueError, match="winograd: not for maps"):
        winograd.convolve(maps, weight)


@kernel
def test_the_kernels_arithmetic_is_counted() -> None:
    maps, weight = torch.randn(72, 32, 8, 8).bfloat16().requires_grad_(), torch.randn(64, 32, 3, 3).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        winograd.convolve(maps, weight).sum().backward()
    a_convolution = 3 * 2 * 72 * 32 * 64 * 9 * 8 * 8  # forward and two gradients
    assert a_convolution / 4 <= counter.get_total_flops() < a_convolution / 3.5  # 36 products instead of 144, and its filters


@pytest.mark.parametrize("outputs", toom_cook.POINTS)
def test_a_tile_is_the_filter_slid_along_it(outputs: int) -> None:
    output, taps, inputs = toom_cook.toom_cook(outputs)
    signal, filter_ = torch.randn(outputs + 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    assert output.shape == (outputs, outputs + 2)
    torch.testing.assert_close(output @ ((taps @ filter_) * (inputs @ signal)), signal.unfold(0, 3, 1) @ filter_)


@pytest.mark.parametrize("outputs", toom_cook.POINTS)
def test_opposite_points_differ_in_the_sign_of_odd_pixels_as_the_kernel_takes_for_granted(outputs: int) -> None:
    output, _, inputs = toom_cook.toom_cook(outputs)
    points = toom_cook.POINTS[outputs]
    for matrix in (inputs, output.T):
        for number, point in enumerate(points):
            if point > 0:
                torch.testing.assert_close(matrix[number + 1, 0::2], matrix[number, 0::2])
                torch.testing.assert_close(matrix[number + 1, 1::2], -matrix[number, 1::2])
            if point == 0:
                assert not matrix[number, 1::2].any()
        assert not matrix[-1, 1 - len(points) % 2 :: 2].any()  # infinity's: of the parity of the last power


@pytest.mark.parametrize("name", ["winograd", "winograd_torch"])
def test_gradients_arrive_with_channels_last_as_the_layers_before_need_them(name: str, request: pytest.FixtureRequest) -> None:
    if name == "winograd":
        request.getfixturevalue("kernels")
    way: ModuleType = {"winograd": winograd, "winograd_torch": winograd_torch}[name]
    maps = torch.randn(4, 32, 7, 7).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    features = way.convolve(maps, torch.randn(32, 32, 3, 3))
    assert features.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(features.square().sum(), maps)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
