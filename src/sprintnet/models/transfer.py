"""Transfer learning: training that starts from the weights of an earlier model, with a new head where the classes differ."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sprintnet.errors import SettingsError
from sprintnet.models.base import Network
from sprintnet.models.factory import SavedModel, load_model, weights_file
from sprintnet.models.imagenet import IMAGENET, load_imagenet
from sprintnet.models.settings import ModelSettings

MAX_LISTED_CLASSES = 10
OF_CLASSES = ("linear.", "novelty.")  # parts of a network that are for its classes


@dataclass(frozen=True)
class Pretrained:
    """The model that training starts from; `path` as the user gave it, `sha256` of its weights file."""

    path: str
    saved: SavedModel
    sha256: str

    def copy_to(self, network: Network, settings: ModelSettings, classes: Sequence[str], channels: int) -> str:
        """Copies the weights into a new network, the head only for the same classes; returns a line for the log.

        The image size may differ. Raises SettingsError for another architecture or number of channels.
        """
        wanted, given = asdict(settings), asdict(replace(self.saved.settings, dropout=settings.dropout))
        if different := [f"model.{name}={value}" for name, value in given.items() if value != wanted[name]]:
            raise SettingsError(f"init_from={self.path}: has another architecture; use its settings: {' '.join(different)}")
        preprocessing = self.saved.preprocessing
        if channels != preprocessing.image_shape[2]:
            raise SettingsError(
                f"init_from={self.path}: takes images of {preprocessing.image_shape[2]} channels, the data has {channels}; "
                "set data.channels, or start from another model"
            )
        keeps_head = tuple(classes) == preprocessing.classes
        state = self.saved.network.state_dict()
        kept = {key: value for key, value in state.items() if keeps_head or not key.startswith(OF_CLASSES)}
        network.load_state_dict(kept, strict=keeps_head)
        new_head = f"a new head: {_listed(classes)} instead of {_listed(preprocessing.classes)}"
        return f"init_from: weights of {self.path}, {'head included' if keeps_head else new_head}"


def load_pretrained(path: str, settings: ModelSettings, channels: int = 3) -> Pretrained | None:
    """Returns the model of a run folder, an export folder or a weights file, or the network of these settings with weights
    pretrained on ImageNet; None for an empty path.

    Raises SettingsError where there is none, DataError where pretrained weights cannot be obtained.
    """
    if not path:
        return None
    if path == IMAGENET:
        return Pretrained(path, *load_imagenet(settings, channels))
    file = weights_file(Path(path).expanduser(), "init_from")
    saved = load_model(file)
    if saved.members > 1:
        raise SettingsError(f"init_from={path}: is an ensemble of {saved.members} networks; name a run of its study")
    return Pretrained(path, saved, hashlib.sha256(file.read_bytes()).hexdigest())


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes) if len(classes) <= MAX_LISTED_CLASSES else f"{len(classes)} classes"
