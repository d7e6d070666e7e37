"""SprintNet: whitening does whiten, filters begin as the identity, any size and number of channels goes in."""

import pytest
import torch

from sprintnet.errors import SettingsError
from sprintnet.models.build import build_model, check_resolution
from sprintnet.models.settings import ModelSettings
from sprintnet.models.sprintnet import Convolution, Residual, SprintNet


def correlated_images(channels: int = 3) -> torch.Tensor:
    noise = torch.randn(200, channels, 12, 12, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(noise, 3, 1, 1) + 0.5 * noise.mean(1, keepdim=True)


def test_the_first_layer_makes_patches_uncorrelated_with_unit_variance() -> None:
    images = correlated_images()
    model = SprintNet(10, 3, (12, 12), width=4)
    model.whiten_from(images, epsilon=0)
    with torch.no_grad():
        features = torch.nn.functional.conv2d(images, model.whiten.weight)
    half = features[:, :12].transpose(0, 1).flatten(1)
    torch.testing.assert_close(half @ half.T / half.shape[1], torch.eye(12), atol=1e-3, rtol=0)
    assert torch.equal(features[:, 12:], -features[:, :12])


def test_the_whitening_filters_are_frozen_and_its_bias_is_not() -> None:
    model = SprintNet(10, 3, (32, 32))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    norms = {f"blocks.{block}.{layer}.weight" for block in range(3) for layer in (2, 5)}
    assert frozen == {"whiten.weight", *norms, "blocks.2.7.norm.weight"}


def test_the_first_filters_pass_their_channel_on() -> None:
    layer = Convolution(4, 10)
    images = torch.randn(2, 4, 8, 8)
    assert torch.equal(layer(images)[:, :4], images)


def test_the_residual_convolution_adds_to_what_it_came_from() -> None:
    layer, features = Residual(4).eval(), torch.randn(2, 4, 3, 3)
    layer.convolution.weight.data.zero_()
    torch.testing.assert_close(layer(features), torch.nn.functional.silu(features))


def test_parameters_are_counted_by_hand() -> None:
    # filters 24*64*9 + 64*64*9 + 64*128*9 + 128*256*9 + 3 * 256*256*9, norm biases, 24 whitening biases, head 256*10
    trained = sum(p.numel() for p in SprintNet(10, 3, (32, 32)).parameters() if p.requires_grad)
    assert trained == 13_824 + 36_864 + 73_728 + 294_912 + 3 * 589_824 + (64 + 64 + 128 + 256 + 3 * 256) + 24 + 2_560


@pytest.mark.parametrize(("shape", "classes"), [((28, 28, 1), 10), ((64, 48, 3), 2), ((32, 32, 4), 100), ((9, 9, 2), 5)])
def test_other_sizes_channels_and_classes(shape: tuple[int, int, int], classes: int) -> None:
    height, width, channels = shape
    model = build_model(ModelSettings(name="sprintnet", width=8, dropout=0.1), classes, shape)
    images = torch.randn(6, channels, height, width)
    model.whiten_from(images)  # type: ignore[operator]
    logits = model(images)
    assert logits.shape == (6, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(9, 9), (9, 40), (16, 12)])
def test_the_smallest_images_that_are_allowed_go_through(size: tuple[int, int]) -> None:
    network = build_model(ModelSettings("sprintnet", 4), 5, (*size, 1))
    assert network(torch.randn(2, 1, *size)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "resolution", "rule"),
    [
        ("davidnet", 0.75, "schedule.resolution=0.75: davidnet's last pooling fits images of one size"),
        (
            "sprintnet",
            0.5,
            "schedule.resolution=0.5: of 16 pixels leaves less than the 9 that sprintnet needs; use schedule.resolution=1",
        ),
    ],
)
def test_a_resolution_that_a_network_cannot_train_at_is_refused(name: str, resolution: float, rule: str) -> None:
    check_resolution(ModelSettings(name, 4), (16, 20, 3), 1)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=rule):
        check_resolution(ModelSettings(name, 4), (16, 20, 3), resolution)  # type: ignore[arg-type]


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(SettingsError, match="sprintnet: needs images of 9x9 pixels or more, not 8x32"):
        build_model(ModelSettings("sprintnet", 4), 10, (32, 8, 3))
