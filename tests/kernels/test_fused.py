"""The compiled pooling and norm against PyTorch's own, and the network that has them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.kernels.batchnorm import Norm
from sprintnet.kernels.max_pool import MaxPool2x2
from sprintnet.models.sprintnet import SprintNet

kernel = pytest.mark.usefixtures("kernels")


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@kernel
@pytest.mark.parametrize("shape", [(3, 32, 2, 2), (2, 64, 7, 7), (5, 96, 6, 9), (1, 32, 31, 4)])
def test_maxima_and_their_gradients_are_pytorchs_in_every_bit(shape: tuple[int, ...], unavailable: Callable[[], None]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(shape).bfloat16().round(decimals=1) + 0.0  # many are equal; of zeros the kernel prefers positive ones
    maps[0, 0, 0, 0], maps[0, 1, 0, 1], maps[0, 2, 1, 1], maps[0, 3] = torch.inf, torch.nan, -torch.nan, -torch.inf
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    found, expected = MaxPool2x2()(ours), nn.MaxPool2d(2)(theirs)
    assert type(found.grad_fn).__name__ == "_MaxPoolBackward"
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    of_maxima = torch.randn(found.shape).bfloat16()
    found.backward(of_maxima)
    expected.backward(of_maxima)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
    unavailable()
    torch.testing.assert_close(MaxPool2x2()(ours), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("channels", [31, 48])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_shapes_and_formats_are_pooled_by_pytorch(channels: int, dtype: torch.dtype) -> None:
    maps = torch.randn(2, channels, 5, 5).to(dtype).requires_grad_()
    assert torch.equal(MaxPool2x2()(maps), nn.MaxPool2d(2)(maps))


def normalised(maps: Tensor, of_features: Tensor, dtype: torch.dtype, is_fused: bool) -> tuple[list[Tensor], Norm]:
    layer, maps = Norm(maps.shape[1]).to(dtype), maps.detach().clone().requires_grad_()
    with torch.no_grad():
        layer.bias.copy_(torch.linspace(-2, 2, len(layer.bias)))
    features = layer._fused(maps, F.silu, None, layer.library(maps) or "") if is_fused else F.silu(layer(maps))
    features.backward(of_features.to(features.dtype))
    assert maps.grad is not None
    assert layer.bias.grad is not None
    return [features.detach(), maps.grad, layer.bias.grad], layer


@kernel
@pytest.mark.parametrize("shape", [(8, 16, 1, 1), (9, 32, 7, 7), (130, 64, 3, 5)])
def test_norm_and_silu_are_nearer_to_fp64_than_pytorchs_own(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    spread, centre = torch.rand(shape[1], 1, 1) * 3 + 0.1, torch.randn(shape[1], 1, 1) * 10
    maps, of_features = (torch.randn(shape) * spread + centre).bfloat16(), torch.randn(shape).bfloat16()
    exact, reference = normalised(maps.double(), of_features, torch.float64, is_fused=False)
    usual, _ = normalised(maps, of_features, torch.float32, is_fused=False)
    fused, layer = normalised(maps, of_features, torch.float32, is_fused=True)
    for found, theirs, expected in zip(fused, usual, exact, strict=True):
        assert relative_error(found, expected) <= max(1.1 * relative_error(theirs, expected), 0.003)
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(layer.get_buffer(name).double(), buffer.double(), rtol=1e-4, atol=1e-5)


@kernel
def test_norms_sums_do_not_depend_on_the_number_of_threads() -> None:
    maps, of_features, threads = torch.randn(100, 32, 5, 5).bfloat16(), torch.randn(100, 32, 5, 5), torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(normalised(maps, of_features, torch.float32, is_fused=True)[0])
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))


@kernel
def test_a_constant_channel_with_an_outlier_first_stays_finite() -> None:
    maps = torch.full((50, 16, 4, 4), 3.0).bfloat16()
    maps[0, :, 0, 0] = 3000
    layer = Norm(16)
    features = layer._fused(maps.requires_grad_(), F.silu, None, "batchnorm")
    features.float().sum().backward()
    assert maps.grad is not None
    assert features.isfinite().all()
    assert maps.grad.isfinite().all()


@kernel
@pytest.mark.parametrize("trains_whitening", [True, False])
def test_a_network_trains_with_kernels_as_without(trains_whitening: bool, unavailable: Callable[[], None]) -> None:
    torch.manual_seed(0)
    network, images = SprintNet(10, 3, (16, 16), width=64).to(memory_format=torch.channels_last), torch.randn(64, 3, 16, 16)
    assert network.whiten.bias is not None
    network.whiten.bias.requires_grad_(trains_whitening)
    start, found = {name: tensor.clone() for name, tensor in network.state_dict().items()}, []
    for is_compiled in (True, False):
        network.load_state_dict(start)
        network.zero_grad()
        if not is_compiled:
            unavailable()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        F.cross_entropy(logits.float(), torch.arange(64) % 10).backward()
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        found.append((logits.detach().float(), gradients, dict(network.named_buffers())))
        found[-1] = (*found[-1][:2], {name: buffer.clone() for name, buffer in found[-1][2].items()})
    (ours, gradients, buffers), (theirs, expected, other_buffers) = found
    assert relative_error(ours, theirs) < 0.1
    assert gradients.keys() == expected.keys()
    assert all(F.cosine_similarity(gradients[name].flatten(), expected[name].flatten(), dim=0) > 0.9 for name in expected)
    for name, buffer in other_buffers.items():
        torch.testing.assert_close(buffers[name], buffer, rtol=0.1, atol=0.02)
