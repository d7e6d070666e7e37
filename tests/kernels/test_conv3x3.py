"""The 3x3 convolution: Winograd in training in bf16 where it is profitable, PyTorch's own everywhere else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sprintnet.kernels import winograd, winograd_torch
from sprintnet.kernels.conv3x3 import Convolution3x3


@pytest.fixture(autouse=True)
def processor(on_processor: Callable[[str | None], None]) -> None:
    """Choices are those for a processor with AVX512-BF16 and without AMX."""
    on_processor("avx512_bf16")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Winograd implementations that were called."""
    seen: list[str] = []

    def noted(name: str, convolve: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda maps, weight: (seen.append(name), convolve(maps, weight))[1]

    monkeypatch.setattr(winograd, "convolve", noted("kernel", winograd.convolve))
    monkeypatch.setattr(winograd_torch, "convolve", noted("plain", winograd_torch.convolve))
    return seen


def train_step(layer: nn.Module, maps: Tensor, dtype: torch.dtype | None) -> Tensor:
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        features: Tensor = layer(maps)
    features.float().square().sum().backward()
    return features


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(64, 64, 3, 3), (64, 128, 32, 2)])
def test_a_large_layer_in_bf16_takes_the_kernel_and_keeps_fp32_gradients(shape: tuple[int, ...], taken: list[str]) -> None:
    layer = Convolution3x3(shape[1], 96)
    features = train_step(layer, torch.randn(shape), torch.bfloat16)
    assert taken == ["kernel"]
    assert features.dtype == torch.bfloat16
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


def test_without_a_compiler_it_takes_pytorchs_operations(taken: list[str], unavailable: Callable[[], None]) -> None:
    unavailable()
    layer = Convolution3x3(128, 130)
    train_step(layer, torch.randn(64, 128, 3, 3), torch.bfloat16)
    assert taken == ["plain"]
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("channels", "shape", "dtype"),
    [
        (128, (128, 128, 3, 3), None),
        (128, (128, 128, 3, 3), torch.float16),
        (48, (128, 128, 3, 3), torch.bfloat16),
        (128, (63, 128, 3, 3), torch.bfloat16),
        (128, (64, 128, 1, 3), torch.bfloat16),
        (128, (64, 128, 3, 1), torch.bfloat16),
        (128, (128, 5, 5), torch.bfloat16),
    ],
)
def test_small_layers_and_batches_and_other_precisions_go_the_usual_way(
    channels: int, shape: tuple[int, ...], dtype: torch.dtype | None, taken: list[str]
) -> None:
    train_step(Convolution3x3(shape[-3], channels), torch.randn(shape), dtype)
    assert not taken


def test_maps_with_other_channels_than_the_filters_are_refused_as_pytorch_does() -> None:
    with pytest.raises(RuntimeError, match="to have 128 channels, but got 64"):
        train_step(Convolution3x3(128, 128), torch.randn(64, 64, 4, 4), torch.bfloat16)


@pytest.mark.parametrize("gradients", [False, True])
def test_evaluation_is_pytorchs_own(gradients: bool) -> None:
    layer, maps = Convolution3x3(128, 128).eval(), torch.randn(128, 128, 4, 4)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(maps), nn.Conv2d.forward(layer, maps))
