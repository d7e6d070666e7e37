"""Folders of images: the sample, then every way in which a folder can be wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import SAMPLE
from sprintnet.data.cifar10 import CLASSES
from sprintnet.data.folder import read_folder
from sprintnet.data.sources import classes_and_image_shape, load
from sprintnet.errors import DataError


def write(path: Path, size: tuple[int, int] = (8, 8), colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 0, 255)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            for index in range(3):
                write(tmp_path / part / name / f"{index}.png", colour=10 * label + index)
    return tmp_path


def test_the_sample_is_real_cifar10() -> None:
    train, test = read_folder(SAMPLE)
    assert (len(train), len(test)) == (200, 100)
    assert train.classes == CLASSES
    assert train.image_shape == test.image_shape == (32, 32, 3)
    assert np.bincount(train.labels).tolist() == [20] * 10


@pytest.mark.cifar10
def test_every_image_of_the_sample_is_in_cifar10() -> None:
    for sample, whole in zip(read_folder(SAMPLE), load("cifar10"), strict=True):
        known = {image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)}
        assert [known[image.tobytes()] for image in sample.images] == sample.labels.tolist()


def test_images_come_in_order_of_class_and_name(folder: Path) -> None:
    train, _ = read_folder(folder)
    assert train.classes == ("cat", "dog")
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert classes_and_image_shape(str(folder)) == (("cat", "dog"), (8, 8, 3))


def test_hidden_files_and_other_files_are_passed_over(folder: Path) -> None:
    (folder / "train" / ".DS_Store").touch()
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "cat" / "notes.txt").touch()
    assert len(read_folder(folder)[0]) == 6


def test_what_is_wrong_is_named_with_its_path(folder: Path) -> None:
    def rule(change: object) -> str:
        with pytest.raises(DataError) as caught:
            read_folder(folder)
        return str(caught.value)

    damaged = folder / "train" / "dog" / "1.png"
    original = damaged.read_bytes()
    assert f"{damaged}: cannot be read as an image" in rule(damaged.write_bytes(b""))
    assert f"{damaged}: cannot be read as an image" in rule(damaged.write_bytes(original[:-30]))
    assert f"{damaged}: 9x7 pixels, but the images before it have 8x8" in rule(write(damaged, (9, 7)))
    damaged.write_bytes(original)
    assert "classes that train lacks: fox" in rule(write(folder / "test" / "fox" / "0.png"))
    shutil.rmtree(folder / "test" / "fox")
    for file in (folder / "test").rglob("*.png"):
        write(file, (4, 4))
    assert "train images are 8x8, test images 4x4" in rule(None)
    for file in (folder / "test").rglob("*.png"):
        file.unlink()
    assert "holds no image" in rule(None)
    assert "holds 1 class folders; at least 2" in rule(shutil.rmtree(folder / "train" / "dog"))
    assert f"there is no folder {folder / 'test'}" in rule(shutil.rmtree(folder / "test"))


def test_a_name_that_is_neither_known_nor_a_folder_is_named() -> None:
    with pytest.raises(DataError, match=r"data.name=cifar11: neither a named data set \(cifar10\) nor a folder"):
        load("cifar11")
