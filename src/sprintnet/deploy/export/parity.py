"""Parity of an exported file with the trained model on the same images, and the speed of both."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sprintnet.data.dataset import Images, Labels, images_at_a_time
from sprintnet.deploy.predictions import Predictions
from sprintnet.deploy.predictor import Predictor
from sprintnet.errors import ParityError
from sprintnet.evaluation.held_out import set_metrics, unknown_metrics
from sprintnet.evaluation.metrics import Floats
from sprintnet.evaluation.predict import Outputs
from sprintnet.evaluation.thresholds import threshold_metrics
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.progress import track

MIN_AGREEMENT = 0.9999  # share of images with equal predictions, for an fp32 file
MAX_DIFFERENCE = 1e-3  # of any probability, and of novelty as a share of its mean, for an fp32 file
MAX_ACCURACY_DROP = 0.002  # for a file of lower precision, or one image: 100 images have no finer steps
ROUNDING = 1e-9  # of the difference of two shares
TIMED_BATCH = 256
"""Images of the larger batch that is timed, at most."""
TIMED_SECONDS = 0.3
ROUNDS = 5


def predict_all(predictor: Predictor, images: Images, label: str) -> Predictions:
    """Returns the probabilities of a file for all images, with a progress bar."""
    found = predictor.stream(track(images, len(images), label))
    parts = [replace(part, logits=None, activation_maps=None, embeddings=None) for part in found]  # which are large
    probabilities = np.concatenate([part.probabilities for part in parts])
    novelty = [part.novelty for part in parts if part.novelty is not None]
    return Predictions(predictor.preprocessing, probabilities, novelty=np.concatenate(novelty) if novelty else None)


def file_metrics(trained: TrainedModel, predictions: Predictions, labels: Labels, split: str) -> dict[str, Any]:
    """Returns a file's own scores on a split, as metrics.json has them, and `ece`, its expected calibration error."""
    probabilities = np.clip(predictions.probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    logits = np.log(probabilities) - (0 if predictions.threshold is None else np.log1p(-probabilities))
    scores = trained.task.summarise(_above_thresholds(predictions, logits), labels, trained.classes)
    scores["cross_entropy"] = trained.task.cross_entropy(logits, labels, 0.0)
    short = {key: score for key, score in scores.items() if key == "accuracy_interval" or not isinstance(score, list | dict)}
    sets = set_metrics(trained.preprocessing.held_out_scores, probabilities, labels, held_out=split == "val")
    if predictions.novelty is not None:
        sets |= unknown_metrics(trained.preprocessing, predictions.novelty, labels, held_out=split == "val")
    if predictions.preprocessing.thresholds:
        membership = trained.task.membership(labels, len(trained.classes))
        thresholds = dict(zip(trained.classes, predictions.preprocessing.thresholds, strict=True))
        sets["thresholds"] = threshold_metrics(predictions.predicted_mask, predictions.unsure, membership, thresholds)
    return {**short, **sets, "ece": trained.task.calibration(logits, labels)["ece"]}


def _above_thresholds(predictions: Predictions, logits: Floats) -> Floats:
    """Returns the logits (N, K), of several labels an image less those of their thresholds: positive where one is predicted."""
    if predictions.threshold is None or not (thresholds := predictions.preprocessing.thresholds):
        return logits
    bounded = np.clip(thresholds, 1e-12, 1 - 1e-12)
    return np.asarray(logits - (np.log(bounded) - np.log1p(-bounded)))


def parity(trained: TrainedModel, predictions: Predictions, expected: Outputs, labels: Labels) -> dict[str, float]:
    """Compares a file's predictions with what the trained model computes from the same images.

    Returns images; agreement, the share of images with equal predictions; largest_difference of any probability; accuracy of
    the file; network_accuracy; novelty_difference, the largest, as a share of the mean novelty, if the file has it.
    """
    task, logits = trained.task, expected.logits
    probabilities = trained.preprocessing.probabilities(logits.astype(np.float64))
    novelty = {}
    if predictions.novelty is not None:
        differences = np.abs(predictions.novelty - expected.novelty)
        novelty = {"novelty_difference": float(differences.max() / expected.novelty.mean())}
    by_model = replace(predictions, probabilities=probabilities).predicted_mask
    truth = task.membership(labels, len(trained.classes))
    return {
        "images": len(labels),
        "agreement": float((predictions.predicted_mask == by_model).all(axis=1).mean()),
        "largest_difference": float(np.abs(predictions.probabilities - probabilities).max()),
        "accuracy": float((predictions.predicted_mask == truth).all(axis=1).mean()),
        "network_accuracy": float((by_model == truth).all(axis=1).mean()),
        **novelty,
    }


def check_parity(name: str, row: Mapping[str, float], is_exact: bool) -> None:
    """Raises ParityError if `broken_rules` finds any."""
    if broken := broken_rules(row, is_exact):
        exact = "the fp32 file model.onnx predicts as the network: export without --quantize"
        remedy = "please report this" if is_exact else exact
        raise ParityError(f"{name} does not match the trained model and was not kept: {broken}; {remedy}")


def broken_rules(row: Mapping[str, float], is_exact: bool) -> str:
    """Returns how the predictions of a file, exact (fp32) or reduced, differ too much from the trained model's; empty: not."""
    drop = row["network_accuracy"] - row["accuracy"]
    allowed = max(MAX_ACCURACY_DROP, 1 / row["images"])
    broken = []
    if is_exact and row["agreement"] < MIN_AGREEMENT:
        broken.append(f"equal predictions for {row['agreement']:.3%} of {row['images']:,} images, not {MIN_AGREEMENT:.2%}")
    if is_exact and not row["largest_difference"] <= MAX_DIFFERENCE:
        broken.append(f"a probability differs by {row['largest_difference']:.2g}, more than {MAX_DIFFERENCE:g}")
    if is_exact and not row.get("novelty_difference", 0) <= MAX_DIFFERENCE:
        broken.append(f"novelty differs by {row['novelty_difference']:.2g} of its mean, more than {MAX_DIFFERENCE:g}")
    if not is_exact and not drop <= allowed + ROUNDING:
        broken.append(f"accuracy drops by {100 * drop:.2f} points to {row['accuracy']:.2%}, more than {100 * allowed:.1f}")
    return "; ".join(broken)


def throughput(functions: Mapping[str, Callable[[Images], object]], images: Images) -> dict[str, dict[str, float]]:
    """Returns images/s and the median and 99th percentile of milliseconds, by name and batch size, 1 and the largest. The
    functions take turns in several rounds, so that other load on the machine affects all alike."""
    largest = images_at_a_time(TIMED_BATCH, images.shape[1:])
    found: dict[str, dict[str, float]] = {name: {"largest_batch": largest} for name in functions}
    for batch in (1, largest):
        part = images[np.arange(batch) % len(images)]
        seconds: dict[str, list[float]] = {name: [] for name in functions}
        for function in functions.values():
            function(part)
        for _ in range(ROUNDS):
            for name, function in functions.items():
                end = time.perf_counter() + TIMED_SECONDS
                while (start := time.perf_counter()) < end:
                    function(part)
                    seconds[name].append(time.perf_counter() - start)
        for name, taken in seconds.items():
            found[name][f"images_per_second_{batch}"] = len(part) / statistics.median(taken)
            found[name][f"ms_{batch}"] = 1000 * statistics.median(taken)
            found[name][f"ms_p99_{batch}"] = 1000 * float(np.percentile(taken, 99))
    return found
