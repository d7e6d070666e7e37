"""Batches: order and augmentation are a function of (seed, epoch), whatever the batch size or the starting point."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sprintnet.data.dataset import ImageDataset, channel_statistics
from sprintnet.data.loader import Loader, _epoch_seed
from sprintnet.data.preprocessing import Normalisation
from sprintnet.data.settings import AugmentSettings

CPU = torch.device("cpu")
COUNT = 103
OFF = AugmentSettings(crop_padding=0, flip=0, affine=0, cutout=0)


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    return ImageDataset(images, np.arange(COUNT, dtype=np.int64), tuple(map(str, range(COUNT))))


PLAIN = Normalisation((0.0,), (1.0,))


def loader(dataset: ImageDataset, batch_size: int = 10, is_balanced: bool = False) -> Loader:
    return Loader(dataset, Normalisation(*channel_statistics(dataset)), batch_size, CPU, is_balanced=is_balanced)


def connected_groups(batches: object) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)  # type: ignore[call-overload]
    return torch.cat(images), torch.cat(labels)


def test_images_are_normalised_and_channels_last(dataset: ImageDataset) -> None:
    images, labels = connected_groups(loader(dataset, COUNT).sequential())
    assert images.shape == (COUNT, 3, 8, 8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert images.std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert labels.tolist() == list(range(COUNT))


def test_an_epoch_shows_every_image_once_in_batches_evenly_filled(dataset: ImageDataset) -> None:
    sizes = [len(labels) for _, labels in loader(dataset).epoch(0, 0, AugmentSettings())]
    assert sorted(sizes) == [9] * 7 + [10] * 4
    assert len(loader(dataset)) == 11
    assert [len(labels) for _, labels in loader(dataset, 1000).sequential()] == [COUNT]
    _, labels = connected_groups(loader(dataset).epoch(0, 0, AugmentSettings()))
    assert sorted(labels.tolist()) == list(range(COUNT))
    assert labels.tolist() != list(range(COUNT))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), st.integers(0, 99), st.integers(0, 3))
def test_a_balanced_epoch_shows_every_class_equally_often(counts: list[int], seed: int, epoch: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))  # each image is its own number
    unbalanced = ImageDataset(images, labels, tuple(map(str, range(len(counts)))))
    numbered = Loader(unbalanced, Normalisation((0.0,), (1 / 255,)), 7, CPU, is_balanced=True)
    shown, of_class = connected_groups(numbered.epoch(seed, epoch, OFF))
    numbers = shown.flatten().long().numpy()
    assert np.array_equal(labels[numbers], of_class.numpy())
    assert len(numbers) == len(labels)
    per_class = np.bincount(of_class, minlength=len(counts))[np.array(counts) > 0]
    assert np.ptp(per_class) <= 1
    for label in np.unique(labels):  # and within a class every image
        assert np.ptp(np.bincount(numbers, minlength=len(labels))[labels == label]) <= 1


def test_balanced_epochs_differ_and_are_shuffled(dataset: ImageDataset) -> None:
    rare = ImageDataset(dataset.images, (np.arange(COUNT) >= 90).astype(np.int64), ("common", "rare"))
    orders = [connected_groups(loader(rare, is_balanced=True).epoch(0, epoch, OFF))[1].tolist() for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] == connected_groups(loader(rare, is_balanced=True).epoch(0, 0, OFF))[1].tolist()
    assert 10 < sum(orders[0][: COUNT // 2]) < 42  # of 51 or 52 rare ones, half


def test_images_keep_their_labels(dataset: ImageDataset) -> None:
    plain, _ = connected_groups(loader(dataset).sequential())
    images, labels = connected_groups(loader(dataset).epoch(0, 0, OFF))
    assert torch.equal(images, plain[labels])


def test_an_epoch_is_a_function_of_seed_and_epoch(dataset: ImageDataset) -> None:
    def epoch(seed: int, epoch: int) -> bytes:
        torch.manual_seed(seed + epoch)  # the global generator has no say
        images, labels = connected_groups(loader(dataset).epoch(seed, epoch, AugmentSettings()))
        return images.numpy().tobytes() + labels.numpy().tobytes()

    assert epoch(1, 2) == epoch(1, 2)
    assert len({epoch(seed, number) for seed in range(3) for number in range(3)}) == 9


@pytest.mark.parametrize(("at_once", "first"), [(2, 0), (3, 2), (100, 1)])
def test_batches_augmented_at_once_are_those_augmented_one_by_one(dataset: ImageDataset, at_once: int, first: int) -> None:
    several = loader(dataset)
    several.batches_at_once = at_once  # as on a GPU
    pairs = zip(
        several.epoch(1, 2, AugmentSettings(), first), loader(dataset).epoch(1, 2, AugmentSettings(), first), strict=True
    )
    for (images, labels), (expected, same) in pairs:
        assert torch.equal(images, expected)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(labels, same)


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize("first", [0, 1, 7, 10, 11])
def test_an_epoch_continues_from_any_batch(dataset: ImageDataset, first: int, is_balanced: bool) -> None:
    whole = list(loader(dataset, is_balanced=is_balanced).epoch(3, 1, AugmentSettings()))
    rest = list(loader(dataset, is_balanced=is_balanced).epoch(3, 1, AugmentSettings(), first_batch=first))
    assert len(rest) == 11 - first
    assert all(
        torch.equal(a, b) for pair, other in zip(whole[first:], rest, strict=True) for a, b in zip(pair, other, strict=True)
    )


def test_the_batch_size_does_not_change_the_augmentation(dataset: ImageDataset) -> None:
    small, large = (connected_groups(loader(dataset, size).epoch(0, 5, AugmentSettings())) for size in (7, 50))
    assert torch.equal(small[1], large[1])
    torch.testing.assert_close(small[0], large[0], atol=1e-5, rtol=0)


def test_alternating_flips_are_inverted_after_each_epoch(dataset: ImageDataset) -> None:
    settings = AugmentSettings(crop_padding=0, affine=0, cutout=0, alternate_flip=True)
    plain, _ = connected_groups(loader(dataset).sequential())

    def flipped(epoch: int) -> torch.Tensor:
        images, labels = connected_groups(loader(dataset).epoch(0, epoch, settings))
        is_flipped = (images == plain[labels].flip(-1)).flatten(1).all(1)
        assert ((images == plain[labels]).flatten(1).all(1) ^ is_flipped).all()
        return is_flipped[labels.argsort()]

    assert 0.3 < flipped(0).float().mean() < 0.7
    assert torch.equal(flipped(1), ~flipped(0))
    assert torch.equal(flipped(2), flipped(0))


@pytest.mark.parametrize("epoch", [0, 1])
def test_alternating_flips_use_a_separate_random_stream(dataset: ImageDataset, epoch: int) -> None:
    # from an epoch's own stream, whether an image is flipped would follow from its place in that epoch
    stream = torch.Generator().manual_seed(_epoch_seed(0, epoch))
    assert not torch.equal(loader(dataset)._flipped(0, 0, 0.5), torch.rand(COUNT, generator=stream) < 0.5)


def test_the_first_images_of_a_dataset_sorted_by_class_cover_all_classes() -> None:
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    sequential = ImageDataset(images, np.repeat(np.arange(10), 10), tuple(map(str, range(10))))
    assert (
        np.unique(sequential.labels[[round(float(value) * 255) for value in Loader(sequential, PLAIN, 10, CPU).first(10)]]).size
        == 10
    )
    mixed = ImageDataset(images, np.tile(np.arange(10), 10), sequential.classes)
    assert [round(float(value) * 255) for value in Loader(mixed, PLAIN, 10, CPU).first(10)] == list(range(10))


def is_read_at_random(file: Path) -> bool:
    """Whether the file is mapped with random access (proc(5), VmFlags)."""
    maps = Path("/proc/self/smaps").read_text().split(f"{file}\n")[1]
    return "rr" in maps.split("VmFlags:")[1].splitlines()[0].split()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says how a file is mapped")
def test_mapped_images_are_equal_and_read_at_random_only_in_epochs(dataset: ImageDataset, tmp_path: Path) -> None:
    dataset.images.tofile(tmp_path / "images")
    storage = np.memmap(tmp_path / "images", np.uint8, "c", shape=dataset.images.shape)
    in_memory, mapped = loader(dataset), loader(replace(dataset, storage=storage))
    for kept, read in zip(in_memory.epoch(0, 0, AugmentSettings()), mapped.epoch(0, 0, AugmentSettings()), strict=True):
        assert torch.equal(kept[0], read[0])
        assert is_read_at_random(tmp_path / "images")
    for kept, read in zip(in_memory.sequential(), mapped.sequential(), strict=True):
        assert torch.equal(kept[0], read[0])
        assert not is_read_at_random(tmp_path / "images")
