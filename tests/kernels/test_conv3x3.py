"""The 3x3 convolution: Winograd in training where it is profitable, and in predictions in fp32; else PyTorch's own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sprintnet.kernels import conv_pool_fp32, winograd, winograd_fp32, winograd_torch
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.kernels.dispatch import choose


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
def test_predictions_in_bf16_are_pytorchs_own(gradients: bool, available: None) -> None:
    assert choose("conv3x3", torch.bfloat16, 128, 128, 4, 4) is winograd
    layer, maps = Convolution3x3(128, 128).eval(), torch.randn(128, 128, 4, 4)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(maps), nn.Conv2d.forward(layer, maps))


@pytest.fixture
def predicting(
    on_processor: Callable[[str | None], None], vectors: None, monkeypatch: pytest.MonkeyPatch
) -> tuple[nn.Module, list[str]]:
    """A layer with its pooling, in evaluation on a processor with AVX2; the kernels that it called."""
    on_processor("avx2")
    seen: list[str] = []
    for module, name in ((winograd_fp32, "convolve"), (conv_pool_fp32, "convolve_and_pool")):
        function = getattr(module, name)
        noted = lambda maps, weight, function=function, name=name: (seen.append(name), function(maps, weight))[1]  # noqa: E731
        monkeypatch.setattr(module, name, noted)

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Convolution3x3(24, 64), Convolution3x3(64, 64)

        def forward(self, maps: Tensor) -> Tensor:
            features: Tensor = self.second(self.first.forward_pooled(maps, nn.MaxPool2d(2)))
            return features

    return Pooled().eval(), seen


def test_predictions_in_fp32_take_the_kernels_of_training(predicting: tuple[nn.Module, list[str]]) -> None:
    layer, seen = predicting
    maps = torch.randn(32, 24, 31, 31)
    with torch.inference_mode():
        features = layer(maps)
    assert seen == ["convolve_and_pool", "convolve"]
    expected = layer(maps)  # with gradients: PyTorch's own
    assert expected.grad_fn is not None
    assert len(seen) == 2
    assert (features - expected).abs().max() < 3e-5 * expected.abs().max()


def test_predictions_of_few_images_take_pytorchs_operations(predicting: tuple[nn.Module, list[str]]) -> None:
    layer, seen = predicting
    with torch.inference_mode():
        layer(torch.randn(31, 24, 31, 31))
    assert not seen


def test_an_exported_network_has_no_kernels(predicting: tuple[nn.Module, list[str]]) -> None:
    layer, seen = predicting
    with torch.no_grad():
        program = torch.export.export(layer, (torch.randn(64, 24, 31, 31),))
    assert not seen
    assert "sprintnet" not in str(program.graph)
