"""Grad-CAM against captum and the closed form, then properties."""

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn
from torch.nn import functional as F

from sprintnet.evaluation.gradcam import class_maps, faithfulness, recorded
from sprintnet.evaluation.task import SINGLE_LABEL
from sprintnet.models.factory import build_model
from sprintnet.models.settings import ModelSettings

IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 3, 3, 9, 1])


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(ModelSettings(name, 8), 10, (32, 32, 3))  # type: ignore[arg-type]
    model(IMAGES)  # batch norm has seen something
    return model.eval()


@pytest.mark.parametrize("name", ["davidnet", "sprintnet"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_map_is_captums(name: str, layer: int) -> None:
    model = network(name)
    chosen = model.feature_layers[layer]
    expected = LayerGradCam(model, model.get_submodule(chosen)).attribute(IMAGES, CLASSES, relu_attributions=True)
    expected = F.interpolate(expected.detach(), size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    expected = expected / expected.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    torch.testing.assert_close(class_maps(model, IMAGES, CLASSES, [chosen]), expected, atol=1e-5, rtol=1e-4)


def test_under_max_pool_and_linear_a_map_weighs_channels_as_the_class_does() -> None:
    model = network("davidnet")
    with recorded(model, ["block2"]) as outputs, torch.no_grad():
        model(IMAGES)
    area = outputs["block2"].shape[2] * outputs["block2"].shape[3]
    weights = model.linear.weight[CLASSES].detach() / area
    coarse = F.relu(torch.einsum("bk,bkhw->bhw", weights, outputs["block2"].detach()))
    fine = F.interpolate(coarse[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    expected = fine / fine.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    torch.testing.assert_close(class_maps(model, IMAGES, CLASSES, ["block2"]), expected, atol=1e-5, rtol=1e-4)


def test_several_layers_are_averaged_and_hooks_and_gradients_are_removed() -> None:
    model = network("sprintnet")
    layers = model.feature_layers
    single = [class_maps(model, IMAGES, CLASSES, [layer]) for layer in layers]
    torch.testing.assert_close(class_maps(model, IMAGES, CLASSES, layers), torch.stack(single).mean(0))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert 0 <= single[0].min() <= single[0].max() <= 1


def test_hooks_are_removed_when_the_pass_fails() -> None:
    model = network("davidnet")
    with pytest.raises(RuntimeError), recorded(model, ["block2"]):
        model(torch.zeros(1, 5, 32, 32))
    assert not any(module._forward_hooks for module in model.modules())


class Corner(nn.Module):
    """Sees only the upper left quarter."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        evidence = images[:, :, :16, :16].mean(dim=(1, 2, 3)) * 10
        return torch.stack([evidence, -evidence], dim=1)


def test_a_map_of_the_used_pixels_is_more_faithful_than_noise_or_its_inverse() -> None:
    images, classes = torch.ones(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)
    right = torch.zeros(4, 32, 32)
    right[:, :16, :16] = 1
    noise = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0))
    scores = [faithfulness(Corner().eval(), SINGLE_LABEL.activate, images, classes, maps) for maps in (right, noise, 1 - right)]
    deletions, insertions = ([score[name] for score in scores] for name in ("deletion", "insertion"))
    assert deletions == sorted(deletions)
    assert insertions == sorted(insertions, reverse=True)
    assert insertions[0] - deletions[0] > 0.2
