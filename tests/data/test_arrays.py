"""Datasets from arrays in memory: what is accepted, what is refused, and their splits."""

from pathlib import Path

import numpy as np
import pytest

from conftest import SAMPLE
from sprintnet.data.custom.arrays import from_arrays
from sprintnet.data.custom.load import CustomData, load_custom
from sprintnet.data.custom.split import assign_splits
from sprintnet.data.dataset import digest
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import read_splits, write_splits
from sprintnet.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
BINARY = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_images_of_each_kind_become_uint8() -> None:
    assert np.array_equal(from_arrays(IMAGES, [0, 1, 0, 1]).images, IMAGES)
    assert from_arrays(IMAGES[..., 0], list("abab")).image_shape == (5, 6, 1)
    for dtype in (np.float32, np.float64, np.float16):
        assert np.array_equal(from_arrays((IMAGES / 255).astype(dtype), [0, 1, 0, 1]).images, IMAGES)
    reversed_order = from_arrays(IMAGES[:, ::-1], [0, 1, 0, 1]).images
    assert np.array_equal(reversed_order, IMAGES[:, ::-1])
    assert reversed_order.flags.c_contiguous


@pytest.mark.parametrize(
    ("labels", "classes", "names", "encoded"),
    [
        ([3, 1, 3, 7], None, ("1", "3", "7"), [1, 0, 1, 2]),
        (["b", "a", "b", "c"], None, ("a", "b", "c"), [1, 0, 1, 2]),
        (np.array([b"b", b"a", b"b", b"c"]), None, ("a", "b", "c"), [1, 0, 1, 2]),
        (np.array(["b", "a", "b", "c"], object), ["c", "b", "a"], ("c", "b", "a"), [1, 2, 1, 0]),
        (np.array([[2], [0], [0], [1]]), ["x", "y", "z"], ("x", "y", "z"), [2, 0, 0, 1]),
        ([0, 1, 1, 0], ["x", "y", "never seen"], ("x", "y", "never seen"), [0, 1, 1, 0]),
        ([True, False, True, True], None, ("False", "True"), [1, 0, 1, 1]),
        (np.eye(4), None, ("0", "1", "2", "3"), [0, 1, 2, 3]),
        (BINARY, None, ("0", "1", "2"), BINARY.tolist()),
        (BINARY.astype(float), ["x", "y", "z"], ("x", "y", "z"), BINARY.tolist()),
    ],
)
def test_labels_of_each_kind_are_encoded(
    labels: np.ndarray, classes: list[str] | None, names: tuple[str, ...], encoded: list[int]
) -> None:
    dataset = from_arrays(IMAGES, labels, classes)
    assert (dataset.classes, dataset.labels.tolist()) == (names, encoded)


def test_multi_label_decides_what_one_hot_labels_mean() -> None:
    assert from_arrays(IMAGES, np.eye(4), multi_label=True).labels.tolist() == np.eye(4).tolist()
    with pytest.raises(DataError, match="labels: has rows without exactly one 1; with multi_label=False"):
        from_arrays(IMAGES, BINARY, multi_label=False)


@pytest.mark.parametrize(
    ("images", "labels", "classes", "said"),
    [
        (IMAGES[0, 0], [0, 1], None, r"^images: uint8 of shape \(6, 3\); must be uint8, or floats in 0\.\.1, of shape"),
        (IMAGES.astype(int), [0, 1, 0, 1], None, r"^images: int64 of shape"),
        (IMAGES[..., :2], [0, 1, 0, 1], None, r"^images: uint8 of shape \(4, 5, 6, 2\)"),
        (IMAGES.astype(float), [0, 1, 0, 1], None, r"^images: floats from 0 to 255; must be in 0\.\.1, or uint8"),
        (np.full((4, 5, 6), np.nan), [0, 1, 0, 1], None, "^images: floats from nan"),
        ([[[1]], [[1, 2]]], [0, 1], None, "^images: the entries differ in shape"),
        (IMAGES, [0, 1], None, "^labels: has 2 entries for 4 images"),
        (IMAGES, [0.5, 1, 0, 1], None, "^labels: float64 of shape"),
        (IMAGES, 2 * BINARY, None, "^labels: int64 of shape"),
        (IMAGES, [0, 1, -1, 0], None, "^labels: has -1, which marks images without a label"),
        (IMAGES, [0, 1, 2, 0], ["a", "b"], "^labels: has 2, for which the 2 class names have no entry"),
        (IMAGES, BINARY, ["a", "b"], "^labels: has 3 columns and 2 class names"),
        (IMAGES, list("abca"), ["a", "b"], "^labels: has c, for which"),
        (IMAGES, list("abca"), ["a", "b", "b"], "^labels: class names must differ"),
        (IMAGES, ["a|b", "c", "c", "c"], None, "^labels: class names must differ, not be empty and not contain |"),
    ],
)
def test_an_error_names_the_argument(images: np.ndarray, labels: object, classes: list[str] | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_arrays(images, labels, classes)  # type: ignore[arg-type]


def test_a_dataset_in_memory_is_split_like_one_of_files(tmp_path: Path) -> None:
    files = load_custom(DataSettings(str(SAMPLE / "train"))).images
    images = np.concatenate([files.images, files.images[:40]])  # with duplicates
    data = from_arrays(images, np.concatenate([files.labels, files.labels[:40]]), files.classes)
    splits = assign_splits(CustomData(data), DataSettings("arrays"), print)
    sizes = {name: len(part) for name, part in splits.items()}
    assert sum(sizes.values()) == 240
    assert all(30 < sizes[name] < 70 for name in ("test",))
    pixels = {name: {image.tobytes() for image in part.images} for name, part in splits.items()}
    assert not (pixels["train"] & pixels["test"] or pixels["train"] & pixels["val"] or pixels["val"] & pixels["test"])
    write_splits(tmp_path / "splits.csv", splits)
    assert digest(*read_splits(tmp_path / "splits.csv", data).values()) == digest(*splits.values())
