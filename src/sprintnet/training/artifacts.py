"""What figures need and no other file of a run holds (pictures, schedule, layers), kept so that drawing needs no torch."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sprintnet.config import Config
from sprintnet.data.augment import augment, sample_params
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Loader, Normalisation
from sprintnet.data.splits import Splits
from sprintnet.evaluation.metrics import Floats
from sprintnet.evaluation.task import Task, task_of
from sprintnet.models.summary import layer_table
from sprintnet.runs.folder import RunFolder, evaluation_split
from sprintnet.runs.io import write_arrays, write_json
from sprintnet.training.schedule import factor_at

EXAMPLES, VARIANTS = 10, 3
"""Images beside their augmented selves, and how many such selves."""
MAX_ERRORS = 1000
"""Wrong answers whose pictures are kept, the surest first."""
MOMENTS = 200
"""Points of the schedule's curves."""


def write_artifacts(
    config: Config, run: RunFolder, splits: Splits, model: nn.Module, normalisation: Normalisation, logits: Floats
) -> None:
    """Writes artifacts.npz and network.json of a run, from its data, its network and the logits (N, K) by which it is judged.

    artifacts.npz: classes (K,); counts_SPLIT (K,); originals (B, H, W, C), original_labels (B,) and
    augmented (V, B, H, W, C), one image for each of the first classes;
    error_index (n,), error_images (n, H, W, C) and error_labels of the split that judges the run;
    schedule_epoch, schedule_lr and schedule_momentum (M,).
    """
    train, judged = splits["train"], splits[evaluation_split(splits)]
    task, classes = task_of(train), len(train.classes)
    shown, originals = _one_a_class(task, train)
    wrong = _surest_errors(task, logits, judged.labels)
    positions = np.linspace(0, config.epochs, MOMENTS, endpoint=False)
    write_arrays(
        run.artifacts,
        classes=np.array(train.classes),
        **{f"counts_{name}": task.membership(part.labels, classes).sum(axis=0) for name, part in splits.items()},
        originals=originals.images,
        original_labels=shown,
        augmented=_variants(originals, config, normalisation),
        error_index=wrong,
        error_images=judged.take(wrong).images,
        error_labels=judged.labels[wrong],
        schedule_epoch=positions,
        schedule_lr=[config.peak_lr * factor_at(config.schedule, config.epochs, position) for position in positions],
        schedule_momentum=np.full(len(positions), config.filter_momentum),
    )
    write_json(run.network, asdict(layer_table(model, train.image_shape)))


def _one_a_class(task: Task, images: ImageDataset) -> tuple[NDArray[np.int64], ImageDataset]:
    """Returns classes, and the first image of each."""
    members = task.membership(images.labels, len(images.classes))
    classes = np.flatnonzero(members.any(axis=0))[:EXAMPLES]
    return classes, images.take(members[:, classes].argmax(axis=0))


def _variants(images: ImageDataset, config: Config, normalisation: Normalisation) -> NDArray[np.uint8]:
    """Returns uint8 variants (VARIANTS, B, H, W, C), varied as in training; what comes into view is their mean colour."""
    normalised = Loader(images, normalisation, len(images), torch.device("cpu")).first(len(images))
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalisation.mean, normalisation.std))
    height, width = images.image_shape[:2]
    variants = []
    for number in range(VARIANTS):
        params = sample_params(len(images), height, width, config.augment, torch.Generator().manual_seed(number))
        varied = augment(normalised, params, config.augment) * std + mean
        variants.append((255 * varied.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy())
    return np.stack(variants)


def _surest_errors(task: Task, logits: Floats, labels: NDArray[Any]) -> NDArray[Any]:
    wrong = np.flatnonzero(~task.correct_mask(logits, labels))
    return wrong[np.argsort(-task.confidence(logits)[wrong], kind="stable")][:MAX_ERRORS]
