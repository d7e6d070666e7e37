"""Statistics, digest and parts of a dataset."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from sprintnet.data.dataset import (
    ImageDataset,
    channel_statistics,
    class_weights,
    concatenate,
    digest,
    first_of_each_class,
    images_at_a_time,
)


def dataset(counts: list[int], seed: int = 0, shape: tuple[int, int, int] = (4, 4, 3)) -> ImageDataset:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    images = generator.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return ImageDataset(images, labels.astype(np.int64), tuple(f"class {index}" for index in range(len(counts))))


def test_statistics_are_numpys() -> None:
    whole = dataset([400, 733])  # more than one block of 500
    images = whole.images
    mean, deviation = channel_statistics(whole)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 1, 2)), rel=1e-12)
    assert deviation == pytest.approx((images / 255).std(axis=(0, 1, 2)), rel=1e-12)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=5).filter(any))
def test_class_weights_are_scikit_learns(counts: list[int]) -> None:
    labels = dataset(counts).labels
    weights, present = class_weights(labels, len(counts)), np.unique(labels)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=labels), rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1)
    assert not weights[np.array(counts) == 0].any()


def test_a_constant_channel_is_divided_by_one() -> None:
    images = ImageDataset(np.full((10, 4, 4, 1), 51, np.uint8), np.zeros(10, np.int64), ("one",))
    assert channel_statistics(images) == ((pytest.approx(0.2),), (1.0,))


def test_concatenated_parts_contain_every_image_with_its_file() -> None:
    whole = dataset([20, 11])
    whole = replace(whole, files=tuple(map(str, range(len(whole)))))
    odd = np.arange(len(whole)) % 2 == 1
    both = concatenate(whole.take(np.flatnonzero(odd)), whole.take(np.flatnonzero(~odd)))
    assert both.files is not None
    assert digest(both.take(np.argsort([int(file) for file in both.files]))) == digest(whole)
    assert digest(concatenate(whole)) == digest(whole)
    assert digest(concatenate(whole, whole.take(np.arange(3)))) == digest(whole.take(np.r_[np.arange(len(whole)), :3]))


def test_the_digest_sees_pixels_labels_and_names() -> None:
    one = dataset([5, 5])
    changed = one.images.copy()
    changed[0, 0, 0, 0] ^= 1
    others = [
        ImageDataset(changed, one.labels, one.classes),
        ImageDataset(one.images, 1 - one.labels, one.classes),
        ImageDataset(one.images, one.labels, ("x", "y")),
    ]
    assert len({digest(part) for part in [one, *others]}) == 4
    assert digest(one) == digest(dataset([5, 5]))


def test_the_first_image_of_each_class_that_has_any() -> None:
    assert first_of_each_class(np.array([2, 0, 2, 0, 4])).tolist() == [1, 0, 4]
    labels = np.array([[0, 0, 0], [1, 0, 1], [0, 0, 1]], np.uint8)
    assert first_of_each_class(labels).tolist() == [1, 1]
    assert first_of_each_class(np.array([], np.int64)).tolist() == []


def test_large_images_are_computed_fewer_at_a_time() -> None:
    assert [images_at_a_time(500, (side, side, 3)) for side in (1, 32, 64, 128, 224, 1500)] == [500, 500, 500, 125, 40, 1]
