"""Mixup and CutMix: against their formulas, what holds for any batch, and what they leave alone."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Loader
from sprintnet.data.mixing import mix, sample_mixes
from sprintnet.data.preprocessing import Normalisation
from sprintnet.data.settings import AugmentSettings

SHAPE = 12, 16
OFF = AugmentSettings(crop_padding=0, flip=0, affine=0, cutout=0)


def sampled(count: int = 20_000, **settings: float) -> Tensor:
    found = sample_mixes(count, *SHAPE, AugmentSettings(**settings), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert found is not None
    return found


def areas(mixes: Tensor) -> Tensor:
    return (mixes[:, 2] - mixes[:, 1]) * (mixes[:, 4] - mixes[:, 3]) / (SHAPE[0] * SHAPE[1])


def test_shares_of_mixup_are_of_the_beta_distribution() -> None:
    mixes = sampled(mixup=0.4)
    assert (areas(mixes) == 1).all()
    assert stats.kstest(mixes[:, 0].double().numpy(), stats.beta(0.4, 0.4).cdf).pvalue > 0.01


def test_boxes_of_cutmix_are_whole_pixels_within_the_image() -> None:
    mixes = sampled(cutmix=1.0)
    assert (mixes[:, 0] == 1).all()
    assert (mixes[:, 1:] == mixes[:, 1:].round()).all()
    assert (mixes[:, 1] <= mixes[:, 2]).all() and (mixes[:, 3] <= mixes[:, 4]).all()
    assert mixes[:, 1:].min() >= 0 and (mixes[:, 2] <= SHAPE[0]).all() and (mixes[:, 4] <= SHAPE[1]).all()
    # a box of share s and uniform centre is cut off at the border: its expected area, by integration over both
    drawn = np.random.default_rng(1).random((200_000, 3))
    side = np.sqrt(drawn[:, 2])
    inside = [np.minimum(1, drawn[:, axis] + side / 2) - np.maximum(0, drawn[:, axis] - side / 2) for axis in range(2)]
    assert float(areas(mixes).mean()) == pytest.approx(np.mean(inside[0] * inside[1]), abs=0.01)


def test_with_both_half_of_the_images_take_each() -> None:
    assert float((areas(sampled(mixup=0.4, cutmix=1.0)) == 1).float().mean()) == pytest.approx(0.5, abs=0.02)


def test_mixes_are_a_function_of_the_generator() -> None:
    assert torch.equal(sampled(mixup=0.4, cutmix=1.0), sampled(mixup=0.4, cutmix=1.0))
    assert sample_mixes(5, *SHAPE, AugmentSettings(), torch.Generator()) is None


def test_an_image_and_its_label_are_mixed_alike() -> None:
    images, targets = torch.randn(3, 2, *SHAPE), torch.eye(3)
    mixes = torch.tensor([[0.25, 0, SHAPE[0], 0, SHAPE[1]], [0.5, 0, SHAPE[0], 0, SHAPE[1]], [1, 2, 8, 4, 12]])
    mixed, labels = mix(images, targets, mixes)
    torch.testing.assert_close(mixed[0], 0.75 * images[0] + 0.25 * images[2])
    torch.testing.assert_close(mixed[1], images[1])  # the middle one is its own partner
    expected = images[2].clone()
    expected[:, 2:8, 4:12] = images[0][:, 2:8, 4:12]
    torch.testing.assert_close(mixed[2], expected)
    torch.testing.assert_close(labels, torch.tensor([[0.75, 0, 0.25], [0, 1, 0], [0.25, 0, 0.75]]))


@pytest.mark.parametrize("labels", [np.arange(60) % 3, np.eye(3, dtype=np.uint8)[np.arange(60) % 3]])
def test_an_epoch_is_mixed_batch_by_batch(labels: np.ndarray) -> None:
    images = np.repeat((labels.reshape(60, -1).max(1) * 0 + np.arange(60))[:, None, None, None], 16, 1).repeat(16, 2)
    dataset = ImageDataset(images.astype(np.uint8), labels, ("a", "b", "c"))
    normalisation = Normalisation((0.0,), (1 / 255,))  # images have their values
    loader = Loader(dataset, normalisation, 20, torch.device("cpu"), mixes=True)
    settings = AugmentSettings(crop_padding=0, flip=0, affine=0, cutout=0, mixup=1.0)
    batches = list(loader.epoch(0, 0, settings))
    plain = list(Loader(dataset, normalisation, 20, torch.device("cpu")).epoch(0, 0, OFF))
    for (mixed, targets), (own, _) in zip(batches, plain, strict=True):
        assert targets.shape == (20, 3) and targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(1), torch.ones(20))
        low, high = torch.minimum(own, own.flip(0)), torch.maximum(own, own.flip(0))
        assert ((mixed >= low - 1e-4) & (mixed <= high + 1e-4)).all()
    resumed = list(loader.epoch(0, 0, settings, first_batch=1))
    assert all(
        torch.equal(a, b) for one, other in zip(batches[1:], resumed, strict=True) for a, b in zip(one, other, strict=True)
    )
