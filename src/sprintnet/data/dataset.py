"""ImageDataset: uint8 images, labels and class names; its statistics and digest."""

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64] | npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

FULL_BATCH_PIXELS = 64 * 64
LABEL_SEPARATOR = "|"  # separates the class names of a multi-label image
BLOCK_SIZE = 500  # images read at a time: the sum of 500 squared pixel values fits into 32 bits


@dataclass(frozen=True)
class ImageDataset:
    """Images uint8 (M, H, W, C), of which the dataset has those at `rows` (N,), in this order (None: all).

    Labels are class indices int64 (N,) below K, or of multi-label data 0 and 1, uint8 (N, K). `classes` names the K classes,
    `files` the file of each image, if any.
    """

    storage: Images
    """In memory, or mapped from a file."""
    labels: Labels
    classes: tuple[str, ...]
    files: Sequence[str] | None = None
    rows: Rows | None = None
    groups: Sequence[str] | None = None
    """Images of one group stay in one split; an empty name is no group."""

    def __post_init__(self) -> None:
        assert self.storage.dtype == np.uint8 and self.storage.ndim == 4
        assert len(self.labels) == len(self.storage if self.rows is None else self.rows)
        assert all(values is None or len(values) == len(self.labels) for values in (self.files, self.groups))
        if self.multi_label:
            assert self.labels.dtype == np.uint8 and self.labels.shape[1] == len(self.classes)
            assert self.labels.max(initial=0) <= 1
        else:
            assert self.labels.dtype == np.int64
            assert len(self.labels) == 0 or 0 <= self.labels.min() <= self.labels.max() < len(self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"ImageDataset({len(self):,} images {'x'.join(map(str, self.image_shape))}; {len(self.classes)} classes)"

    @property
    def multi_label(self) -> bool:
        """Whether images may have several labels, or none."""
        return self.labels.ndim == 2

    @property
    def images(self) -> Images:
        """The images (N, H, W, C): the storage itself, or a copy of its rows in memory."""
        return self.storage if self.rows is None else self.storage[self.rows]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.storage.shape[1:]
        return height, width, channels

    def take(self, indices: Rows) -> "ImageDataset":
        """Returns the images at these indices; no pixel is copied."""
        files, groups = (values and tuple(values[index] for index in indices) for values in (self.files, self.groups))
        rows = indices if self.rows is None else self.rows[indices]
        return replace(self, labels=self.labels[indices], files=files, rows=rows, groups=groups)

    def blocks(self) -> Iterator[Images]:
        """Yields the images in order, a few hundred at a time."""
        advise(self.storage, "MADV_NORMAL")
        for start in range(0, len(self), BLOCK_SIZE):
            part = slice(start, start + BLOCK_SIZE)
            yield np.ascontiguousarray(self.storage[part if self.rows is None else self.rows[part]])
            advise(self.storage, "MADV_DONTNEED")


def label_text(labels: npt.NDArray[np.integer[Any] | np.bool_], classes: Sequence[str]) -> list[str]:
    """Returns the class name of each image, or its class names with | between them (empty: none)."""
    if labels.ndim == 1:
        return [classes[label] for label in labels.tolist()]
    return [LABEL_SEPARATOR.join(classes[index] for index in np.flatnonzero(row).tolist()) for row in labels]


def advise(images: Images, advice: str) -> None:
    """Tells the system how images mapped from a file are read: MADV_RANDOM or MADV_NORMAL; MADV_DONTNEED frees their
    pages. Of a file larger than memory, random batches are read 60 times as fast if the system does not read ahead."""
    if isinstance(images, np.memmap) and hasattr(mmap, advice):
        images._mmap.madvise(getattr(mmap, advice))  # type: ignore[attr-defined]


def images_at_a_time(most: int, shape: tuple[int, ...]) -> int:
    """Returns how many images of a shape (H, W, ...) are computed at a time: `most` of up to 64x64 pixels, else fewer."""
    return max(1, min(most, most * FULL_BATCH_PIXELS // (shape[0] * shape[1])))


def class_counts(labels: Labels, classes: int) -> npt.NDArray[np.int64]:
    """Returns the number of images of each class (K,)."""
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    return np.asarray(counts, np.int64)


def first_of_each_class(labels: Labels) -> Rows:
    """Returns the index of the first image of each class that has images; multi-label: it may be that of several classes."""
    if labels.ndim == 1:
        return np.unique(labels, return_index=True)[1]
    return np.asarray(labels[:, labels.any(axis=0)].argmax(axis=0))


def class_weights(labels: Labels, classes: int) -> npt.NDArray[np.float32]:
    """Returns class weights (K,), inverse to the frequency and 1 on average over all labels; 0 for a class without images."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.zeros(classes, np.float32)
    weights[counts > 0] = len(labels) / (np.count_nonzero(counts) * counts[counts > 0])
    return weights


def concatenate(*parts: ImageDataset) -> ImageDataset:
    """Returns the concatenated parts of one dataset; no pixel is copied."""
    first = parts[0]
    assert all(part.storage is first.storage for part in parts)
    return replace(
        first,
        labels=np.concatenate([part.labels for part in parts]),
        files=first.files and tuple(file for part in parts for file in part.files or ()),
        rows=np.concatenate([np.arange(len(part)) if part.rows is None else part.rows for part in parts]),
        groups=first.groups and tuple(group for part in parts for group in part.groups or ()),
    )


def channel_statistics(dataset: ImageDataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel, in 0..1; sums of integers do not depend on the images' order."""
    height, width, channels = dataset.image_shape
    total, squares = np.zeros((2, height * width * channels), np.uint64)
    for images in dataset.blocks():  # summed along images: 20 times as fast as along channels
        block = images.reshape(len(images), -1).astype(np.uint32)
        total += block.sum(axis=0, dtype=np.uint32)
        squares += (block * block).sum(axis=0, dtype=np.uint32)
    count = len(dataset) * height * width
    mean = total.reshape(-1, channels).sum(axis=0) / count
    variance = squares.reshape(-1, channels).sum(axis=0) / count - mean**2
    deviation = np.where(variance > 0, np.sqrt(np.maximum(variance, 0)), 255)  # 1 after scaling: a constant channel
    return tuple((mean / 255).tolist()), tuple((deviation / 255).tolist())


def one_colour(dataset: ImageDataset) -> list[int]:
    """Returns the indices of the images whose pixels are all equal."""
    blocks = [(block == block[:, :1, :1]).all(axis=(1, 2, 3)) for block in dataset.blocks()]
    return np.flatnonzero(np.concatenate([np.zeros(0, bool), *blocks])).tolist()


def digest(*datasets: ImageDataset) -> str:
    """Returns the SHA-256 of images, labels and class names: runs with equal digests had equal data."""
    sha256 = hashlib.sha256()
    for dataset in datasets:
        sha256.update(repr(((len(dataset), *dataset.image_shape), dataset.classes)).encode())
        for images in dataset.blocks():
            sha256.update(images.data)
        sha256.update(dataset.labels.astype("<i8").data)
    return sha256.hexdigest()
