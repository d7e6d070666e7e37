"""What scores of held-out images promise, and how it fares on other images: sets of classes, unknown images. In NumPy."""

from typing import Any

import numpy as np

from sprintnet.data.conformal import METHODS, HeldOutScores, images_needed
from sprintnet.data.preprocessing import Preprocessing
from sprintnet.data.splits import stratified_sample
from sprintnet.evaluation.metrics import Floats, Ints, Mask, wilson_interval

COVERAGES = (0.8, 0.9, 0.95, 0.99)
FALSE_ALARMS = (0.01, 0.05)


def reserved(labels: Ints) -> Mask:
    """Returns which held-out images (N,) give scores: half of each class.

    Their temperature is fitted on the others, so that these are like new images to the model.
    """
    return stratified_sample(labels.astype(np.uint8) if labels.ndim == 2 else labels.astype(np.int64), 0.5)


def set_metrics(scores: HeldOutScores | None, probabilities: Floats, labels: Ints, *, held_out: bool) -> dict[str, Any]:
    """Returns the metrics of sets on labelled images as `sets`, from calibrated probabilities (N, K); empty without scores.

    `held_out`: these are the images that calibrated the model, of which those that the scores come from are left out.
    """
    if scores is None:
        return {}
    fresh = ~reserved(labels) if held_out else np.ones(len(labels), bool)
    return {"sets": _table(probabilities[fresh], labels[fresh], scores)}


def unknown_metrics(preprocessing: Preprocessing, novelty: Floats, labels: Ints, *, held_out: bool) -> dict[str, Any]:
    """Returns how many images of known classes are taken for unknown, as `unknown`, from their novelty (N,); empty without
    scores. images; held_out, the number of images of the scores; rows: by the false alarms asked for, the share found and its
    95% interval. The argument `held_out` is that of `set_metrics`.
    """
    if not (reference := preprocessing.novelty_scores):
        return {}
    fresh = ~reserved(labels) if held_out else np.ones(len(labels), bool)
    found: dict[str, Any] = {"images": int(fresh.sum()), "held_out": len(reference), "rows": []}
    for rate in (rate for rate in FALSE_ALARMS if images_needed(1 - rate) <= len(reference)):
        alarms = preprocessing.unknown(novelty[fresh], rate)
        low, high = wilson_interval(np.asarray(alarms.sum()), np.asarray(len(alarms)))
        found["rows"].append({"asked": rate, "found": float(alarms.mean()), "interval": [float(low), float(high)]})
    return {"unknown": found}


def _table(probabilities: Floats, labels: Ints, scores: HeldOutScores) -> dict[str, Any]:
    """Returns how sets fare on labelled images.

    images; held_out, the number of images of the scores; rows: for each coverage that these can give, method, and by class or
    not, the share of images whose set contains the true class with its 95% interval, the lowest share of a class, the mean
    number of classes in a set, and the share of sets of one class.
    """
    found: dict[str, Any] = {"images": len(labels), "held_out": scores.images, "rows": []}
    for coverage in (coverage for coverage in COVERAGES if images_needed(coverage) <= scores.images):
        for method in METHODS:
            for by_class in (False, True):
                sets = scores.sets(probabilities, coverage, method, by_class)
                covered = sets[np.arange(len(labels)), labels]
                low, high = wilson_interval(np.asarray(covered.sum()), np.asarray(len(covered)))
                of_classes = [float(covered[labels == label].mean()) for label in np.unique(labels)]
                found["rows"].append({
                    "coverage": coverage, "method": method, "by_class": by_class,
                    "covered": float(covered.mean()), "interval": [float(low), float(high)], "lowest_class": min(of_classes),
                    "mean_size": float(sets.sum(axis=1).mean()), "single": float((sets.sum(axis=1) == 1).mean()),
                })  # fmt: skip
    return found
