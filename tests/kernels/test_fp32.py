"""The kernels in fp32 against PyTorch in fp64, built for vectors of every width that this processor has, and for ARM."""

import itertools
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.kernels import conv_pool_fp32, dispatch, winograd, winograd_fp32
from sprintnet.kernels.batchnorm import Norm
from sprintnet.kernels.compiler import AVX2, AVX512
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.kernels.max_pool import MaxPool2x2
from sprintnet.models.sprintnet import SprintNet

compiled = pytest.mark.usefixtures("vectors")


def output_and_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@compiled
@pytest.mark.parametrize(
    ("size", "channels", "outputs"),
    [
        *(
            (size, *channels)
            for size, channels in itertools.product(
                [(2, 2), (3, 3), (4, 4), (5, 7), (7, 7), (11, 11), (15, 15)], [(32, 96), (64, 32), (48, 64), (24, 64)]
            )
        ),
        ((8, 8), 32, 96),
        ((13, 14), 64, 32),
        ((31, 32), 32, 96),
    ],
)
def test_winograd_convolution_is_pytorchs(size: tuple[int, int], channels: int, outputs: int) -> None:
    if not winograd_fp32.is_supported(channels, outputs, *size):
        assert channels % 16  # of vectors of 16 values
        return
    torch.manual_seed(0)
    maps, weight = torch.randn(7, channels, *size), torch.randn(outputs, channels, 3, 3)
    error = {7: 2e-5, 8: 3e-5}.get(winograd._tile_side(maps, weight), 1e-5)
    found = output_and_gradients(winograd_fp32.convolve, maps, weight)
    expected = output_and_gradients(lambda x, w: F.conv2d(x, w, padding=1), maps.double(), weight.double())
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours, theirs) < error


def conv_pool_gradient(function: Callable[..., Tensor], maps: Tensor, weight: Tensor) -> list[Tensor]:
    return output_and_gradients(lambda leaf: function(maps, leaf), weight)


@compiled
@pytest.mark.parametrize(
    ("channels", "outputs", "size"),
    [
        (24, 64, (31, 31)),
        (24, 64, (2, 2)),
        (2, 32, (3, 2)),
        (32, 96, (5, 6)),
        (14, 256, (8, 9)),
        (32, 32, (64, 3)),
        (14, 96, (3, 64)),
    ],
)
def test_convolution_with_pooling_is_pytorchs_two_layers(channels: int, outputs: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(5, channels, *size), torch.randn(outputs, channels, 3, 3)
    _, indices = conv_pool_fp32._conv_pool(maps.contiguous(memory_format=torch.channels_last), weight)

    def convolve_then_take(maps: Tensor, weight: Tensor) -> Tensor:
        """Takes the pixels that the kernel took: of nearly equal ones, rounding decides which is the maximum."""
        rows, columns = size[0] // 2, size[1] // 2
        pixels = F.conv2d(maps, weight, padding=1)[:, :, : 2 * rows, : 2 * columns]
        windows = pixels.unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).transpose(3, 4).flatten(4)
        taken = windows.gather(4, indices.long()[..., None])[..., 0]
        assert relative_error(taken.detach(), windows.amax(4).detach()) < 1e-6
        return taken

    found = conv_pool_gradient(conv_pool_fp32.convolve_and_pool, maps, weight)
    expected = conv_pool_gradient(convolve_then_take, maps.double(), weight.double())
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours, theirs) < 1e-5


@compiled
def test_the_first_of_equal_pixels_is_the_maximum_and_nan_stays_in_its_image() -> None:
    maps, weight = torch.zeros(3, 24, 9, 9), torch.randn(32, 24, 3, 3)
    maps[1, 3, 2, 2] = torch.nan
    maxima, indices = conv_pool_fp32._conv_pool(maps.contiguous(memory_format=torch.channels_last), weight)
    assert not indices[::2].any()
    assert maxima[1, :, 0, 0].isnan().all()
    assert not maxima[::2].any()


@compiled
@pytest.mark.parametrize("images", [1, 7, 70])
def test_any_number_of_images_on_any_number_of_threads_gives_the_same(images: int) -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(images, 24, 31, 9), torch.randn(64, 24, 3, 3)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(conv_pool_gradient(conv_pool_fp32.convolve_and_pool, maps, weight))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))
    assert torch.equal(found[0][0][-1:], conv_pool_fp32.convolve_and_pool(maps[-1:], weight))


