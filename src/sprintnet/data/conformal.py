"""Conformal prediction: sets of classes that contain the true one with a chosen probability (no torch).

A class is in the set of an image unless it fits the image worse than all but a few held-out images fit their own class:
p-values from the ranks of scores (Vovk et al. 2005, "Algorithmic learning in a random world"). The guarantee asks only that
new images come as the held-out ones did, on which nothing else was fitted; it is a mean over images, or over those of a class.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sprintnet.errors import ArgumentError

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

METHODS = ("threshold", "adaptive")
DIGITS = 6  # of the scores, which travel as text
MORE_HELD_OUT = "half of the held-out images of each class give them: train again and hold out more, such as data.val=0.3"


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of held-out images for their own class, which the classes of a new image are compared with."""

    scores: Mapping[str, tuple[tuple[float, ...], ...]]
    """By method: the sorted scores of the images of each class, none for a class without images."""
    exponent: float = 1.0
    """Scores are of this power of calibrated probabilities, normalised. The temperature of these is fitted on all held-out
    images; divided by the exponent, it is the one that the others alone give, which knows nothing of the scores' images."""

    @classmethod
    def of(cls, probabilities: Floats, labels: npt.NDArray[np.integer[Any]], exponent: float = 1.0) -> "HeldOutScores":
        """Returns the scores of held-out images, from their calibrated probabilities (N, K) and labels (N,)."""
        found, classes = {}, range(probabilities.shape[1])
        probabilities = power(probabilities, exponent)
        for method in METHODS:
            of_own = set_scores(probabilities, method)[np.arange(len(labels)), labels]
            found[method] = tuple(sorted_scores(of_own[labels == label]) for label in classes)
        return cls(found, exponent)

    @property
    def images(self) -> int:
        """The number of held-out images."""
        return sum(map(len, self.scores["threshold"]))

    def sets(self, probabilities: Floats, coverage: float, method: str = "threshold", by_class: bool = False) -> Mask:
        """Returns which classes (N, K) are in the set of each image, from calibrated probabilities (N, K).

        The sets contain the true class of at least the share `coverage` of images; `by_class`: of the images of each class,
        where a class with too few held-out images is in every set. The most probable class always is.
        Raises ArgumentError for a coverage outside 0..1, or one that so few held-out images cannot give.
        """
        require_coverage(coverage)
        if not by_class and self.images < (needed := images_needed(coverage)):
            most = self.images / (self.images + 1)
            rule = f"needs {needed:,} held-out images, and the model has {self.images:,}"
            remedy = f"ask for less than {most:.3g}, or train with a larger data.val"
            raise ArgumentError("coverage", coverage, f"{rule}; {remedy}")
        scores = set_scores(power(probabilities, self.exponent), method)
        pools = self.scores[method]
        if not by_class:
            pools = (tuple(sorted(score for pool in pools for score in pool)),) * len(pools)
        fits = np.column_stack([p_values(scores[:, label], pool) for label, pool in enumerate(pools)])
        top = probabilities.argmax(axis=1)[:, None] == np.arange(len(pools))
        return np.asarray((fits > round(1 - coverage, 12)) | top)

    def rare(self, coverage: float) -> list[int]:
        """Returns the classes with too few held-out images for a coverage by class: they are in every set."""
        return [label for label, pool in enumerate(self.scores["threshold"]) if len(pool) < images_needed(coverage)]

    def to_metadata(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        scores = {method: [list(pool) for pool in pools] for method, pools in self.scores.items()}
        return {"scores": scores, "exponent": self.exponent}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], classes: int) -> "HeldOutScores":
        """Returns what `to_metadata` wrote; raises KeyError, TypeError or ValueError if damaged."""
        found = {method: tuple(sorted_scores(map(float, pool)) for pool in metadata["scores"][method]) for method in METHODS}
        for pools in found.values():
            if len(pools) != classes:
                raise ValueError(f"scores of {len(pools)} classes, not {classes}")
        exponent = float(metadata.get("exponent", 1.0))
        if not 0 < exponent < math.inf:
            raise ValueError(f"an exponent of {exponent} is not possible")
        return cls(found, exponent)


def power(probabilities: Floats, exponent: float) -> Floats:
    """Returns probabilities (N, K) raised to a power and normalised, fp64: those of logits times the exponent."""
    raised = (probabilities.astype(np.float64) / probabilities.max(axis=1, keepdims=True)) ** exponent
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def set_scores(probabilities: Floats, method: str) -> Floats:
    """Returns how badly each class fits (N, K), 0..1.

    threshold: what its probability lacks of 1, which gives the smallest sets (Sadinle et al. 2019, arXiv:1609.00451).
    adaptive: the probability of the classes that are more probable, which gives larger sets to harder images: that of Romano
    et al. 2020 (arXiv:2006.02544) without its random part, and without the class itself, so that no set is empty.
    """
    probabilities = probabilities.astype(np.float64)
    if method == "threshold":
        return np.asarray(1 - probabilities)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    before = np.concatenate([np.zeros((len(ranked), 1)), np.cumsum(ranked, axis=1)[:, :-1]], axis=1)
    scores = np.empty_like(before)
    np.put_along_axis(scores, order, before, axis=1)
    return scores


def p_values(scores: Floats, reference: Sequence[float]) -> Floats:
    """Returns the share (N,) of scores that are as large or larger, among sorted reference scores and the score itself."""
    larger = len(reference) - np.searchsorted(np.asarray(reference, np.float64), scores, side="left")
    return np.asarray((larger + 1) / (len(reference) + 1))


def images_needed(coverage: float) -> int:
    """Returns the number of held-out images from which sets can leave out any class."""
    return math.ceil(round(coverage / (1 - coverage), 6))


def require_coverage(coverage: float) -> None:
    """Raises ArgumentError for a coverage that is not between 0 and 1."""
    if not 0 < coverage < 1:
        raise ArgumentError("coverage", coverage, "must be more than 0 and less than 1, such as 0.9")


def sorted_scores(scores: Iterable[float]) -> tuple[float, ...]:
    """Returns scores in order, rounded as they travel; raises ValueError for one that is not finite."""
    found = tuple(sorted(float(f"{score:.{DIGITS}g}") for score in scores))
    if not all(map(math.isfinite, found)):
        raise ValueError("scores that are not finite")
    return found
