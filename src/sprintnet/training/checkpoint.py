"""A training state in one safetensors file: tensors as tensors, everything else as JSON; no pickle."""

import json
from pathlib import Path
from typing import Any

import torch

from sprintnet.errors import SettingsError
from sprintnet.models.tensor_file import DamagedError, read_tensors, write_tensors

State = dict[str, Any]
"""Nested dicts and lists of tensors, numbers, text and None."""


def save_checkpoint(path: Path, state: State) -> None:
    """Replaces the checkpoint atomically: a crash at any moment leaves the old state or the new."""
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.dumps(_take_tensors(state, "", tensors))
    write_tensors(path, tensors, {"state": skeleton})


def load_checkpoint(path: Path, device: torch.device) -> State:
    """Returns the state that was saved, its tensors on the device; raises SettingsError for a damaged file."""
    try:
        tensors, metadata = read_tensors(path, str(device))
        state: State = _put_tensors(json.loads(metadata["state"]), tensors)
    except (OSError, DamagedError, KeyError, ValueError) as error:
        raise SettingsError(f"{path}: damaged ({error}); remove it and start the run again under another --name") from None
    return state


def random_state(device: torch.device) -> State:
    """Returns the state of PyTorch's generators, which dropout uses."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state(state: State, device: torch.device) -> None:
    """Restores what `random_state` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type != "cpu" and state.get(device.type) is not None:  # a run may be resumed on another device
        torch.get_device_module(device).set_rng_state(state[device.type].cpu(), device)


def _take_tensors(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().contiguous()
        return {"tensor": path, "channels_last": value.ndim == 4 and not value.is_contiguous()}
    if isinstance(value, dict):
        # JSON keys are text; pairs keep keys of other types
        return {"items": [[key, _take_tensors(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_tensors(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:  # a fused optimizer needs the memory layout of the weights
            layout = torch.channels_last if value["channels_last"] else torch.contiguous_format
            return tensors[value["tensor"]].contiguous(memory_format=layout)
        return {key: _put_tensors(item, tensors) for key, item in value["items"]}
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    return value
