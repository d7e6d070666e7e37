"""Digits: the 1,797 images in scikit-learn, which are the test part of the UCI repository's optdigits.

E. Alpaydin and C. Kaynak, Cascading classifiers, Kybernetika 34, 1998; https://doi.org/10.24432/C50P49.
"""

from collections.abc import Sequence

import numpy as np

from sprintnet.data.builtin.download import OfficialFile
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.splits import stratified_sample

TEST_FRACTION, TEST_SEED = 0.2, 0  # the split: there is no official one

# As in scikit-learn, and as others publish for the UCI repository's optdigits.tes.
SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
DIGITS_FILES = (OfficialFile("digits.csv", 264_712, SHA256, aliases=("optdigits.tes",)),)


def decode(contents: Sequence[bytes], classes: tuple[str, ...]) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test), 8x8 grey; test is a fifth of each class, always the same images. A line of the file is 64
    pixels of 0 to 16 in row-major order, and the digit."""
    (content,) = contents
    lines = np.loadtxt(content.decode("ascii").splitlines(), np.uint16, delimiter=",")
    images = ((lines[:, :64] * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    dataset = ImageDataset(images, lines[:, 64].astype(np.int64), classes)
    test = stratified_sample(dataset.labels, TEST_FRACTION, seed=TEST_SEED)
    return dataset.take(np.flatnonzero(~test)), dataset.take(np.flatnonzero(test))
