"""Archives, Parquet tables and Hugging Face folders give the same images as a folder of files."""

from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest

from conftest import SAMPLE
from sprintnet.data.custom.load import load_custom
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.settings import DataSettings
from sprintnet.errors import DataError


@pytest.fixture(scope="module")
def sample() -> ImageDataset:
    return load_custom(DataSettings(str(SAMPLE))).images


def read(path: Path, **settings: object) -> ImageDataset:
    return load_custom(DataSettings(str(path), **settings)).images  # type: ignore[arg-type]


def test_archives_of_both_layouts_are_read(tmp_path: Path, sample: ImageDataset) -> None:
    images, labels = sample.images, sample.labels
    names = np.array(sample.classes)
    medmnist = {"train_images": images[:200], "train_labels": labels[:200, None], "test_images": images[200:]}
    np.savez_compressed(tmp_path / "a.npz", **medmnist, test_labels=labels[200:, None], classes=names)
    found = load_custom(DataSettings(str(tmp_path / "a.npz")))
    np.testing.assert_array_equal(found.images.images, images)
    np.testing.assert_array_equal(found.images.labels, labels)
    assert found.images.classes == sample.classes
    assert found.split == ("train",) * 200 + ("test",) * 100
    grey = images[:260, ..., 0]
    np.savez(
        tmp_path / "b.npz", x_train=grey[:250], y_train=names[labels[:250]], x_test=grey[250:], y_test=names[labels[250:260]]
    )
    found = load_custom(DataSettings(str(tmp_path / "b.npz")))
    np.testing.assert_array_equal(found.images.images[..., 0], grey)
    assert [found.images.classes[label] for label in found.images.labels] == names[labels[:260]].tolist()


def test_an_archive_may_be_multi_label_and_resized(tmp_path: Path, sample: ImageDataset) -> None:
    marks = np.eye(10, dtype=np.uint8)[sample.labels] | np.eye(10, dtype=np.uint8)[sample.labels[::-1]]
    np.savez(tmp_path / "c.npz", images=sample.images, labels=marks)
    found = read(tmp_path / "c.npz", size=16, channels="grey")
    assert found.multi_label
    np.testing.assert_array_equal(found.labels, marks)
    np.testing.assert_array_equal(found.images, read_grey(sample))


def read_grey(sample: ImageDataset) -> np.ndarray:
    return read(SAMPLE, size=16, channels="grey").images


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"photos": np.zeros((2, 8, 8), np.uint8)}, "has the arrays photos; name them images and labels"),
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "has no array labels"),
        ({"images": np.full((2, 8, 8), 1.5, np.float32), "labels": [0, 1]}, r"images: floats from 0 to 1.5; must be in 0\.\.1"),
        (
            {"images": np.zeros((2, 8, 8, 5), np.uint8), "labels": [0, 1]},
            r"images: uint8 of shape \(2, 8, 8, 5\); must be uint8",
        ),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": [0]}, r"images \(2, 8, 8\), with 1 labels; images must"),
        (
            {"images": np.zeros((2, 8, 8), np.uint8), "labels": [0.5, 1]},
            r"labels: float64 of shape \(2,\); must be integers or text",
        ),
        (
            {"images": np.zeros((2, 8, 8), np.uint8), "labels": [0, 2], "classes": ["a", "b"]},
            "labels: has 2, for which the 2 class names have no entry",
        ),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([{}, 1], object)}, "has arrays of Python objects"),
    ],
)
def test_errors_in_an_archive_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "x.npz")


def test_a_truncated_archive_is_a_message(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((99, 8, 8), np.uint8), labels=np.arange(99))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[:-300])
    with pytest.raises(DataError, match=r"cannot be read as a NumPy archive \(.*\); write it again"):
        read(tmp_path / "x.npz")


def test_a_parquet_table_equals_the_csv_table(tmp_path: Path) -> None:
    files = sorted((SAMPLE / "train").rglob("*.png"))[::20]
    table = pandas.DataFrame({"path": [str(file) for file in files], "label": [file.parent.name for file in files]})
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    a, b = read(tmp_path / "t.parquet"), read(tmp_path / "t.csv")
    np.testing.assert_array_equal(a.images, b.images)
    assert (a.classes, a.labels.tolist(), a.files) == (b.classes, b.labels.tolist(), b.files)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cannot be read as Parquet \(.*\); write it again"):
        read(tmp_path / "t.parquet")


