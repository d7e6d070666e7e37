"""The first convolution with its pooling in one kernel: what PyTorch's two layers give, on less memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sprintnet.kernels import conv_pool
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.kernels.conv_pool import convolve_and_pool
from sprintnet.models.sprintnet import Block

kernel = pytest.mark.usefixtures("kernels")


@pytest.fixture(autouse=True)
def processor(on_processor: Callable[[str | None], None]) -> None:
    """Choices are those for a processor with AVX512-BF16 and without AMX."""
    on_processor("avx512_bf16")


def convolve_then_pool(maps: Tensor, weight: Tensor) -> Tensor:
    return F.max_pool2d(F.conv2d(maps, weight, padding=1), 2)


def with_gradient(layer: object, maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    weight = weight.clone().requires_grad_()
    maxima = layer(maps, weight)  # type: ignore[operator]
    of_maxima = torch.randn(maxima.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    maxima.backward(of_maxima.to(maxima.dtype))
    assert weight.grad is not None
    return maxima.detach(), weight.grad


def drawn(*sizes: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Maps of bf16, and filters of fp32 that are numbers of bf16: products of these are exact."""
    torch.manual_seed(0)
    return torch.randn(sizes).bfloat16(), torch.randn(outputs, sizes[1], 3, 3).bfloat16().float()


@kernel
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (5, 6), (8, 9), (23, 23), (31, 31), (64, 3), (3, 64)])
@pytest.mark.parametrize(("channels", "outputs"), [(8, 32), (24, 64), (32, 96)])
def test_maxima_and_gradients_are_those_of_two_layers(size: tuple[int, int], channels: int, outputs: int) -> None:
    maps, weight = drawn(5, channels, *size, outputs=outputs)
    expected, of_weight = with_gradient(convolve_then_pool, maps.double(), weight.double())
    found, gradient = with_gradient(convolve_and_pool, maps, weight)
    torch.testing.assert_close(found, expected.bfloat16(), rtol=0.01, atol=1e-3)  # a step of bf16, where sums round otherwise
    assert (found == expected.bfloat16()).float().mean() > 0.99
    torch.testing.assert_close(gradient, of_weight.float(), rtol=1e-4, atol=1e-4)


@kernel
def test_the_first_of_equal_pixels_is_the_maximum_and_what_is_no_number_is_most() -> None:
    maps, weight = torch.ones(3, 8, 6, 6).bfloat16(), torch.full((32, 8, 3, 3), 0.5)
    maps[1, 3, 2, 2], maps[2, 0, 0, 5] = torch.nan, torch.inf
    for found, expected in zip(
        with_gradient(convolve_and_pool, maps, weight), with_gradient(convolve_then_pool, maps.float(), weight), strict=True
    ):
        torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01, equal_nan=True)


@kernel
@pytest.mark.parametrize("images", [1, 7, 64, 130])
def test_any_number_of_images_on_any_number_of_threads_gives_the_same(images: int) -> None:
    maps, weight = drawn(images, 24, 9, 7, outputs=64)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(with_gradient(convolve_and_pool, maps, weight))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))
    alone = torch.cat([convolve_and_pool(image, weight) for image in maps.split(1)])
    assert torch.equal(found[0][0], alone)


@kernel
def test_nothing_is_left_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, weight = drawn(21, 24, 9, 8, outputs=64)
    plain = with_gradient(convolve_and_pool, maps, weight)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)  # fills what is empty with NaN
    try:
        assert torch.empty(1).isnan()
        filled = with_gradient(convolve_and_pool, maps, weight)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, plain, filled))


@kernel
def test_the_largest_layers_that_are_allowed_fit_a_threads_stack() -> None:
    maps, weight = drawn(2, 32, 64, 64, outputs=256)
    expected, of_weight = with_gradient(convolve_then_pool, maps.double(), weight.double())
    found, gradient = with_gradient(convolve_and_pool, maps, weight)
    torch.testing.assert_close(found, expected.bfloat16(), rtol=0.01, atol=1e-3)
    torch.testing.assert_close(gradient, of_weight.float(), rtol=1e-4, atol=1e-3)


