"""Whether an exported file answers as the trained network: the same real images through both, and how fast each is."""

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from sprintnet.data.dataset import Images, Labels
from sprintnet.deploy.predictor import Predictions, Predictor
from sprintnet.errors import ParityError
from sprintnet.evaluation.metrics import Floats, Mask
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.progress import track

MIN_AGREEMENT = 0.9999
"""Share of images with the same answer, for a file in fp32."""
MAX_DIFFERENCE = 1e-3
"""Of any probability, for a file in fp32."""
MAX_ACCURACY_DROP = 0.002
"""Of accuracy, for a file of less precision."""
BATCH = 250
TIMED_BATCHES = (1, 256)
TIMED_SECONDS = 0.3
ROUNDS = 5


def predict_all(predictor: Predictor, images: Images, label: str) -> Predictions:
    """Returns the file's answers, but for logits and maps, for all images, with a progress bar."""
    starts = range(0, len(images), BATCH)
    parts = [predictor(images[start : start + BATCH], BATCH).probabilities for start in track(starts, len(starts), label)]
    return Predictions(predictor.classes, np.concatenate(parts), None, None, predictor.threshold)


def parity(trained: TrainedModel, answers: Predictions, logits: Floats, labels: Labels) -> dict[str, float]:
    """Returns how a file's answers stand beside the network's logits (N, K) for the same images.

    images; agreement, the share with the same class, or the same labels; largest_difference of any probability; accuracy of
    the file and network_accuracy.
    """
    task = trained.task
    expected = task.activate(torch.from_numpy(logits).double() / (trained.preprocessing.temperature or 1.0)).numpy()
    truth, same = task.membership(labels, len(trained.classes)), answers.answered == answered(trained, logits)
    return {
        "images": len(labels),
        "agreement": float(same.all(axis=1).mean()),
        "largest_difference": float(np.abs(answers.probabilities - expected).max()),
        "accuracy": float((answers.answered == truth).all(axis=1).mean()),
        "network_accuracy": task.accuracy(logits, labels),
    }


def answered(trained: TrainedModel, logits: Floats) -> Mask:
    """Returns which classes (N, K) the network answers by its logits."""
    return trained.task.membership(trained.task.predictions(logits), len(trained.classes))


def check_parity(name: str, row: Mapping[str, float], is_exact: bool) -> None:
    """Raises ParityError for a file, exact (fp32) or reduced, whose answers are too far from the network's."""
    drop = row["network_accuracy"] - row["accuracy"]
    broken = []
    if is_exact and row["agreement"] < MIN_AGREEMENT:
        broken.append(f"the same answer for {row['agreement']:.3%} of {row['images']:,} images, not {MIN_AGREEMENT:.2%}")
    if is_exact and not row["largest_difference"] <= MAX_DIFFERENCE:
        broken.append(f"a probability is off by {row['largest_difference']:.2g}, more than {MAX_DIFFERENCE:g}")
    if not is_exact and not drop <= MAX_ACCURACY_DROP:
        broken.append(f"accuracy falls by {drop:.2%} to {row['accuracy']:.2%}, more than {MAX_ACCURACY_DROP:.1%}")
    if broken:
        remedy = "please report this" if is_exact else "ship the file in fp32"
        raise ParityError(f"{name} does not answer as the network, and was not kept: {'; '.join(broken)}; {remedy}")


def throughput(answer: Mapping[str, Callable[[Images], object]], images: Images) -> dict[str, dict[str, float]]:
    """Returns images/s, and milliseconds at the median and at the 99th percentile, by name and size of batch.

    All take their turns in each of several rounds, so that a busy moment of the machine meets them alike.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in answer}
    for batch in TIMED_BATCHES:
        part = images[np.arange(batch) % len(images)]
        seconds: dict[str, list[float]] = {name: [] for name in answer}
        for function in answer.values():
            function(part)
        for _ in range(ROUNDS):
            for name, function in answer.items():
                end = time.perf_counter() + TIMED_SECONDS
                while (start := time.perf_counter()) < end:
                    function(part)
                    seconds[name].append(time.perf_counter() - start)
        for name, taken in seconds.items():
            found[name][f"images_per_second_{batch}"] = len(part) / statistics.median(taken)
            found[name][f"ms_{batch}"] = 1000 * statistics.median(taken)
            found[name][f"ms_p99_{batch}"] = 1000 * float(np.percentile(taken, 99))
    return found
