"""Splits and statistics of a data set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprintnet.data.dataset import ImageDataset, channel_statistics, digest, hold_out


def dataset(counts: list[int], seed: int = 0, shape: tuple[int, int, int] = (4, 4, 3)) -> ImageDataset:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    images = generator.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return ImageDataset(images, labels.astype(np.int64), tuple(f"class {index}" for index in range(len(counts))))


def test_statistics_are_numpys() -> None:
    images = dataset([400, 733]).images  # more than one block of 500
    mean, deviation = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 1, 2)), rel=1e-12)
    assert deviation == pytest.approx((images / 255).std(axis=(0, 1, 2)), rel=1e-12)


def test_a_constant_channel_is_divided_by_one() -> None:
    images = np.full((10, 4, 4, 1), 51, np.uint8)
    assert channel_statistics(images) == ((pytest.approx(0.2),), (1.0,))


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.floats(0, 0.5), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_split_is_stratified_disjoint_and_complete(counts: list[int], share: float, seed: int) -> None:
    whole = dataset(counts)
    whole.images[:, 0, 0, 0] = np.arange(len(whole)) % 256
    whole.images[:, 0, 0, 1] = np.arange(len(whole)) // 256
    kept, held_out = hold_out(whole, share, seed)
    assert np.bincount(held_out.labels, minlength=len(counts)).tolist() == [round(share * count) for count in counts]
    positions = [part.images[:, 0, 0, 0] + 256 * part.images[:, 0, 0, 1].astype(int) for part in (kept, held_out)]
    assert sorted(np.concatenate(positions)) == list(range(len(whole)))
    assert all((np.diff(position) > 0).all() for position in positions)


def test_a_split_is_the_seeds() -> None:
    whole = dataset([50, 50])
    first, again, other = (digest(hold_out(whole, 0.2, seed)[1]) for seed in (1, 1, 2))
    assert first == again != other


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
