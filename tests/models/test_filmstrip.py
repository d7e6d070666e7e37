"""Film strips: the same sums as PyTorch's own convolution, whatever the shape, and only where they pay."""

import pytest
import torch
from torch import Tensor, nn

from sprintnet.models import filmstrip
from sprintnet.models.filmstrip import Convolution3x3, lay_on_strips, strip_length


def gradients(layer: nn.Module, maps: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor]:
    maps = maps.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        features = layer(maps)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (features.float() * weights).sum().backward()
    assert maps.grad is not None
    return features.detach().float(), maps.grad, layer.weight.grad.clone()  # type: ignore[union-attr, operator]


@pytest.fixture
def strips_laid(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The maps that were laid on strips."""
    laid: list[Tensor] = []
    monkeypatch.setattr(filmstrip, "lay_on_strips", lambda maps: (laid.append(maps), lay_on_strips(maps))[1])
    return laid


@pytest.mark.parametrize("shape", [(40, 8, 7, 7), (20, 16, 3, 3), (12, 4, 5, 6), (7, 8, 2, 2), (50, 3, 1, 1), (33, 8, 9, 4)])
def test_gradients_are_those_of_fp32_up_to_rounding(shape: tuple[int, int, int, int], strips_laid: list[Tensor]) -> None:
    torch.manual_seed(0)
    maps, layer = torch.randn(shape), Convolution3x3(shape[1], 6)
    on_strips = gradients(layer, maps, torch.bfloat16)
    assert len(strips_laid) == 2
    exact = gradients(layer, maps, None)
    assert len(strips_laid) == 2
    for found, expected in zip(on_strips, exact, strict=True):
        assert (found - expected).norm() / expected.norm() < 0.01
    assert on_strips[2].dtype == torch.float32


def test_a_strip_is_images_side_by_side_with_a_blank_column_after_each() -> None:
    maps = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).view(2, 3, 2, 2) + 1
    (strip,) = lay_on_strips(maps)
    assert torch.equal(strip[:, :, 0:2], maps[0])
    assert torch.equal(strip[:, :, 3:5], maps[1])
    assert strip[:, :, [2, 5]].abs().sum() == 0
    assert torch.equal(lay_on_strips(maps.contiguous(memory_format=torch.channels_last))[0], strip)


@pytest.mark.parametrize(("images", "length"), [(1000, 20), (512, 16), (7, 7), (23, 1), (1, 1), (46, 2)])
def test_a_strip_divides_the_batch(images: int, length: int) -> None:
    assert strip_length(images) == length


@pytest.mark.parametrize(
    ("shape", "dtype"), [((20, 8, 8, 8), torch.bfloat16), ((23, 8, 4, 4), torch.bfloat16), ((20, 8, 4, 4), torch.float16)]
)
def test_wide_maps_odd_batches_and_other_precisions_go_the_usual_way(
    shape: tuple[int, ...], dtype: torch.dtype, strips_laid: list[Tensor]
) -> None:
    gradients(Convolution3x3(8, 6), torch.randn(shape), dtype)
    assert not strips_laid


def test_evaluation_is_pytorchs_own() -> None:
    layer, maps = Convolution3x3(8, 6), torch.randn(20, 8, 4, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(maps), nn.Conv2d.forward(layer, maps))
