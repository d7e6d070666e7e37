"""SVHN (cropped digits of house numbers): two MATLAB files.

Y. Netzer et al., Reading digits in natural images with unsupervised feature learning, 2011.
"""

import io
from collections.abc import Sequence

import numpy as np

from sprintnet.data.builtin.download import OfficialFile
from sprintnet.data.dataset import ImageDataset

# As in torchvision.
MAT_NAMES = ("train_32x32.mat", "test_32x32.mat")
SVHN_FILES = (
    OfficialFile(MAT_NAMES[0], 182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    OfficialFile(MAT_NAMES[1], 64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
)


def decode(contents: Sequence[bytes], classes: tuple[str, ...]) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test), 32x32 RGB, from the contents of the two files; needs SciPy."""
    from scipy.io import loadmat  # not above: an extra, and slow to load

    datasets = []
    for content in contents:
        arrays = loadmat(io.BytesIO(content), variable_names=("X", "y"))  # type: ignore[arg-type]  # any binary stream works
        images = np.ascontiguousarray(arrays["X"].transpose(3, 0, 1, 2))
        datasets.append(ImageDataset(images, arrays["y"][:, 0].astype(np.int64) % 10, classes))  # 10 is the digit 0
    return datasets[0], datasets[1]
