"""Report artifacts: what figures need and no other file of a run holds, so that drawing needs no torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sprintnet.config import Config
from sprintnet.data.augment import sample_params
from sprintnet.data.dataset import ImageDataset, first_of_each_class
from sprintnet.data.loader import Loader
from sprintnet.data.mixing import mix
from sprintnet.data.preprocessing import Normalisation
from sprintnet.data.splits import Splits
from sprintnet.evaluation.metrics import Floats
from sprintnet.evaluation.task import Task
from sprintnet.evaluation.trained_model import KnownImages, TrainedModel
from sprintnet.models.factory import build_model
from sprintnet.models.summary import layer_table
from sprintnet.runs.folder import RunFolder, evaluation_split, read_arrays
from sprintnet.runs.io import write_arrays, write_json
from sprintnet.training.schedule import Schedule

EXAMPLES, VARIANTS = 10, 3
"""Images shown beside their augmented variants, and the number of variants."""
MAX_ERRORS, MAX_ERROR_BYTES = 1000, 2**26
"""Prediction errors whose images are kept, most confident first, and their bytes."""
MAX_UNSURE = 16
"""Right predictions whose images are kept where none is wrong, least confident first."""
SCHEDULE_POINTS = 200


def write_artifacts(config: Config, run: RunFolder, splits: Splits, trained: TrainedModel, known: KnownImages) -> None:
    """Writes artifacts.npz and network.json of a run, from its data, its model and its predictions.npz.

    artifacts.npz: classes (K,); counts_SPLIT (K,); originals (B, H, W, C), original_labels (B,) and
    augmented (V, B, H, W, C), one image for each of the first classes;
    error_index (n,), error_images (n, H, W, C) and error_labels of the evaluation split; of each, nearest_images (n, H, W, C)
    and nearest_labels, the training image with the most similar embedding;
    unsure_images (m, H, W, C) and unsure_labels, of the least confident predictions where none is wrong;
    cross_validation_error_index and cross_validation_error_images, of training images, of a last layer that was fitted;
    schedule_epoch, schedule_lr and schedule_momentum (M,), empty without epochs.
    """
    split = evaluation_split(splits)
    train, evaluated = splits["train"], splits[split]
    task, classes = trained.task, len(train.classes)
    examples = first_of_each_class(train.labels)[:EXAMPLES]
    originals = train.take(examples)
    predictions = read_arrays(run.predictions)
    logits = trained.preprocessing.calibrated(predictions[f"{split}_logits"])
    kept = min(MAX_ERRORS, MAX_ERROR_BYTES // math.prod(evaluated.image_shape))
    errors = _most_confident_errors(task, logits, evaluated.labels)[:kept]
    unsure = np.argsort(task.confidence(logits), kind="stable")[: 0 if len(errors) else min(MAX_UNSURE, kept)]
    schedule = Schedule(config.schedule, config.epochs)
    wrong, doubted = evaluated.take(errors), evaluated.take(unsure)
    nearest = known.nearest(trained.outputs(wrong, "embedding").embeddings) if len(errors) else known.images.take(errors)
    positions = np.linspace(0, config.epochs, SCHEDULE_POINTS * bool(config.epochs), endpoint=False)
    write_arrays(
        run.artifacts,
        classes=np.array(train.classes),
        **{f"counts_{name}": task.membership(part.labels, classes).sum(axis=0) for name, part in splits.items()},
        originals=originals.images,
        original_labels=np.flatnonzero(task.membership(train.labels, classes).any(axis=0))[:EXAMPLES],
        augmented=_variants(originals, config, trained.preprocessing.normalisation),
        error_index=errors,
        error_images=wrong.images,
        error_labels=wrong.labels,
        nearest_images=nearest.images,
        nearest_labels=nearest.labels,
        unsure_images=doubted.images,
        unsure_labels=doubted.labels,
        **_cross_validation_errors(predictions, train, trained, kept),
        schedule_epoch=positions,
        schedule_lr=[config.peak_lr * schedule.lr_factor(position) for position in positions],
        schedule_momentum=np.full(len(positions), config.filter_momentum),
    )
    network = build_model(config.model, classes, train.image_shape)  # not the trained one, of which training froze parts
    if config.freeze_backbone:
        network.freeze()
    write_json(run.network, asdict(layer_table(network, train.image_shape)))


def _variants(images: ImageDataset, config: Config, normalisation: Normalisation) -> NDArray[np.uint8]:
    """Returns uint8 variants (V, B, H, W, C), augmented as in training; padding has the mean colour.

    Without epochs they are the mirror images, to which the last layer is fitted too.
    """
    if not config.epochs:
        return images.images[None, :, :, ::-1][: int(config.augment.flip > 0)]
    loader = Loader(images, normalisation, len(images), torch.device("cpu"))
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalisation.mean, normalisation.std))
    height, width = images.image_shape[:2]
    variants = []
    for number in range(VARIANTS):
        params = sample_params(len(images), height, width, config.augment, torch.Generator().manual_seed(number))
        variant = loader.augmented(torch.arange(len(images)), params, config.augment)
        if params.mixes is not None:
            variant, _ = mix(variant, loader.labels.float().reshape(len(images), -1), params.mixes)
        variant = variant * std + mean
        variants.append((255 * variant.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy())
    return np.stack(variants)


def _cross_validation_errors(
    predictions: Mapping[str, NDArray[Any]], train: ImageDataset, trained: TrainedModel, kept: int
) -> dict[str, NDArray[Any]]:
    if "cross_validation_logits" not in predictions:
        return {}
    logits = trained.preprocessing.calibrated(predictions["cross_validation_logits"])
    wrong = _most_confident_errors(trained.task, logits, predictions["cross_validation_labels"])[:kept]
    index = predictions["cross_validation_index"][wrong]
    return {"cross_validation_error_index": index, "cross_validation_error_images": train.images[index]}


def _most_confident_errors(task: Task, logits: Floats, labels: NDArray[Any]) -> NDArray[Any]:
    errors = np.flatnonzero(~task.correct_mask(logits, labels))
    return errors[np.argsort(-task.confidence(logits)[errors], kind="stable")]
