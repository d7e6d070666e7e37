"""The compiled pooling and norm against PyTorch's own, of which pooling must be equal in every bit."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.models import norm, pooling
from sprintnet.models.norm import Norm
from sprintnet.models.pooling import MaxPool2x2
from sprintnet.native import compiled

pytestmark = pytest.mark.skipif(compiled(norm.SOURCE) is None, reason="no kernel can be compiled here: gcc, AVX512-BF16")


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("shape", [(3, 32, 2, 2), (2, 64, 7, 7), (5, 96, 6, 9), (1, 32, 31, 4)])
def test_maxima_and_their_gradients_are_pytorchs_in_every_bit(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    maps = torch.randn(shape).bfloat16().round(decimals=1) + 0.0  # many are equal; of zeros the kernel prefers positive ones
    maps[0, 0, 0, 0] = torch.inf
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    found, expected = MaxPool2x2()(ours), nn.MaxPool2d(2)(theirs)
    assert type(found.grad_fn).__name__ == "_MaximaBackward"
    assert torch.equal(found, expected)
    of_maxima = torch.randn(found.shape).bfloat16()
    found.backward(of_maxima)
    expected.backward(of_maxima)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
    monkeypatch.setattr(pooling, "compiled", lambda _: None)
    assert torch.equal(MaxPool2x2()(ours), expected)


@pytest.mark.parametrize("channels", [31, 48])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_shapes_and_formats_are_pooled_by_pytorch(channels: int, dtype: torch.dtype) -> None:
    maps = torch.randn(2, channels, 5, 5).to(dtype).requires_grad_()
    assert torch.equal(MaxPool2x2()(maps), nn.MaxPool2d(2)(maps))


def normalised(maps: Tensor, of_features: Tensor, dtype: torch.dtype, is_fused: bool) -> tuple[list[Tensor], Norm]:
    layer, maps = Norm(maps.shape[1]).to(dtype), maps.detach().clone().requires_grad_()
    with torch.no_grad():
        layer.bias.copy_(torch.linspace(-2, 2, len(layer.bias)))
    features = layer.silu(maps) if is_fused else F.silu(layer(maps))
    features.backward(of_features.to(features.dtype))
    assert maps.grad is not None
    assert layer.bias.grad is not None
    return [features.detach(), maps.grad, layer.bias.grad], layer


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


def test_answers_are_pytorchs_own() -> None:
    layer, maps = Norm(32).eval(), torch.randn(4, 32, 3, 3).bfloat16()
    assert torch.equal(layer.silu(maps), F.silu(layer(maps)))
