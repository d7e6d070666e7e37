"""MNIST and Fashion-MNIST: four IDX files of grey images and labels each.

Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits, 1998; H. Xiao, K. Rasul and R. Vollgraf,
Fashion-MNIST, 2017, arXiv:1708.07747.
"""

from collections.abc import Sequence

import numpy as np

from sprintnet.data.builtin.official_file import OfficialFile
from sprintnet.data.dataset import ImageDataset

IDX_SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
"""Name -> size of the uncompressed file."""


def _files(*digests: tuple[str, str]) -> tuple[OfficialFile, ...]:
    return tuple(
        OfficialFile(name, size, sha256, md5, aliases=(name.replace("-idx", ".idx"),), is_gzipped=True)
        for (name, size), (md5, sha256) in zip(IDX_SIZES.items(), digests, strict=True)
    )


# The official MD5s are of the .gz files; these digests are of the content of files with those MD5s.
MNIST_FILES = _files(
    ("6bbc9ace898e44ae57da46a324031adb", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    ("a25bea736e30d166cdddb491f175f624", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ("2646ac647ad5339dbf082846283269ea", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ("27ae3e4e09519cfbb04c329615203637", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
)  # fmt: skip
FASHION_FILES = _files(
    ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    ("9018921c3c673c538a1fc5bad174d6f9", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    ("8181f5470baa50b63fa0f6fddb340f0a", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    ("15d484375f8d13e6eb1aabb0c3f46965", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)  # fmt: skip

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def decode(contents: Sequence[bytes], classes: tuple[str, ...]) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test), 28x28 grey, from the contents of the four files: images and labels of train, then of test."""
    train_images, train_labels, test_images, test_labels = map(_read_idx, contents)
    return (
        ImageDataset(train_images[..., None], train_labels.astype(np.int64), classes),
        ImageDataset(test_images[..., None], test_labels.astype(np.int64), classes),
    )


def _read_idx(content: bytes) -> np.ndarray:
    """Returns the array of an IDX file: two zeros, 8 for uint8, the number of dimensions, big-endian int32 shape, data."""
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()  # PyTorch wants it writable
