"""A NumPy archive of images, read from front to back: it may be larger than memory."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sprintnet.data.dataset import LABEL_SEPARATOR, Images, Labels
from sprintnet.errors import DataError

LAYOUTS: Sequence[Mapping[str, tuple[str, str]]] = (
    {split: (f"{split}_images", f"{split}_labels") for split in ("train", "val", "test")},
    {split: (f"x_{split}", f"y_{split}") for split in ("train", "val", "test")},
    {"": ("images", "labels")},
)
"""Split -> names of its images and its labels: MedMNIST's, Keras's, and those of an archive that is not divided."""


class Archive:
    """The images of an .npz file, split after split: `split` of each, `labels`, `classes`, `image_shape` (H, W, C).

    Images are uint8 (N, H, W) or (N, H, W, C). Labels are whole numbers or text (N,) or (N, 1), or marks 0 and 1 (N, K); an
    array `classes` may name them. Raises DataError for anything else.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
            names = [name.removesuffix(".npy") for name in self._archive.namelist()]
            layout = next((found for found in LAYOUTS if set(names) & {images for images, _ in found.values()}), {})
            parts = {split: pair for split, pair in layout.items() if pair[0] in names}
            if not parts:
                raise DataError(f"{path}: has the arrays {', '.join(names)}; name them images and labels, or train_images, ...")
            self._members = [images for images, _ in parts.values()]
            shapes = [self._shape(name) for name in self._members]
            labels = [self._whole(name) for _, name in parts.values()]
            given = self._whole("classes") if "classes" in names else None
        except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            cause = getattr(error, "strerror", None) or str(error).strip("'\"")
            raise DataError(
                f"{path}: cannot be read as a NumPy archive ({cause}); write it anew by numpy.savez, images as uint8"
            ) from None
        counts = [shape[0] for shape in shapes]
        if len({shape[1:] for shape in shapes}) > 1 or counts != [len(part) for part in labels]:
            have = "; ".join(f"{name} {shape}" for name, shape in zip(self._members, shapes, strict=True))
            raise DataError(
                f"{path}: {have}, with {[len(part) for part in labels]} labels; give one size, and each image a label"
            )
        height, width, channels = (*shapes[0][1:], 1)[:3]
        self.image_shape = height, width, channels
        self.split = tuple(split for split, count in zip(parts, counts, strict=True) for _ in range(count))
        self.labels, self.classes = _numbered(path, np.concatenate(labels), given)
        self._ends = np.cumsum(counts).tolist()
        self._position, self._stream = 0, self._begin(0)

    def read(self, part: slice) -> Images:
        """Returns the images (n, H, W, C) of a part that lies behind all that were read before."""
        size = int(np.prod(self.image_shape))
        found = np.empty((part.stop - part.start, *self.image_shape), np.uint8)
        while self._position < part.stop:
            member = int(np.searchsorted(self._ends, self._position, side="right"))
            if member and self._position == self._ends[member - 1]:
                self._stream = self._begin(member)
            try:
                content = self._stream.read(size)
            except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
                content = b""
            if len(content) < size:
                raise DataError(f"{self.path}: {self._members[member]} is damaged; write it anew by numpy.savez")
            if self._position >= part.start:
                found[self._position - part.start] = np.frombuffer(content, np.uint8).reshape(self.image_shape)
            self._position += 1
        return found

    def _begin(self, member: int) -> IO[bytes]:
        stream = self._archive.open(f"{self._members[member]}.npy")
        _head(stream)
        return stream

    def _shape(self, name: str) -> tuple[int, ...]:
        with self._archive.open(f"{name}.npy") as stream:
            shape, in_columns, dtype = _head(stream)
        if dtype != np.uint8 or in_columns or len(shape) not in (3, 4) or (*shape, 1)[3] not in (1, 3, 4) or 0 in shape:
            raise ValueError(f"{name}: {dtype} of shape {shape}, not uint8 (N, H, W) or (N, H, W, 1, 3 or 4)")
        return shape

    def _whole(self, name: str) -> npt.NDArray[Any]:
        with self._archive.open(f"{name}.npy") as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _head(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = (
        np.lib.format.read_array_header_1_0
        if np.lib.format.read_magic(stream) == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    return read(stream)


def _numbered(path: Path, labels: npt.NDArray[Any], names: npt.NDArray[Any] | None) -> tuple[Labels, tuple[str, ...]]:
    """Returns class numbers (N,), or marks (N, K), and the class names."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    several = labels.ndim == 2
    if labels.ndim > 2 or (several and not set(np.unique(labels).tolist()) <= {0, 1}) or labels.dtype.kind not in "iubU":
        raise DataError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; give whole numbers or text (N,), or 0 and 1 (N, K)"
        )
    if several and names is not None and (len(names) != labels.shape[1] or any(LABEL_SEPARATOR in str(name) for name in names)):
        have = f"marks of {labels.shape[1]} classes and {len(names)} class names"
        raise DataError(f"{path}: has {have}; give each a name, none with {LABEL_SEPARATOR}")
    found = np.arange(labels.shape[1]) if several else np.unique(labels)
    if names is None:
        classes = tuple(map(str, found.tolist()))
        numbers = labels if several else np.searchsorted(found, labels)
    else:
        classes = tuple(map(str, names.tolist()))
        if labels.dtype.kind == "U" and not set(labels.tolist()) <= set(classes):
            raise DataError(f"{path}: has labels that classes does not name; give each a name")
        numbers = labels if labels.dtype.kind != "U" else np.array([classes.index(label) for label in labels])
        if len(found) and not several and not 0 <= numbers.min() <= numbers.max() < len(classes):
            raise DataError(
                f"{path}: has labels {numbers.min()} to {numbers.max()} and {len(classes)} class names; give each a name"
            )
    return (numbers.astype(np.uint8) if several else numbers.astype(np.int64)), classes
