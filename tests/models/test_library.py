"""Networks of timm by name: their feature maps are timm's, and they train, ship and are refused as any other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sprintnet import from_arrays, load, train
from sprintnet.errors import DataError, SettingsError
from sprintnet.models.factory import build_model
from sprintnet.models.imagenet import load_imagenet
from sprintnet.models.settings import ModelSettings
from torchvision_stub import without_torchvision


@pytest.fixture(scope="module", autouse=True)
def timm() -> Iterator[Any]:
    with without_torchvision():
        import timm

        yield timm


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 3), ("convnext_atto", 1), ("mobilenetv3_small_050", 3)])
def test_logits_are_those_of_timm_with_the_same_last_layer(timm: Any, name: str, channels: int) -> None:
    ours = build_model(ModelSettings(f"timm:{name}"), 5, (64, 96, channels)).eval()
    theirs = timm.create_model(name, num_classes=0, global_pool="", in_chans=channels).eval()
    theirs.load_state_dict(ours.body.state_dict())
    x = torch.randn(2, channels, 64, 96)
    with torch.no_grad():
        maps = theirs(x)
        torch.testing.assert_close(ours.features(x), maps)
        torch.testing.assert_close(ours(x), ours.linear(maps.mean((2, 3))))
        assert ours.activation_maps(maps).shape == (2, 5, 2, 3)


def test_every_weight_belongs_to_a_part_and_small_images_are_enlarged() -> None:
    network = build_model(ModelSettings("timm:resnet18", enlarge_to=64), 5, (32, 48, 3))
    parts = [network.part_of(name) for name, _ in network.named_parameters()]
    assert set(parts) == set(range(len(network.parts)))
    assert network.part_of("body.conv1.weight") == 0
    assert network.working_shape((32, 48, 3)) == (64, 96, 3)
    assert network.features(torch.zeros(1, 3, 32, 48)).shape == (1, 512, 2, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:vit_tiny_patch16_224", "gives no feature map (B, C, H, W) of images of any size; name a convolutional network"),
        ("timm:swin_tiny_patch4_window7_224", "gives no feature map"),
        ("timm:resnet_that_is_not", "timm does not build it (Unknown model (resnet_that_is_not)); name another network"),
    ],
)
def test_what_is_no_convolutional_network_of_the_library_is_refused(name: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_model(ModelSettings(name), 5, (64, 64, 3))
    assert str(caught.value).startswith(f"model.name={name}: ")
    assert message in str(caught.value)


def test_what_is_too_small_or_has_no_weights_is_refused() -> None:
    with pytest.raises(SettingsError, match="needs images of 32x32 pixels or more, not 16x16"):
        build_model(ModelSettings("timm:resnet18"), 5, (16, 16, 3))
    with pytest.raises(DataError, match="the weights of timm:vgg16_that_is_not cannot be obtained"):
        load_imagenet(ModelSettings("timm:vgg16_that_is_not"))


def test_pretrained_weights_bring_their_normalisation_and_a_digest(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = timm.create_model("resnet10t", num_classes=0, global_pool="")
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: body)
    saved, digest = load_imagenet(ModelSettings("timm:resnet10t"))
    assert saved.preprocessing.normalisation.mean == body.pretrained_cfg["mean"]
    assert len(digest) == 64
    with torch.no_grad():
        body.conv1[0].weight[0, 0, 0, 0] += 1
    assert load_imagenet(ModelSettings("timm:resnet10t"))[1] != digest


def test_it_trains_and_its_exported_file_predicts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    model = train(
        "photos", from_arrays(images, np.arange(60) % 2), model__name="timm:resnet10t", model__enlarge_to=0, init_from="",
        head__fit=False, epochs=1, batch_size=16,
    )  # fmt: skip
    exported = load(model.export(tmp_path / "model.onnx"))
    np.testing.assert_allclose(exported(images).probabilities, model.predict_proba(images), atol=1e-5)