@compiled
@pytest.mark.parametrize("shape", [(8, 16, 1, 1), (9, 32, 7, 7), (130, 64, 3, 5)])
def test_norm_and_silu_are_pytorchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    maps, ours, theirs = 3 * torch.randn(shape) + 1, Norm(shape[1]), Norm(shape[1]).double()
    assert ours.library(maps) == "batchnorm_fp32"
    found = output_and_gradients(lambda x: ours.forward_activated(x, nn.SiLU()), maps)
    expected = output_and_gradients(lambda x: F.silu(theirs(x)), maps.double())
    for pair in zip([*found, ours.bias.grad], [*expected, theirs.bias.grad], strict=True):
        assert relative_error(*pair) < 1e-5  # type: ignore[arg-type]
    torch.testing.assert_close(ours.running_mean, theirs.running_mean.float())  # type: ignore[union-attr]
    torch.testing.assert_close(ours.running_var, theirs.running_var.float())  # type: ignore[union-attr]


@compiled
def test_silu_is_exact_where_it_saturates() -> None:
    maps = torch.tensor([-1e4, -200.0, -88.0, -1e-30, 0.0, 1e-30, 88.0, 200.0]).repeat(16, 1).T.reshape(8, 16, 1, 1)
    norm = Norm(16)
    norm.eps = 0.0
    library = norm.library(maps)
    assert library
    x = maps.contiguous(memory_format=torch.channels_last)
    features, one, zero = torch.empty_like(x), torch.ones(16), torch.zeros(16)
    from sprintnet.kernels.build import call

    call(library, "forward", 8, 16, False, x, one, zero, one, zero, None, features)
    torch.testing.assert_close(features, F.silu(maps.double()).float(), rtol=1e-6, atol=1e-30)


@compiled
@pytest.mark.parametrize("shape", [(3, 32, 2, 2), (2, 64, 7, 7), (5, 96, 6, 9), (1, 32, 31, 4)])
def test_maxima_and_their_gradients_are_pytorchs_in_every_bit(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(shape).round(decimals=1)  # many are equal
    maps[0, 0, 0, 0], maps[0, 1, 0, 1], maps[0, 2, 1, 1], maps[0, 3] = torch.inf, torch.nan, -torch.nan, -torch.inf
    assert dispatch.pooling_library(torch.float32, *shape[1:]) == "max_pool_fp32"
    found, expected = (output_and_gradients(pool, maps) for pool in (MaxPool2x2(), nn.MaxPool2d(2)))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@compiled
@pytest.mark.parametrize("vectors", [AVX2, AVX512], indirect=True)  # emulated, it would take 20 s
def test_a_step_of_the_network_is_that_in_fp64(
    unavailable: Callable[[], None], on_processor: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = SprintNet(10, 3, (32, 32), width=32).to(memory_format=torch.channels_last)
    # averages: of two nearly equal pixels, rounding decides which is the maximum, and so where its gradient goes
    monkeypatch.setattr(Convolution3x3, "choose_conv_pool", lambda layer, maps: None)
    for block in network.blocks:
        block[1] = nn.AvgPool2d(2)  # type: ignore[operator]
    network.pool = nn.AdaptiveAvgPool2d(1)  # type: ignore[assignment]
    images = torch.randn(64, 3, 32, 32)

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        copy = deepcopy(network).to(dtype)
        F.cross_entropy(copy(images.to(dtype)), torch.arange(64) % 10).backward()
        return [parameter.grad for parameter in copy.parameters() if parameter.grad is not None]

    on_processor("avx2")
    found = gradients(torch.float32)
    for pair in zip(found, gradients(torch.float64), strict=True):
        assert relative_error(*pair) < 1e-4
    unavailable()
    assert not all(map(torch.equal, found, gradients(torch.float32)))  # kernels round in another order


def test_other_maps_are_refused() -> None:
    maps, weight = torch.randn(64, 32, 7, 7), torch.randn(64, 32, 3, 3)
    for wrong in ((maps.bfloat16(), weight), (maps, weight[:, :16]), (maps, weight.to("meta")), (maps[:, :, :1], weight)):
        with pytest.raises(ValueError, match="winograd_fp32: not for maps"):
            winograd_fp32.convolve(*wrong)


@compiled
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((2, 23, 4, 4), 32), ((2, 34, 4, 4), 32), ((2, 24, 4, 65), 32), ((2, 24, 1, 4), 32), ((2, 24, 4, 4), 36)],
)
def test_what_would_overrun_the_memory_of_convolution_with_pooling_is_refused(shape: tuple[int, ...], outputs: int) -> None:
    maps, weight = torch.zeros(shape), torch.zeros(outputs, shape[1], 3, 3)
    for wrong in ((maps, weight), (torch.zeros(2, 24, 4, 4).requires_grad_(), torch.zeros(32, 24, 3, 3))):
        with pytest.raises(ValueError, match="conv_pool_fp32: not for maps"):
            conv_pool_fp32.convolve_and_pool(*wrong)
