"""DavidNet against the article: its layer table to the line, and what the table cannot show."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchinfo
from safetensors.torch import load_file

from sprintnet.data.preprocessing import Normalisation, Preprocessing
from sprintnet.errors import SettingsError
from sprintnet.models.davidnet import DavidNet, WyBlock
from sprintnet.models.factory import SavedModel, build_model, load_model, save_model
from sprintnet.models.settings import ModelSettings
from sprintnet.models.summary import layer_table
from sprintnet.models.tensor_file import write_tensors

ARTICLE = (Path(__file__).parents[1] / "reference" / "article_layers.txt").read_text().splitlines()


def cells(line: str) -> list[str]:
    return line.replace("[", "").replace("]", "").replace(",", " ").split()


def test_every_line_of_the_articles_table() -> None:
    lines = str(layer_table(build_model(ModelSettings(), 10, (32, 32, 3)), (32, 32, 3))).splitlines()
    assert [cells(line) for line in lines[3:37]] == [cells(line) for line in ARTICLE]
    assert len(ARTICLE) == 34
    assert lines[38:] == [
        "Total params: 6,573,130",
        "Trainable params: 6,573,130",
        "Non-trainable params: 0",
        "-" * 64,
        "Input size (MB): 0.01",
        "Forward/backward pass size (MB): 8.70",
        "Params size (MB): 25.07",
        "Estimated Total Size (MB): 33.78",
        "-" * 64,
    ]


@pytest.mark.parametrize("name", ["davidnet", "sprintnet"])
def test_the_table_knows_blocks_and_what_skips_pass_by(name: str) -> None:
    model = build_model(ModelSettings(name), 10, (32, 32, 3))  # type: ignore[arg-type]
    table = layer_table(model, (32, 32, 3))
    names = [layer.name for layer in table.layers]
    assert table.blocks == model.feature_layers
    assert all(any(name.startswith(f"{block}.") for name in names) for block in table.blocks)
    assert len(table.skips) == {"davidnet": 2, "sprintnet": 1}[name]
    for skipped_by in table.skips:  # without these layers' part, the sum is what came in
        assert all(model.get_submodule(part) for part in skipped_by)
        parent = model.get_submodule(skipped_by[0].rpartition(".")[0])
        assert len({part.rpartition(".")[0] for part in skipped_by}) == 1
        assert type(parent).__name__ in ("WyBlock", "Residual")


@pytest.mark.parametrize(("name", "others"), [("davidnet", []), ("sprintnet", ["whiten"])])
def test_an_activation_follows_every_norm(name: str, others: list[str]) -> None:
    table = layer_table(build_model(ModelSettings(name), 10, (32, 32, 3)), (32, 32, 3))  # type: ignore[arg-type]
    pairs = zip(table.layers, table.layers[1:], strict=False)
    by_layers = [one.name for one, following in pairs if following.type in ("ReLU", "SiLU")]
    norms = [layer.name for layer in table.layers if layer.type == "BatchNorm2d"]
    assert sorted([*by_layers, *table.activated]) == sorted([*norms, *others])


def test_the_table_agrees_with_torchinfo_and_leaves_the_network_alone() -> None:
    model = build_model(ModelSettings(width=8), 7, (28, 28, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = layer_table(model, (28, 28, 1))
    assert table.parameters == torchinfo.summary(model, (1, 1, 28, 28), verbose=0).total_params
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_one_skip_a_block() -> None:
    block = WyBlock(4, 8).eval()
    torch.nn.init.zeros_(block.residual_norm2.weight)  # f(x) = 0, so the block is its own first half
    images = torch.randn(2, 4, 8, 8)
    expected = torch.relu(block.norm(block.pool(block.conv(images))))
    assert torch.equal(block(images), expected)


def test_logits_are_scaled() -> None:
    model = DavidNet(10, 3, (32, 32), width=4).eval()
    torch.nn.init.zeros_(model.linear.weight)
    torch.nn.init.ones_(model.linear.bias)
    assert torch.equal(model(torch.zeros(2, 3, 32, 32)), torch.full((2, 10), model.logit_scale))
    assert model.logit_scale == 0.125


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 48, 4), (64, 64, 3)])
def test_other_sizes_channels_and_classes(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    model = build_model(ModelSettings(width=4, dropout=0.5), 3, shape)
    assert model(torch.zeros(2, channels, height, width)).shape == (2, 3)


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(SettingsError, match="davidnet: needs images of 8x8 pixels or more, not 7x32"):
        build_model(ModelSettings(), 10, (32, 7, 3))


def test_dropout_acts_in_training_alone() -> None:
    model = DavidNet(10, 3, (32, 32), width=8, dropout=0.5).eval()
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(model(images), model(images))
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.eval()
    model.dropout.train()
    assert not torch.equal(model(images), model(images))


PREPROCESSING = Preprocessing(
    ("a", "b", "c"), (32, 32, 3), Normalisation((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)), "crop", "multi-label", False, 0.1, 1.5
)


@pytest.fixture
def saved() -> SavedModel:
    network = build_model(ModelSettings(width=4), 3, (32, 32, 3)).to(memory_format=torch.channels_last)
    return SavedModel(network, ModelSettings(width=4), PREPROCESSING, "fp32")


def test_a_weights_file_alone_rebuilds_its_network(tmp_path: Path, saved: SavedModel) -> None:
    save_model(tmp_path / "w.safetensors", saved, commit="abc")
    loaded = load_model(tmp_path / "w.safetensors")
    assert (loaded.settings, loaded.preprocessing, loaded.precision) == (saved.settings, PREPROCESSING, "fp32")
    tensors = zip(saved.network.state_dict().values(), loaded.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in tensors)


def test_damaged_or_foreign_weights_are_named(tmp_path: Path, saved: SavedModel) -> None:
    save_model(tmp_path / "good", saved)
    tensors = load_file(tmp_path / "good")
    metadata = {"model": {"width": 4}, "precision": "auto", **PREPROCESSING.to_metadata()}

    def with_metadata(**changes: object) -> bytes:
        write_tensors(tmp_path / "changed", tensors, {key: json.dumps(value) for key, value in (metadata | changes).items()})
        return (tmp_path / "changed").read_bytes()

    (tmp_path / "unchanged").write_bytes(with_metadata())
    for name in ("good", "unchanged"):
        assert load_model(tmp_path / name)

    damaged = {
        "cut short": (tmp_path / "good").read_bytes()[:1000],
        "empty": b"",
        "text": b"hello world, this is no weights file",
        "no metadata": safetensors.torch.save(tensors),
        "another width": with_metadata(model={"width": 8}),
        "another network": with_metadata(model={"name": "other"}),
        "settings of another type": with_metadata(model=3),
        "shape of another type": with_metadata(image_shape="large"),
        "normalisation of another type": with_metadata(normalisation=[1, 2]),
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingsError, match="not a weights file of this version of SprintNet"):
            load_model(tmp_path / name)
    with pytest.raises(SettingsError, match="not a weights file of this version of SprintNet"):
        load_model(tmp_path / "none")
