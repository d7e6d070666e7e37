"""Datasets from arrays: images and labels are checked and converted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sprintnet.data.custom.conventions import class_name, is_unknown
from sprintnet.data.dataset import LABEL_SEPARATOR, ImageDataset, Labels
from sprintnet.data.images import to_uint8
from sprintnet.errors import DataError

Array = npt.NDArray[Any]


def from_arrays(
    images: npt.ArrayLike, labels: npt.ArrayLike, classes: Sequence[str] | None = None, *, multi_label: bool | None = None
) -> ImageDataset:
    """Returns a dataset in memory.

    `images` are uint8, or floats in 0..1, of shape (N, H, W) or (N, H, W, C) with 1, 3 or 4 channels. `labels` are integers
    or text (N,), or 0 and 1 (N, K): one class per image if each row has exactly one 1, else any number of classes, unless
    `multi_label` decides. `classes` names the K classes; by default they are the distinct labels, sorted.
    """
    pixels = _as_array("images", images)
    check_images("images", pixels.dtype, pixels.shape)
    encoded, names, _ = encode_labels("labels", _as_array("labels", labels), classes, multi_label)
    if len(encoded) != len(pixels):
        raise DataError(f"labels: has {len(encoded):,} entries for {len(pixels):,} images; one is needed for each image")
    pixels = np.ascontiguousarray(to_uint8("images", pixels))
    return ImageDataset(pixels.reshape(*pixels.shape[:3], -1), encoded, names)


def check_images(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raises DataError unless an array of this type and shape can hold images."""
    has_channels = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    if not has_channels or 0 in shape[1:] or (dtype != np.uint8 and dtype.kind != "f"):
        rule = "must be uint8, or floats in 0..1, of shape (N, H, W) or (N, H, W, C) with 1, 3 or 4 channels"
        raise DataError(f"{name}: {dtype} of shape {shape}; {rule}")


def encode_labels(
    name: str, labels: Array, classes: Sequence[str] | Array | None, multi_label: bool | None = None
) -> tuple[Labels, tuple[str, ...], bool]:
    """Returns class indices int64 (N,) or 0 and 1, uint8 (N, K); the class names; and whether the labels were one-hot.
    Arguments as in `from_arrays`. Raises DataError, calling the labels `name`."""
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        unknown_label = labels[~np.isfinite(labels)].flat[0]
        raise DataError(f"{name}: has {unknown_label}, which marks images without a label: leave these out")
    labels = plain_labels(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_binary = labels.ndim == 2 and labels.dtype.kind in "iubf" and bool(np.isin(labels, (0, 1)).all())
    if not is_binary and (labels.ndim != 1 or labels.dtype.kind not in "iubU"):
        rule = "must be integers or text of shape (N,), or 0 and 1 of shape (N, K)"
        raise DataError(f"{name}: {labels.dtype} of shape {labels.shape}; {rule}")
    values = np.arange(labels.shape[1]) if is_binary else np.unique(labels)
    names = tuple(map(class_name, (values if classes is None else np.ravel(np.asarray(classes))).tolist()))
    has_empty = classes is not None and "" in names  # labels that are empty mark images without one, see below
    if len(set(names)) < len(names) or any(LABEL_SEPARATOR in text for text in names) or has_empty:
        raise DataError(f"{name}: class names must differ, not be empty and not contain {LABEL_SEPARATOR}: {', '.join(names)}")
    if is_binary:
        if len(names) != len(values):
            raise DataError(f"{name}: has {len(values)} columns and {len(names)} class names; give each column a name")
        is_one_hot = not multi_label and bool((labels.sum(axis=1) == 1).all())
        if multi_label is False and not is_one_hot:
            raise DataError(f"{name}: has rows without exactly one 1; with multi_label=False each image has one class")
        return (labels.argmax(axis=1) if is_one_hot else labels.astype(np.uint8)), names, is_one_hot
    if unknown := [value for value in values if is_unknown(value) or (labels.dtype.kind == "i" and value < 0)]:
        raise DataError(f"{name}: has {unknown[0] or 'empty text'}, which marks images without a label: leave these out")
    index = {text: position for position, text in enumerate(names)}
    known = [index.get(class_name(value), -1) for value in values] if classes is None or labels.dtype.kind == "U" else values
    if missing := [value for value, position in zip(values, known, strict=True) if not 0 <= position < len(names)]:
        raise DataError(f"{name}: has {missing[0]}, for which the {len(names)} class names have no entry; add it")
    return np.asarray(known, np.int64)[np.searchsorted(values, labels)], names, False


def plain_labels(labels: Array) -> Array:
    """Returns labels as integers, text, or floats that are no whole numbers: bytes are decoded; pandas makes floats of integers
    where some are missing."""
    if labels.dtype.kind in "SOU":  # text too: an archive may hold code points that are none, which raise here
        texts = [label.decode("utf-8", "backslashreplace") if isinstance(label, bytes) else label for label in labels.flat]
        labels = np.array(texts).reshape(labels.shape)
    if labels.ndim != 1 or labels.dtype.kind != "f":
        return labels
    if bool((np.isnan(labels) | ((labels == np.round(labels)) & (np.abs(labels) < 2**53))).all()):
        labels = np.where(np.isnan(labels), -1, labels).astype(np.int64)
    return labels


def _as_array(name: str, values: npt.ArrayLike) -> Array:
    try:
        return np.asarray(values)
    except ValueError:  # lists of different lengths
        raise DataError(f"{name}: the entries differ in shape; they must form one array") from None
