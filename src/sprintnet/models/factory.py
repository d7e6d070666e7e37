"""Networks by name, and their weights on disk."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sprintnet.data.preprocessing import Preprocessing
from sprintnet.errors import SettingsError
from sprintnet.models.base import LinearNetwork, Network
from sprintnet.models.davidnet import DavidNet
from sprintnet.models.efficientnet_lite import EfficientNetLite0
from sprintnet.models.ensemble import Ensemble
from sprintnet.models.library import LibraryNetwork
from sprintnet.models.settings import OF_ANY_WIDTH, ModelSettings
from sprintnet.models.sprintnet import SprintNet
from sprintnet.models.tensor_file import DamagedError, read_tensors, write_tensors
from sprintnet.runs.folder import TRAIN_FOLDER

WEIGHT_FILES = ("weights.safetensors", "model.safetensors")
"""Of a run folder and of an export folder."""
MAX_CAUSE = 200  # characters
FULL_SIZE = "use schedule.resolution=1 schedule.resolution_milestones=0"


def build_model(settings: ModelSettings, classes: int, image_shape: tuple[int, int, int]) -> LinearNetwork:
    """Returns the network with fresh weights for images of (height, width, channels), logits (B, classes).

    Raises SettingsError for images that are too small for it.
    """
    height, width, channels = image_shape
    side = _smallest_side(settings)
    if min(height, width) < side:
        strided = f" model.stride={settings.stride}" if settings.stride > 1 else ""
        raise SettingsError(
            f"model.name={settings.name}{strided}: needs images of {side}x{side} pixels or more, not {width}x{height}; "
            "take the recipe davidnet, or, of your own images, a larger data.size"
        )
    if settings.enlarge_to and settings.name in OF_ANY_WIDTH:
        rule = f"{settings.name} does not enlarge images; use 0, or model.name=efficientnet_lite0"
        raise SettingsError(f"model.enlarge_to={settings.enlarge_to}: {rule}")
    if settings.name == "sprintnet":
        return SprintNet(classes, channels, (height, width), settings.width, settings.dropout, settings.stride)
    if settings.stride > 1:
        raise SettingsError(f"model.stride={settings.stride}: {settings.name} has none; use 1, or model.name=sprintnet")
    if settings.name == "efficientnet_lite0":
        return EfficientNetLite0(classes, channels, settings.dropout, settings.enlarge_to)
    if ":" in settings.name:
        return LibraryNetwork(settings.name, classes, channels, settings.dropout, settings.enlarge_to)
    return DavidNet(classes, channels, (height, width), settings.width, settings.dropout)


def check_resolution(settings: ModelSettings, image_shape: tuple[int, int, int], resolution: float) -> None:
    """Raises SettingsError where the network cannot be trained on images of this share of their side."""
    shown = f"schedule.resolution={resolution:g}"
    if resolution < 1 and settings.name == "davidnet":
        raise SettingsError(f"{shown}: davidnet's last pooling fits images of one size; {FULL_SIZE}, or model.name=sprintnet")
    side, smallest = min(image_shape[:2]), _smallest_side(settings)
    if side >= smallest > round(resolution * side):  # build_model refuses smaller images
        raise SettingsError(
            f"{shown}: of {side} pixels leaves less than the {smallest} that {settings.name} needs; {FULL_SIZE}"
        )


def weights_file(path: Path, setting: str = "") -> Path:
    """Returns the weights of a run (its folder, or its name in runs/train) or of an export's folder, or the file itself.

    Raises SettingsError, which names the setting that the path is from, where there are none.
    """
    shown = f"{setting and setting + '='}{path}"
    if path.suffix == ".onnx":
        raise SettingsError(f"{shown}: is an ONNX file, which only predicts; name its run, or the model.safetensors beside it")
    folders = (path, TRAIN_FOLDER / path)
    found = [file for folder in folders for file in (folder, *(folder / name for name in WEIGHT_FILES)) if file.is_file()]
    if not found:
        state = (
            f"holds neither {' nor '.join(WEIGHT_FILES)}" if any(map(Path.is_dir, folders)) else "there is no such run or file"
        )
        raise SettingsError(f"{shown}: {state}; name a run, or the folder of its export")
    return found[0]


@dataclass(frozen=True)
class SavedModel:
    """What a weights file holds."""

    network: Network
    settings: ModelSettings
    """Of the network, or of each member of an ensemble."""
    preprocessing: Preprocessing
    precision: str = "auto"
    """The setting with which the network was trained and evaluated."""

    @property
    def members(self) -> int:
        """The number of members of an ensemble; 1: a network alone."""
        return len(self.network.members) if isinstance(self.network, Ensemble) else 1


def save_model(path: Path, saved: SavedModel, **metadata: Any) -> None:
    """Writes a safetensors file whose metadata holds settings, preprocessing and more as JSON."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in saved.network.state_dict().items()}
    metadata |= {"model": asdict(saved.settings), "members": saved.members, "precision": saved.precision}
    metadata |= saved.preprocessing.to_metadata()
    write_tensors(path, tensors, {key: json.dumps(value) for key, value in metadata.items()})


def load_model(path: Path) -> SavedModel:
    """Returns the network of a weights file, rebuilt from the file's metadata, with its settings and preprocessing.

    Raises SettingsError for a file that is damaged or lacks the metadata.
    """
    try:
        tensors, text = read_tensors(path)
        metadata = {key: json.loads(value) for key, value in text.items()}
        settings, preprocessing = ModelSettings(**metadata["model"]), Preprocessing.from_metadata(metadata)
        precision = str(metadata["precision"])
        with torch.device("meta"):  # draws no random numbers
            network = _build(settings, preprocessing, int(metadata.get("members", 1)))
        network.load_state_dict(tensors, assign=True)
    except (OSError, DamagedError, RuntimeError, ValueError, KeyError, TypeError) as error:
        cause = " ".join(str(error).split())[:MAX_CAUSE]
        raise SettingsError(f"{path}: not a weights file of this version of SprintNet ({cause}); train again") from None
    return SavedModel(network, settings, preprocessing, precision)


def _build(settings: ModelSettings, preprocessing: Preprocessing, members: int) -> Network:
    networks = [build_model(settings, len(preprocessing.classes), preprocessing.image_shape) for _ in range(members)]
    return networks[0] if members == 1 else Ensemble(networks, is_multi_label=preprocessing.task == "multi-label")


def _smallest_side(settings: ModelSettings) -> int:
    """Returns the side of images of which three poolings leave a pixel (sprintnet's first layer has no padding);
    efficientnet_lite0 pads all its steps."""
    if ":" in settings.name:
        return 32  # of which five halvings leave a pixel
    return 8 * settings.stride + 1 if settings.name == "sprintnet" else 8
