"""Rare classes: weights in the loss and balanced sampling both find them more often."""

import numpy as np
import pytest

from sprintnet.config import load_config
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Loader
from sprintnet.errors import SettingsError
from sprintnet.evaluation.predict import predict
from sprintnet.runtime import select_runtime
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.setup import build_step, whiten

CPU = select_runtime("cpu", "fp32", 1)


def brighter(common: int, rare: int, seed: int) -> ImageDataset:
    """Images of one brightness each; those of the rare class are brighter by 1.5 standard deviations, so that many overlap."""
    labels = np.repeat([0, 1], [common, rare])
    generator = np.random.default_rng(seed)
    brightness = 100 + 20 * generator.standard_normal(len(labels)) + 30 * labels
    images = brightness[:, None, None, None] + 3 * generator.standard_normal((len(labels), 12, 12, 1))
    return ImageDataset(images.clip(0, 255).astype(np.uint8), labels, ("common", "rare"))


@CPU.activated(0)
def recalls(overrides: list[str]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    small = ["model.width=4", "batch_size=110", "threads=1", "precision=fp32", "label_smoothing=0.1"]
    config = load_config("sprint94", [*small, *overrides])
    step, loader = build_step(config, brighter(1000, 100, seed=0), CPU)
    whiten(step.model, loader, config)
    for epoch in range(10):
        set_learning_rates(step.optimizer, 0.3 * (1 - epoch / 10), 0)
        for batch in loader.epoch(0, epoch, config.augment):
            step(*batch)
    test = Loader(brighter(500, 500, seed=1), loader.normalisation, 500, loader.images.device)
    logits, labels = predict(step.model, test.sequential(), step.runtime)
    return np.array([(logits[labels == label].argmax(1) == label).mean() for label in (0, 1)])


def test_rare_images_are_found_more_often() -> None:
    plain = recalls([])
    for remedy in ("class_weights=balanced", "sampling=balanced"):
        helped = recalls([remedy])
        assert helped[1] > plain[1] + 0.2, remedy
        assert helped.mean() > plain.mean() + 0.05, remedy


@pytest.mark.parametrize("remedy", ["class_weights=balanced", "sampling=balanced"])
def test_images_of_several_labels_have_no_one_class_to_weigh(remedy: str) -> None:
    marks = np.random.default_rng(0).integers(0, 2, (30, 3), np.uint8)
    images = ImageDataset(np.zeros((30, 12, 12, 1), np.uint8), marks, ("a", "b", "c"))
    with pytest.raises(SettingsError, match=f"{remedy}.*: not defined for images with several labels"):
        build_step(load_config("davidnet", [remedy]), images, CPU)