@kernel
def test_arithmetic_is_counted_as_that_of_a_convolution() -> None:
    maps, weight = drawn(64, 24, 9, 6, outputs=32)
    with FlopCounterMode(display=False) as counter:
        with_gradient(convolve_and_pool, maps, weight)
    assert counter.get_total_flops() == 2 * 2 * 64 * 24 * 32 * 9 * 8 * 6  # forward and one gradient; without the last row


@pytest.mark.usefixtures("available")
@pytest.mark.parametrize(
    ("maps", "weight"),
    [
        (torch.zeros(2, 24, 4, 4), torch.zeros(32, 24, 3, 3)),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 16, 3, 3)),
        (torch.zeros(2, 12, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 12, 3, 3)),
        (torch.zeros(2, 40, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 40, 3, 3)),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(48, 24, 3, 3)),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(288, 24, 3, 3)),
        (torch.zeros(2, 24, 4, 65, dtype=torch.bfloat16), torch.zeros(32, 24, 3, 3)),
        (torch.zeros(2, 24, 1, 4, dtype=torch.bfloat16), torch.zeros(32, 24, 3, 3)),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16), torch.zeros(32, 24, 3, 3, device="meta")),
        (torch.zeros(2, 24, 4, 4, dtype=torch.bfloat16).requires_grad_(), torch.zeros(32, 24, 3, 3)),
    ],
)
def test_what_would_overrun_its_memory_is_refused(maps: Tensor, weight: Tensor) -> None:
    with pytest.raises(ValueError, match="conv_pool: not for maps"):
        convolve_and_pool(maps, weight)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the maps that the kernel took."""
    seen: list[tuple[int, ...]] = []

    def noted(maps: Tensor, weight: Tensor) -> Tensor:
        seen.append(maps.shape)
        return convolve_and_pool(maps, weight)

    monkeypatch.setattr(conv_pool, "convolve_and_pool", noted)
    return seen


@kernel
def test_a_block_takes_it_and_gives_the_same_without_a_compiler(
    taken: list[tuple[int, ...]], unavailable: Callable[[], None]
) -> None:
    torch.manual_seed(0)
    block, maps, found = Block(24, 64, 64), torch.randn(64, 24, 7, 7), []
    for _ in range(2):
        block.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            features = block(maps).float()
        features.square().sum().backward()
        found.append((features.detach(), block[0].weight.grad))
        unavailable()
    assert taken == [maps.shape]
    for ours, theirs in zip(*found, strict=True):
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.995


@pytest.mark.usefixtures("available")
@pytest.mark.parametrize("shape", [(63, 24, 7, 7), (64, 8, 7, 7), (64, 24, 7, 1), (64, 24, 65, 2), (24, 7, 7)])
def test_other_maps_take_two_layers(shape: tuple[int, ...]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert not Convolution3x3(24, 64).choose_conv_pool(torch.randn(shape))


@pytest.mark.usefixtures("available")
@pytest.mark.parametrize(("channels", "outputs"), [(24, 48), (12, 32), (40, 64), (24, 288)])
def test_other_filters_take_two_layers(channels: int, outputs: int) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert not Convolution3x3(channels, outputs).choose_conv_pool(torch.randn(64, channels, 7, 7))


@pytest.mark.usefixtures("available")
def test_nothing_is_compiled_but_for_training_in_bf16_without_a_gradient_of_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, maps = Convolution3x3(24, 64), torch.randn(64, 24, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.choose_conv_pool(maps)
        monkeypatch.setattr(conv_pool, "load_library", lambda name: pytest.fail(f"{name} is loaded"))
        assert not layer.choose_conv_pool(maps.clone().requires_grad_())
        assert not Convolution3x3(24, 64).double().choose_conv_pool(maps)
        assert not Convolution3x3(24, 64).to("meta").choose_conv_pool(maps)
        with torch.no_grad():
            assert not layer.choose_conv_pool(maps)
        assert not layer.eval().choose_conv_pool(maps)
    assert not layer.train().choose_conv_pool(maps)  # in fp32


@kernel
def test_frozen_filters_have_no_gradient() -> None:
    maps, weight = drawn(3, 24, 6, 6, outputs=32)
    assert not convolve_and_pool(maps, weight).requires_grad
