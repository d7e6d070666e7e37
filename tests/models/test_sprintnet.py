"""SprintNet: whitening does whiten, filters begin as the identity, any size and number of channels goes in."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sprintnet.errors import SettingsError
from sprintnet.models.factory import build_model, check_resolution
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


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_with_a_stride_the_largest_variances_are_kept_and_whitened(stride: int) -> None:
    side = stride + 1
    noise = torch.randn(400, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    model = SprintNet(10, 3, (24, 24), width=4, stride=stride)
    model.whiten_from(images, epsilon=0)
    assert model.whiten.kernel_size == (side, side)
    with torch.no_grad():
        features = torch.nn.functional.conv2d(images, model.whiten.weight, stride=stride)
    assert features.shape[1:] == (24, (24 - 1) // stride, (24 - 1) // stride)
    half = features[:, :12].transpose(0, 1).flatten(1)
    torch.testing.assert_close(half @ half.T / half.shape[1], torch.eye(12), atol=1e-3, rtol=0)
    # principal components: no other twelve directions hold more of the patches' variance
    patches = images.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    variances = torch.linalg.svdvals(patches) ** 2 / len(patches)
    kept = 1 / model.whiten.weight[:12].flatten(1).norm(dim=1) ** 2
    torch.testing.assert_close(kept.flip(0), variances[:12], rtol=1e-3, atol=0)


@pytest.mark.parametrize(("side", "stride"), [(64, 2), (96, 3), (128, 4)])
def test_a_stride_makes_large_images_cost_what_those_of_32_pixels_do(side: int, stride: int) -> None:
    def flops(side: int, stride: int) -> int:
        model = build_model(ModelSettings("sprintnet", 64, stride=stride), 10, (side, side, 3))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, side, side))
        return counter.get_total_flops()

    assert flops(32, 1) < flops(side, stride) < 1.15 * flops(32, 1)
    assert flops(64, 1) > 4 * flops(64, 2)


@pytest.mark.parametrize(("stride", "smallest"), [(1, 9), (2, 17), (3, 25)])
def test_a_stride_asks_for_larger_images(stride: int, smallest: int) -> None:
    settings = ModelSettings("sprintnet", 4, stride=stride)
    assert build_model(settings, 5, (smallest, smallest, 1))(torch.randn(2, 1, smallest, smallest)).shape == (2, 5)
    with pytest.raises(SettingsError, match=f"needs images of {smallest}x{smallest} pixels or more, not {smallest - 1}x"):
        build_model(settings, 5, (smallest, smallest - 1, 1))


def test_davidnet_takes_no_stride() -> None:
    with pytest.raises(SettingsError, match=r"model.stride=2: davidnet has none; use 1, or model.name=sprintnet"):
        build_model(ModelSettings("davidnet", 4, stride=2), 5, (32, 32, 3))


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
