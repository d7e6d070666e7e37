"""Networks by name, and their weights on disk."""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from sprintnet.errors import SettingsError
from sprintnet.models.base import Network
from sprintnet.models.davidnet import DavidNet
from sprintnet.models.settings import ModelSettings
from sprintnet.models.sprintnet import SprintNet

WEIGHT_FILES = ("weights.safetensors", "model.safetensors")
"""A run's and an export's."""
FULL_SIZE = "use schedule.resolution=1 schedule.resolution_milestones=0"


def build_model(settings: ModelSettings, classes: int, image_shape: tuple[int, int, int]) -> Network:
    """Returns the network with fresh weights for images of (height, width, channels), logits (B, classes).

    Raises SettingsError for images that are too small for it.
    """
    height, width, channels = image_shape
    side = _smallest_side(settings)
    if min(height, width) < side:
        strided = f" model.stride={settings.stride}" if settings.stride > 1 else ""
        raise SettingsError(
            f"model.name={settings.name}{strided}: needs images of {side}x{side} pixels or more, not {width}x{height}"
        )
    if settings.name == "sprintnet":
        return SprintNet(classes, channels, (height, width), settings.width, settings.dropout, settings.stride)
    if settings.stride > 1:
        raise SettingsError(f"model.stride={settings.stride}: davidnet looks at every pixel; use 1, or model.name=sprintnet")
    return DavidNet(classes, channels, (height, width), settings.width, settings.dropout)


def check_resolution(settings: ModelSettings, image_shape: tuple[int, int, int], resolution: float) -> None:
    """Raises SettingsError where the network cannot be trained on images of this share of their side."""
    shown = f"schedule.resolution={resolution:g}"
    if resolution < 1 and settings.name == "davidnet":
        raise SettingsError(f"{shown}: davidnet's last pooling fits images of one size; {FULL_SIZE}, or model.name=sprintnet")
    side, smallest = min(image_shape[:2]), _smallest_side(settings)
    if round(resolution * side) < smallest:
        raise SettingsError(
            f"{shown}: of {side} pixels leaves less than the {smallest} that {settings.name} needs; {FULL_SIZE}"
        )


def weights_file(path: Path) -> Path:
    """Returns the weights of a run's folder or an export's, or the file itself; raises SettingsError where there are none."""
    found = [file for file in (path, *(path / name for name in WEIGHT_FILES)) if file.is_file()]
    if not found:
        raise SettingsError(f"{path}: holds neither {' nor '.join(WEIGHT_FILES)}; name a run's folder or an export's")
    return found[0]


def weights_to_bytes(model: nn.Module, facts: dict[str, Any]) -> bytes:
    """Returns the weights as a safetensors file whose metadata holds each fact as JSON."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(tensors, {key: json.dumps(value) for key, value in facts.items()})


def load_model(path: Path) -> tuple[Network, dict[str, Any]]:
    """Returns the network of a weights file, built from the file's own facts, and these facts.

    Raises SettingsError for a file that is damaged or holds no such facts.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            tensors: dict[str, torch.Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model = build_model(ModelSettings(**facts["model"]), len(facts["classes"]), tuple(facts["image_shape"]))
        model.load_state_dict(tensors)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise SettingsError(
            f"{path}: not the weights of a network of ours ({str(error).splitlines()[0]}); train again"
        ) from None
    return model, facts


def _smallest_side(settings: ModelSettings) -> int:
    """Returns the side of images of which three poolings leave a pixel; sprintnet's first layer has no padding."""
    return 8 if settings.name == "davidnet" else 8 * settings.stride + 1
