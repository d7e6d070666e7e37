"""CIFAR-10: the official files with their digests, and the three layouts from which they can be rebuilt, byte for byte."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sprintnet.data.dataset import ImageDataset
from sprintnet.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SHAPE = (32, 32, 3)
RECORDS = 10_000
TRAINING_IMAGES = 5 * RECORDS
PIXELS = 32 * 32


@dataclass(frozen=True)
class BatchFile:
    """One official file: its stem, the digests of its binary version, and the MD5 of its Python (pickle) version."""

    stem: str
    md5: str
    sha256: str
    pickle_md5: str
    size: int = RECORDS * (1 + 3 * PIXELS)

    @property
    def name(self) -> str:
        """The binary version's file name."""
        return f"{self.stem}.bin"


# The MD5s are the official ones; each SHA-256 was computed from bytes that had passed its MD5.
FILES = (
    BatchFile(
        "data_batch_1", "5dd7e06a14cb22eb9f671a540d1b7c25",
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5", "c99cafc152244af753f735de768cd75f",
    ),
    BatchFile(
        "data_batch_2", "5ea93a67294ea407fff1d09f752e9692",
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed", "d4bba439e000b95fd0a9bffe97cbabec",
    ),
    BatchFile(
        "data_batch_3", "942cd6a4bcdd0dd3c604fbe906cb4421",
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67", "54ebc095f3ab1f0389bbae665268c751",
    ),
    BatchFile(
        "data_batch_4", "ae636b3ba5c66a11e91e8cb52e771fcb",
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48", "634d18415352ddfa80567beed471001a",
    ),
    BatchFile(
        "data_batch_5", "53f37980c15c3d472c316c40844f3f0d",
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add", "482c414d41f54cd18b22e5b47cb7c3cb",
    ),
    BatchFile(
        "test_batch", "803d5f7f4d78ea53de84dbe85f74fb6d",
        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b", "40351d587109b95175f43aff81a1287e",
    ),
)  # fmt: skip

ReadMember = Callable[[str], bytes | None]
"""Returns the content of the member with this base name, or None where the folder or archive has none."""


def rebuild(read: ReadMember) -> dict[str, bytes]:
    """Returns the six binary files (name -> verified bytes) from a folder or archive in any of the three layouts.

    Raises DataError where a member is missing or a digest differs.
    """
    for stem_suffix, decode in (
        (".bin", _from_binary),
        ("", _from_python),
        (".png", _from_sheet),
    ):
        if read(FILES[0].stem + stem_suffix) is not None:
            return {file.name: verify(file, decode(file, read)) for file in FILES}
    raise DataError("holds neither data_batch_1.bin (binary), nor data_batch_1 (Python), nor data_batch_1.png (PNG sheets)")


def verify(file: BatchFile, content: bytes) -> bytes:
    """Returns the content if its size, MD5 and SHA-256 are the official file's; raises DataError otherwise."""
    if len(content) != file.size:
        raise DataError(f"{file.name} has {len(content):,} bytes, not {file.size:,}")
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != file.md5:
        raise DataError(f"{file.name} has MD5 {found}, not {file.md5}")
    return verify_pin(file, content)


def verify_pin(file: BatchFile, content: bytes) -> bytes:
    """Returns the content if its SHA-256 is the pinned one (a third of `verify`'s time, for the cache); else DataError."""
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(f"{file.name} has SHA-256 {found}, not {file.sha256}")
    return content


def decode(files: dict[str, bytes]) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test) from the six binary files: 50,000 and 10,000 images of 32 x 32 RGB pixels."""
    records = [np.frombuffer(files[file.name], np.uint8).reshape(-1, 1 + 3 * PIXELS) for file in FILES]
    return _dataset(records[:-1]), _dataset(records[-1:])


def _dataset(batches: list[np.ndarray]) -> ImageDataset:
    images = np.empty((sum(map(len, batches)), 32, 32, 3), np.uint8)
    start = 0
    for batch in batches:  # a record is a label, then 1,024 red, green and blue values
        planes = batch[:, 1:].reshape(-1, 3, 32, 32)
        images[start : start + len(batch)] = planes.transpose(0, 2, 3, 1)
        start += len(batch)
    return ImageDataset(images, np.concatenate([batch[:, 0] for batch in batches]).astype(np.int64), CLASSES)


def _from_binary(file: BatchFile, read: ReadMember) -> bytes:
    return _required(read, file.name)


def _from_python(file: BatchFile, read: ReadMember) -> bytes:
    content = _required(read, file.stem)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != file.pickle_md5:  # a pickle can run code: none is opened unless it is the official one
        raise DataError(f"{file.stem} has MD5 {found}, not {file.pickle_md5}")
    batch = pickle.loads(content, encoding="bytes")  # noqa: S301
    return _records(batch[b"labels"], batch[b"data"])


def _from_sheet(file: BatchFile, read: ReadMember) -> bytes:
    """The npm package's layout: an image a row of 1,024 RGB pixels; the labels, spelled so, in two JSON lists."""
    is_test = file is FILES[-1]
    labels = json.loads(_required(read, "test_lables.json" if is_test else "train_lables.json"))
    start = 0 if is_test else FILES.index(file) * RECORDS
    with Image.open(io.BytesIO(_required(read, f"{file.stem}.png"))) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    return _records(labels[start : start + RECORDS], pixels.transpose(0, 2, 1).reshape(len(pixels), -1))


def _records(labels: list[int], planes: np.ndarray) -> bytes:
    return np.concatenate([np.array(labels, np.uint8)[:, None], planes], axis=1).tobytes()


def _required(read: ReadMember, name: str) -> bytes:
    content = read(name)
    if content is None:
        raise DataError(f"holds no {name}")
    return content
