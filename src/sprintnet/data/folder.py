"""A folder of images, train/<class>/* and test/<class>/*, becomes arrays."""

from pathlib import Path

import numpy as np

from sprintnet.data.dataset import ImageDataset
from sprintnet.errors import DataError
from sprintnet.images import SUFFIXES, read_image


def read_folder(path: Path) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test) of RGB images of one size; classes are the sub-folders of train, files go in order of name.

    A class folder whose name is no UTF-8 is shown with its bytes as \\xNN.

    Raises DataError for a missing part, a class that only test has, an unreadable image or a second size, with its path.
    """
    for part in ("train", "test"):
        if not (path / part).is_dir():
            raise DataError(f"data.name={path}: there is no folder {path / part}; put images into {part}/<class>/")
    classes = _classes(path / "train")
    names = tuple(map(_as_text, classes))
    if len(classes) < 2:
        raise DataError(f"data.name={path}: {path / 'train'} holds {len(classes)} class folders; at least 2 are needed")
    if unknown := set(_classes(path / "test")) - set(classes):
        raise DataError(
            f"data.name={path}: {path / 'test'} has classes that train lacks: {', '.join(sorted(map(_as_text, unknown)))}"
        )
    train = _read_part(path / "train", classes, names)
    test = _read_part(path / "test", classes, names)
    if train.image_shape != test.image_shape:
        raise DataError(f"data.name={path}: train images are {_size(train)}, test images {_size(test)}; resize them alike")
    return train, test


def _classes(part: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _as_text(name: str) -> str:
    """Returns a file's name as text: bytes that are no UTF-8 are written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read_part(part: Path, classes: tuple[str, ...], names: tuple[str, ...]) -> ImageDataset:
    images, labels, files = [], [], []
    for label, name in enumerate(classes):
        for file in sorted((part / name).iterdir()) if (part / name).is_dir() else []:
            if file.suffix.lower() in SUFFIXES:
                images.append(read_image(file))
                labels.append(label)
                files.append(_as_text(str(file)))
                if images[-1].shape != images[0].shape:
                    raise DataError(
                        f"{file}: {images[-1].shape[1]}x{images[-1].shape[0]} pixels, but the images before it have "
                        f"{images[0].shape[1]}x{images[0].shape[0]}; resize them alike"
                    )
    if not images:
        raise DataError(f"{part}: holds no image; put {' '.join(SUFFIXES)} files into its class folders")
    return ImageDataset(np.stack(images), np.array(labels, dtype=np.int64), names, tuple(files))


def _size(dataset: ImageDataset) -> str:
    height, width, _ = dataset.image_shape
    return f"{width}x{height}"
