"""Other labelled data for a trained model: its image shape, its classes, one split or all images."""

from pathlib import Path

import numpy as np
import pytest

from conftest import SAMPLE
from shapes import CLASSES, splits, write_table
from small_sets import preprocessing
from sprintnet.data.builtin import cache
from sprintnet.data.images import convert_pixels
from sprintnet.data.load import load_labelled
from sprintnet.data.settings import DataSettings
from sprintnet.errors import SettingsError


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
def test_builtin_images_get_the_models_shape_and_classes(empty_cache: None, resize: str) -> None:
    _, test = cache.load("digits")
    classes = tuple(reversed(test.classes))
    shape = (10, 12, 3)
    found = load_labelled(DataSettings("digits"), preprocessing(classes, shape, resize), "test")
    assert (len(found), found.image_shape, found.classes) == (len(test), shape, classes)
    assert [classes[label] for label in found.labels] == [test.classes[label] for label in test.labels]
    for image, ours in zip(test.images[:5], found.images, strict=False):
        np.testing.assert_array_equal(ours, convert_pixels(image, shape, resize))
    assert len(load_labelled(DataSettings("digits"), preprocessing(classes, shape))) == 1797


def test_custom_images_are_decoded_in_the_models_shape(empty_cache: None) -> None:
    names = sorted(path.name for path in (SAMPLE / "test").iterdir())
    found = load_labelled(DataSettings(str(SAMPLE)), preprocessing(("another", *names), (24, 20, 1)))
    assert (len(found), found.image_shape) == (300, (24, 20, 1))
    assert {Path(file).parent.name for file in found.files or ()} == set(names)
    assert [Path(file).parent.name for file in found.files or ()] == [found.classes[label] for label in found.labels]
    with pytest.raises(SettingsError, match=r"split='val': .* has no such split"):
        load_labelled(DataSettings(str(SAMPLE)), preprocessing(tuple(names), (32, 32, 3)), "val")
    with pytest.raises(SettingsError, match=r"airplane, automobile are none of the model's: bird, cat, .*\.\.\.;"):
        load_labelled(DataSettings(str(SAMPLE)), preprocessing(tuple(names[2:]), (32, 32, 3)))


def test_several_labels_are_put_in_the_models_order(empty_cache: None, tmp_path: Path) -> None:
    table = write_table(tmp_path, {"test": splits()["test"]})
    classes = ("more", *reversed(CLASSES))
    found = load_labelled(DataSettings(str(table)), preprocessing(classes, (32, 32, 3)))
    np.testing.assert_array_equal(found.labels[:, 1:], splits()["test"].labels[:, ::-1])
    assert not found.labels[:, 0].any()
