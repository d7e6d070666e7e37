"""Digits: the 1,797 little pictures that scikit-learn ships, the test part of the UCI repository's optdigits.

E. Alpaydin and C. Kaynak, Cascading classifiers, Kybernetika 34, 1998; https://doi.org/10.24432/C50P49.
"""

from collections.abc import Sequence

import numpy as np

from sprintnet.data.builtin.official_file import OfficialFile
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.splits import stratified_sample

TEST_SHARE = 0.2
"""Of each class: there is no official split of these pictures."""
TEST_SEED = 0

# Of the file in scikit-learn; others state the same for the repository's optdigits.tes.
FILES = (
    OfficialFile(
        "digits.csv", 264_712, "a0339c30a8a5312a1b6f9e5c719dcce5",
        "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8", aliases=("optdigits.tes",), gzipped=True,
    ),
)  # fmt: skip


def decode(contents: Sequence[bytes], classes: tuple[str, ...]) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test), 8 x 8 grey pixels; test is a fifth of each class, always the same images.

    A line of the file is 64 pixels of 0 to 16, row by row, and the digit.
    """
    (content,) = contents
    lines = np.loadtxt(content.decode("ascii").splitlines(), np.uint16, delimiter=",")
    images = ((lines[:, :64] * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    whole = ImageDataset(images, lines[:, 64].astype(np.int64), classes)
    test = stratified_sample(whole.labels, TEST_SHARE, seed=TEST_SEED)
    return whole.take(np.flatnonzero(~test)), whole.take(np.flatnonzero(test))
