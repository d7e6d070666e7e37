"""MNIST and Fashion-MNIST: four IDX files of grey images and labels each.

Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits, 1998; H. Xiao, K. Rasul and R. Vollgraf,
Fashion-MNIST, 2017, arXiv:1708.07747.
"""

from collections.abc import Sequence

import numpy as np

from sprintnet.data.builtin.download import OfficialFile
from sprintnet.data.dataset import ImageDataset

IDX_SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
"""Name -> size of the uncompressed file."""
GZ_NAMES = tuple(f"{name}.gz" for name in IDX_SIZES)


def _files(*digests: str) -> tuple[OfficialFile, ...]:
    return tuple(
        OfficialFile(name, size, sha256, aliases=(name.replace("-idx", ".idx"),))
        for (name, size), sha256 in zip(IDX_SIZES.items(), digests, strict=True)
    )


# Each SHA-256 is of the content of a .gz file with the published MD5.
MNIST_FILES = _files(
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)  # fmt: skip
FASHION_FILES = _files(
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)  # fmt: skip

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def decode(contents: Sequence[bytes], classes: tuple[str, ...]) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test), 28x28 grey, from the contents of the four files: images and labels of train, then of test."""
    train_images, train_labels, test_images, test_labels = map(_read_idx, contents)
    train = ImageDataset(train_images[..., None], train_labels.astype(np.int64), classes)
    return train, ImageDataset(test_images[..., None], test_labels.astype(np.int64), classes)


def _read_idx(content: bytes) -> np.ndarray:
    """Returns the array of an IDX file: two zeros, 8 for uint8, the number of dimensions, big-endian int32 shape, data."""
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()  # PyTorch wants it writable
