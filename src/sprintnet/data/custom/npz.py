"""NumPy archives (.npz) of images, read sequentially, so that they may be larger than memory."""

import io
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sprintnet.data.custom.arrays import check_images, encode_labels, plain_labels
from sprintnet.data.custom.conventions import is_unknown
from sprintnet.data.dataset import Images
from sprintnet.data.images import to_uint8
from sprintnet.data.splits import SPLIT_ALIASES
from sprintnet.errors import DataError

LAYOUTS = (
    [(split, f"{alias}_images", f"{alias}_labels") for alias, split in SPLIT_ALIASES.items()],
    [(split, f"x_{alias}", f"y_{alias}") for alias, split in SPLIT_ALIASES.items()],
    [("", "images", "labels")],
)
"""Split, names of its images and labels: as in MedMNIST, as in Keras, and without splits."""

Member = tuple[str, tuple[int, ...], np.dtype[Any]]  # name, shape and type of an array of images


class Archive:
    """The images of an .npz file in order of split: `split` of each, `labels`, `classes`, `image_shape` (H, W, C), `notes`.
    Images and labels are as in `from_arrays`; an array `classes` may name the classes. Raises DataError for anything else."""

    def __init__(self, path: Path):
        self._position = 0
        try:
            archive = zipfile.ZipFile(path)
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            layouts = ([part for part in layout if part[1] in names] for layout in LAYOUTS)
            parts = next(filter(None, layouts), [])
            if not parts:
                raise DataError(f"{path}: has the arrays {', '.join(names)}; name them images and labels, or train_images, ...")
            if missing := [name for _, _, name in parts if name not in names]:
                raise DataError(f"{path}: has no array {missing[0]}")
            members = [_read_member(path, archive, images) for _, images, _ in parts]
            with np.load(path) as arrays:
                labels = [plain_labels(np.atleast_1d(arrays[name])) for _, _, name in parts]
                classes = arrays["classes"] if "classes" in names else None
        except DataError:
            raise
        except Exception as error:  # of a damaged archive, its libraries raise what they like
            if "Object arrays" in str(error):
                raise DataError(f"{path}: has arrays of Python objects; write text or numbers: labels.astype(str)") from None
            cause = getattr(error, "strerror", None) or (str(error).strip("'\"").splitlines() or [type(error).__name__])[0]
            raise DataError(f"{path}: cannot be read as a NumPy archive ({cause}); write it again with numpy.savez") from None
        shapes = [shape for _, shape, _ in members]
        counts = [shape[0] for shape in shapes]
        if len({(*shape, 1)[1:4] for shape in shapes}) > 1 or counts != [len(part) for part in labels] or not sum(counts):
            have = "; ".join(f"{name} {shape}" for name, shape, _ in members)
            rule = "images must have one size, and one label each"
            raise DataError(f"{path}: {have}, with {', '.join(str(len(part)) for part in labels)} labels; {rule}")
        height, width, channels = (*shapes[0], 1)[1:4]
        self.image_shape = height, width, channels
        self.split = tuple(split for (split, _, _), count in zip(parts, counts, strict=True) for _ in range(count))
        flat = [part[:, 0] if part.ndim == 2 and part.shape[1] == 1 else part for part in labels]
        if len({part.ndim for part in flat}) > 1:
            raise DataError(f"{path}: labels of the splits differ in shape: {', '.join(str(part.shape) for part in flat)}")
        joined = _joined(path, flat)
        self.labelled = ~np.array([joined.ndim == 1 and is_unknown(label) for label in joined], bool)
        """Which images have a label, (N,)."""
        if not self.labelled.any():
            raise DataError(f"{path}: no image has a label (all are {joined[0]}); add labels")
        known, self.classes, is_one_hot = encode_labels(f"{path}: labels", joined[self.labelled], classes)
        self.labels = np.zeros((len(joined), *known.shape[1:]), known.dtype)
        self.labels[self.labelled] = known
        self.notes = ["labels are one-hot: each image has one class"] * is_one_hot
        unread = sorted({*names} - {"classes", *(name for part in parts for name in part[1:])})
        self.notes += [f"arrays that are not read: {', '.join(unread)}"] * bool(unread)
        self.notes += ["float images in 0..1 are scaled to 0..255"] * any(dtype != np.uint8 for *_, dtype in members)
        self._images = _read_images(path, archive, members)

    def read(self, part: slice) -> list[Images]:
        """Returns the images (H, W, C) of a part that starts after all parts read before."""
        images = list(islice(self._images, part.start - self._position, part.stop - self._position))
        self._position = part.stop
        return images


def _joined(path: Path, labels: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Returns the labels of all splits; raises DataError where some are text and others numbers."""
    kinds = {"text" if part.dtype.kind == "U" else "numbers" for part in labels if len(part)}
    if len(kinds) > 1:
        raise DataError(f"{path}: labels are text in one split and numbers in another; write them in one way")
    return np.concatenate([part for part in labels if len(part)] or list(labels))


def _read_images(path: Path, archive: zipfile.ZipFile, members: Sequence[Member]) -> Iterator[Images]:
    for name, (count, *size), dtype in members:
        size_bytes = int(np.prod(size)) * dtype.itemsize
        with archive.open(f"{name}.npy") as file:
            _, is_fortran_order, _ = _read_header(file)
            stream = io.BytesIO(np.load(path)[name].tobytes()) if is_fortran_order else file
            for _ in range(count):
                try:
                    content = stream.read(size_bytes)
                except Exception:  # as above
                    content = b""
                if len(content) < size_bytes:
                    raise DataError(f"{path}: {name} is damaged; write it again with numpy.savez")
                yield to_uint8(f"{path}: {name}", np.frombuffer(content, dtype).reshape((*size, 1)[:3]))


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> Member:
    with archive.open(f"{name}.npy") as stream:
        shape, _, dtype = _read_header(stream)
    check_images(f"{path}: {name}", dtype, shape)
    return name, shape, dtype


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    is_first_version = np.lib.format.read_magic(stream) == (1, 0)
    return (np.lib.format.read_array_header_1_0 if is_first_version else np.lib.format.read_array_header_2_0)(stream)
