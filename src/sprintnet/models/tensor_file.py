"""Tensors and text in one safetensors file that carries a digest of its content, so that a changed bit is noticed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from sprintnet.runs.io import write_atomic

DIGEST = "sha256"  # the key of the digest in the metadata
Tensors = Mapping[str, torch.Tensor]


class DamagedError(Exception):
    """A file that is no safetensors file, or whose content is not what was written."""


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Replaces a file atomically. Equal tensors and metadata give equal bytes."""
    tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}  # from a GPU once, not once for the digest too
    content = safetensors.torch.save(tensors, {**metadata, DIGEST: _digest(tensors, metadata)})
    end = 8 + int.from_bytes(content[:8], "little")
    # the library writes the metadata in random order
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    write_atomic(path, len(header).to_bytes(8, "little") + header + content[end:])


def read_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Returns the tensors, on the device, and the metadata; raises DamagedError, or OSError for a file that is missing."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise DamagedError(str(error).splitlines()[0]) from None
    if (expected := metadata.pop(DIGEST, None)) is None:
        raise DamagedError("has no digest of its content")
    if _digest(tensors, metadata) != expected:
        raise DamagedError("its content is not what was written")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, metadata


def _digest(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    sha256 = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        sha256.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()