def test_a_folder_of_hugging_face_datasets_is_read(tmp_path: Path, sample: ImageDataset) -> None:
    assert sample.files is not None
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(sample.classes))})
    parts = {"train": slice(200), "validation": slice(200, 250), "test": slice(250, 300)}
    saved = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {"image": list(sample.files[part]), "label": sample.labels[part].tolist()}, features=features
            )
            for name, part in parts.items()
        }
    )
    saved.save_to_disk(tmp_path / "hf")
    found = load_custom(DataSettings(str(tmp_path / "hf")))
    np.testing.assert_array_equal(found.images.images, sample.images)
    np.testing.assert_array_equal(found.images.labels, sample.labels)
    assert found.images.classes == sample.classes
    assert found.split == ("train",) * 200 + ("val",) * 50 + ("test",) * 50
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(DataError, match="has no image column among text"):
        read(tmp_path / "text")


def test_images_without_a_label_are_named(tmp_path: Path, sample: ImageDataset) -> None:
    assert sample.files is not None
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [*sample.files[:3], None], "label": [0, -1, 1, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "hf")
    with pytest.raises(DataError, match=r"(?s)images/1: has no label.*images/3: contains no image"):
        read(tmp_path / "hf")
    assert read(tmp_path / "hf", skip_bad=True).labels.tolist() == [0, 1]


def test_an_archive_with_invalid_classes_is_refused(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=[0, 1, 0, 1], x_test=images, y_test=[0, 1, 2, 2])
    with pytest.raises(DataError, match="2: has no training image"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=images, labels=[1, 1, 1, 1])
    with pytest.raises(DataError, match="contains 1 class"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=images, labels=["a", "b", "c", "a"], classes=["a", "b"])
    with pytest.raises(DataError, match="labels: has c, for which the 2 class names have no entry"):
        read(tmp_path / "c.npz")


def test_floats_and_one_hot_labels_are_converted_and_noted(tmp_path: Path, sample: ImageDataset) -> None:
    images = np.asfortranarray(sample.images / np.float32(255))
    np.savez(tmp_path / "a.npz", images=images, labels=np.eye(10, dtype=np.float32)[sample.labels], classes=sample.classes)
    found = load_custom(DataSettings(str(tmp_path / "a.npz")))
    np.testing.assert_array_equal(found.images.images, sample.images)
    np.testing.assert_array_equal(found.images.labels, sample.labels)
    assert found.notes == ("labels are one-hot: each image has one class", "float images in 0..1 are scaled to 0..255")


def test_an_archive_may_call_its_validation_split_valid_and_differ_in_label_shape(tmp_path: Path, sample: ImageDataset) -> None:
    images, labels = sample.images, sample.labels
    parts = {"x_train": images[:200], "y_train": labels[:200], "x_valid": images[200:], "y_valid": labels[200:, None]}
    np.savez(tmp_path / "a.npz", **parts, x_test=images[:0], y_test=labels[:0])
    found = load_custom(DataSettings(str(tmp_path / "a.npz")))
    assert found.split == ("train",) * 200 + ("val",) * 100
    np.savez(tmp_path / "b.npz", **{**parts, "y_valid": np.eye(10, dtype=int)[labels[200:]]})
    with pytest.raises(DataError, match=r"labels of the splits differ in shape: \(200,\), \(100, 10\)"):
        read(tmp_path / "b.npz")


def test_labels_that_are_all_unknown_or_objects_are_named(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    for labels, said in (
        (np.full(6, -1), r"no image has a label \(all are -1\)"),
        (np.full(6, np.nan), "no image has a label"),
        (np.array(["a", "b"] * 3, object), r"has arrays of Python objects; write text or numbers: labels\.astype\(str\)"),
        (np.array([0, 1, np.inf] * 2), "float64 of shape|has inf"),
    ):
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
        with pytest.raises(DataError, match=said):
            read(tmp_path / "a.npz")


def test_images_without_a_label_can_be_left_out_of_an_archive(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    for labels in (np.array([0, 1, -1, 1] * 2), np.array([0, 1, np.nan, 1] * 2), np.array(["0", "1", "", "1"] * 2)):
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
        with pytest.raises(DataError, match="images/2: has no label"):
            read(tmp_path / "a.npz")
        found = read(tmp_path / "a.npz", skip_bad=True)
        np.testing.assert_array_equal(found.images, images[[0, 1, 3, 4, 5, 7]])
        assert found.labels.tolist() == [0, 1, 1] * 2
