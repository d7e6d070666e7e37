"""Training that starts from a network which was trained before: its weights and its normalisation, with a head of its own."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sprintnet.errors import SettingsError
from sprintnet.models.base import Network
from sprintnet.models.factory import load_model, weights_file
from sprintnet.models.settings import ModelSettings
from sprintnet.runs.folder import RunFolder, require_consistent

MAX_LISTED_CLASSES = 10
"""Classes that a line may name."""


@dataclass(frozen=True)
class Pretrained:
    """A trained network with what its weights hang on."""

    path: str
    network: Network
    settings: ModelSettings
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def transfer_to(self, model: Network, settings: ModelSettings, classes: Sequence[str], channels: int) -> str:
        """Copies the weights into a fresh network of the same form, the head's only for the same classes; returns a line on it.

        The images may have another size. Raises SettingsError for a network of another form or images of other channels.
        """
        wanted, there = asdict(settings), asdict(replace(self.settings, dropout=settings.dropout))
        if others := [f"model.{name}={value}" for name, value in there.items() if value != wanted[name]]:
            raise SettingsError(f"init_from={self.path}: its network is another; train the same one: {' '.join(others)}")
        if channels != self.image_shape[2]:
            raise SettingsError(
                f"init_from={self.path}: its network takes images of {self.image_shape[2]} channels, these have {channels}; "
                "set data.channels, or start from another run"
            )
        keeps_head = tuple(classes) == self.classes
        kept = {key: value for key, value in self.network.state_dict().items() if keeps_head or not key.startswith("linear.")}
        model.load_state_dict(kept, strict=keeps_head)
        new_head = f"with a new head: {_listed(classes)} instead of {_listed(self.classes)}"
        return f"init: the network of {self.path}, {'its head too' if keeps_head else new_head}"


def load_pretrained(path: str) -> Pretrained:
    """Returns the network of a run's folder, an export's, or a weights file; raises SettingsError where there is none."""
    file = weights_file(Path(path).expanduser())
    network, facts = load_model(file)
    with require_consistent(RunFolder(file.parent)):
        classes, shape, mean, std = (tuple(facts[key]) for key in ("classes", "image_shape", "mean", "std"))
    return Pretrained(path, network, ModelSettings(**facts["model"]), classes, shape, mean, std)


def pretrained_digest(path: str) -> str | None:
    """Returns the SHA-256 of the weights that training starts from, None for an empty path: fresh weights."""
    return hashlib.sha256(weights_file(Path(path).expanduser()).read_bytes()).hexdigest() if path else None


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes) if len(classes) <= MAX_LISTED_CLASSES else f"{len(classes)} classes"
