"""What training starts from: every recipe takes images of other sizes, channels and numbers of classes, and learns them."""

import numpy as np
import pytest

from conftest import SAMPLE
from sprintnet.autoconfig import DatasetFacts
from sprintnet.config import load_config, recipes
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.preprocessing import TTA_VIEWS
from sprintnet.evaluation.predict import predict, predict_tta
from sprintnet.runtime import select_runtime
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.setup import build_step, dataset_facts, whiten

CPU = select_runtime("cpu", "fp32", 1)


def coloured(side: int, channels: int, classes: int) -> ImageDataset:
    """Images of noise, in which the class is how bright a band is that lies as high as the class says."""
    generator = np.random.default_rng(0)
    labels = np.arange(40 * classes, dtype=np.int64) % classes
    images = generator.integers(0, 120, (len(labels), side, side, channels), np.uint8)
    band = side // classes
    for image, label in zip(images, labels, strict=True):
        image[label * band : (label + 1) * band] += 130
    return ImageDataset(images, labels, tuple(map(str, range(classes))))


@CPU.activated(0)
@pytest.mark.parametrize("recipe", [name for name in recipes() if not load_config(name).init_from])
@pytest.mark.parametrize(("side", "channels", "classes"), [(28, 1, 4), (64, 3, 3), (32, 4, 2), (48, 2, 5)])
def test_every_recipe_learns_any_images(recipe: str, side: int, channels: int, classes: int) -> None:
    images = coloured(side, channels, classes)
    config = load_config(recipe, ["model.width=8", "batch_size=40", "threads=1", "precision=fp32"])
    step, loader = build_step(config, images, CPU)
    whiten(step.model, loader, config)
    set_learning_rates(step.optimizer, 0.3, 0.3)
    for epoch in range(16):  # davidnet of 64x64 pixels has learned after 8 of some seeds alone, after 12 of all that were tried
        for batch in loader.epoch(0, epoch, config.augment):
            step(*batch)
    logits, labels = predict(step.model, loader.sequential(), step.runtime)
    assert logits.shape == (len(images), classes)
    assert (logits.argmax(1) == labels).mean() > 0.9
    again = predict_tta(step.model, loader.sequential(), step.runtime, logits, TTA_VIEWS["all"])
    assert again.shape == logits.shape


def test_the_outline_is_that_of_the_training_images() -> None:
    own = load_config("davidnet", [f"data.name={SAMPLE}", "data.val=0.5"])
    assert dataset_facts(own, None) == DatasetFacts(100, 10, (32, 32, 3))
    assert dataset_facts(load_config("davidnet"), None) == DatasetFacts(49_000, 10, (32, 32, 3))
    whole = load_config("davidnet", ["data.val=0"])
    assert dataset_facts(whole, None) == DatasetFacts(50_000, 10, (32, 32, 3))
