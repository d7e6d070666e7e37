"""Fewer products: the same convolution as PyTorch's own, its gradients too, and only where it pays."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.models import winograd
from sprintnet.models.winograd import Convolution3x3, convolve, toom_cook

SIZES = [(2, 2), (3, 3), (4, 4), (5, 7), (7, 7), (8, 3), (9, 10), (15, 15), (16, 16)]


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


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
def test_features_and_gradients_are_those_of_a_convolution(size: tuple[int, int], dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(6, 16, *size), torch.randn(24, 16, 3, 3)
    exact = with_gradients(pytorchs_own, maps.double(), weight.double())
    for found, expected in zip(with_gradients(convolve, maps.to(dtype), weight), exact, strict=True):
        assert found.shape == expected.shape
        assert relative_error(found, expected) < error


@pytest.mark.parametrize("outputs", winograd.POINTS)
def test_a_tile_is_the_filter_slid_along_it(outputs: int) -> None:
    output, taps, inputs = toom_cook(outputs)
    signal, filter_ = torch.randn(outputs + 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    assert output.shape == (outputs, outputs + 2)
    torch.testing.assert_close(output @ ((taps @ filter_) * (inputs @ signal)), signal.unfold(0, 3, 1) @ filter_)


def test_gradients_arrive_with_channels_last_as_the_layers_before_need_them() -> None:
    maps = torch.randn(4, 8, 7, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    features = convolve(maps, torch.randn(8, 8, 3, 3))
    assert features.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(features.square().sum(), maps)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The maps that were convolved by fewer products."""
    seen: list[Tensor] = []
    monkeypatch.setattr(winograd, "convolve", lambda maps, weight: (seen.append(maps), convolve(maps, weight))[1])
    return seen


def train_step(layer: nn.Module, maps: Tensor, dtype: torch.dtype | None) -> Tensor:
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        features: Tensor = layer(maps)
    features.float().square().sum().backward()
    return features


def test_a_large_layer_in_bf16_takes_fewer_products_and_keeps_fp32_gradients(taken: list[Tensor]) -> None:
    layer, maps = Convolution3x3(128, 130), torch.randn(128, 128, 3, 3)
    features = train_step(layer, maps, torch.bfloat16)
    assert len(taken) == 1
    assert features.dtype == torch.bfloat16
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("channels", "shape", "dtype"),
    [
        (128, (128, 128, 3, 3), None),
        (128, (128, 128, 3, 3), torch.float16),
        (127, (128, 128, 3, 3), torch.bfloat16),
        (128, (128, 127, 3, 3), torch.bfloat16),
        (128, (127, 128, 3, 3), torch.bfloat16),
        (128, (128, 128, 1, 3), torch.bfloat16),
        (128, (128, 128, 3, 1), torch.bfloat16),
        (128, (128, 128, 17, 2), torch.bfloat16),
        (128, (128, 5, 5), torch.bfloat16),
    ],
)
def test_small_layers_and_batches_and_other_precisions_go_the_usual_way(
    channels: int, shape: tuple[int, ...], dtype: torch.dtype | None, taken: list[Tensor]
) -> None:
    train_step(Convolution3x3(shape[-3], channels), torch.randn(shape), dtype)
    assert not taken


@pytest.mark.parametrize("gradients", [False, True])
def test_evaluation_is_pytorchs_own(gradients: bool) -> None:
    layer, maps = Convolution3x3(128, 128).eval(), torch.randn(128, 128, 4, 4)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(maps), nn.Conv2d.forward(layer, maps))
