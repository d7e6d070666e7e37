"""Tensors in a file: equal content gives equal bytes, and no changed bit goes unnoticed."""

import random
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sprintnet.models.tensor_file import DamagedError, read_tensors, write_tensors

TENSORS = {
    "filters": torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)),
    "half": torch.arange(5).to(torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.empty(0, 2),
}
METADATA = {"classes": '["cat", "chién"]', "zoom": "2", "a": "b"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of these tensors."""
    write_tensors(tmp_path / "a.safetensors", TENSORS, METADATA)
    return tmp_path / "a.safetensors"


def test_what_was_written_is_read(file: Path) -> None:
    tensors, metadata = read_tensors(file)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert torch.equal(safetensors.torch.load_file(file)["filters"], TENSORS["filters"])  # other readers understand it too


def test_equal_content_gives_equal_bytes(file: Path, tmp_path: Path) -> None:
    for number in range(5):  # the library orders the metadata at random
        write_tensors(tmp_path / f"{number}", dict(reversed(TENSORS.items())), dict(reversed(METADATA.items())))
        assert (tmp_path / f"{number}").read_bytes() == file.read_bytes()


def test_a_changed_bit_in_any_byte_and_a_cut_are_noticed(file: Path) -> None:
    content = file.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    padding = range(len(content[:size].rstrip(b" ")), size)  # spaces that a reader skips
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << random.Random(place).randrange(8)
        file.write_bytes(changed)
        if place in padding and chr(changed[place]).isspace():
            continue
        with pytest.raises(DamagedError):
            read_tensors(file)
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(DamagedError):
            read_tensors(file)


def test_a_file_of_others_has_no_digest(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "a.safetensors", METADATA)
    with pytest.raises(DamagedError, match="has no digest"):
        read_tensors(tmp_path / "a.safetensors")
