"""Sets of classes: against two libraries, the guarantee by simulation, and what cannot be given."""

import json

import numpy as np
import pytest
from crepes import ConformalClassifier
from mapie.classification import SplitConformalClassifier
from scipy.special import softmax
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin

from sprintnet.data.conformal import METHODS, HeldOutScores, images_needed, p_values, power, set_scores
from sprintnet.errors import ArgumentError

CLASSES = 5


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities (N, K) of a classifier that is often wrong and badly calibrated, and labels (N,)."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(CLASSES, count, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    logits = generator.normal(size=(count, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    exponentials = np.exp(2 * logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True), labels


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose inputs are its probabilities."""

    def fit(self, inputs: np.ndarray, labels: np.ndarray) -> "Given":
        self.classes_ = np.arange(CLASSES)
        self.n_features_in_ = CLASSES
        return self

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        return inputs

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.asarray(inputs.argmax(axis=1))


def of_top(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(axis=1)[:, None] == np.arange(CLASSES)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_sets_by_threshold_are_those_of_mapie(coverage: float) -> None:
    (held_out, labels), (new, _) = drawn(400, 0), drawn(300, 1)
    estimator = Given().fit(held_out, labels)
    oracle = SplitConformalClassifier(estimator, confidence_level=coverage, conformity_score="lac", prefit=True)
    expected = oracle.conformalize(held_out, labels).predict_set(new)[1][:, :, 0]
    found = HeldOutScores.of(held_out, labels).sets(new, coverage)
    np.testing.assert_array_equal(found, expected | of_top(new))
    assert not expected.all(axis=1).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by_class", [False, True])
def test_sets_are_those_of_crepes_from_the_same_scores(method: str, by_class: bool) -> None:
    (held_out, labels), (new, _) = drawn(500, 2), drawn(300, 3)
    own = set_scores(held_out, method)[np.arange(500), labels]
    bins = {"bins": np.tile(np.arange(CLASSES), (300, 1))} if by_class else {}
    oracle = ConformalClassifier().fit(own, bins=labels if by_class else None)
    for coverage in (0.7, 0.85, 0.9):
        scores = set_scores(new, method)
        expected = np.column_stack([
            oracle.predict_p(scores[:, [label]], bins=bins and bins["bins"][:, label], all_classes=True, smoothing=False)
            for label in range(CLASSES)
        ]) > round(1 - coverage, 12)  # fmt: skip
        found = HeldOutScores.of(held_out, labels).sets(new, coverage, method, by_class)
        np.testing.assert_array_equal(found, expected | of_top(new))


def test_adaptive_scores_in_closed_form() -> None:
    scores = set_scores(np.array([[0.2, 0.5, 0.3], [0.25, 0.5, 0.25]]), "adaptive")
    np.testing.assert_allclose(scores, [[0.8, 0.0, 0.5], [0.5, 0.0, 0.75]])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by_class", [False, True])
def test_coverage_over_many_splits_is_what_is_promised(method: str, by_class: bool) -> None:
    probabilities, labels = drawn(60_000, 4)
    coverage, images, splits = 0.9, 200, 300
    hits = np.zeros(splits, bool)  # whether one fresh image, of the rarest class where that is promised, is covered
    for split in range(splits):
        chosen = slice(split * images, (split + 1) * images - 1)
        rare = np.flatnonzero(labels == CLASSES - 1)
        fresh = rare[-1 - split] if by_class else (split + 1) * images - 1
        sets = HeldOutScores.of(probabilities[chosen], labels[chosen]).sets(probabilities[[fresh]], coverage, method, by_class)
        hits[split] = sets[0, labels[fresh]]
    assert hits.sum() >= binom.ppf(0.001, splits, coverage)


@pytest.mark.parametrize("method", METHODS)
def test_mean_coverage_is_not_far_above_what_is_asked(method: str) -> None:
    (held_out, labels), (new, truth) = drawn(5000, 5), drawn(5000, 6)
    for coverage in (0.7, 0.9):
        sets = HeldOutScores.of(held_out, labels).sets(new, coverage, method)
        assert sets[np.arange(5000), truth].mean() == pytest.approx(coverage, abs=0.02)
        assert sets.any(axis=1).all()


def test_sets_grow_with_coverage() -> None:
    (held_out, labels), (new, _) = drawn(500, 7), drawn(200, 8)
    scores = HeldOutScores.of(held_out, labels)
    for method in METHODS:
        small, large = (scores.sets(new, coverage, method) for coverage in (0.6, 0.95))
        assert (small <= large).all()
        assert small.sum() < large.sum()


def test_a_class_without_held_out_images_is_in_every_set_of_its_own() -> None:
    (held_out, labels), (new, _) = drawn(500, 9), drawn(50, 10)
    kept = labels != 3
    scores = HeldOutScores.of(held_out[kept], labels[kept])
    assert scores.sets(new, 0.9, by_class=True)[:, 3].all()
    assert not scores.sets(new, 0.9)[:, 3].all()


def test_p_values_count_ties() -> None:
    np.testing.assert_allclose(p_values(np.array([0.0, 0.5, 0.6]), [0.0, 0.5, 0.5]), [1.0, 0.75, 0.25])
    np.testing.assert_array_equal(p_values(np.array([0.3]), []), [1.0])


@pytest.mark.parametrize(("coverage", "images"), [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1)])
def test_few_images_cannot_give_a_high_coverage(coverage: float, images: int) -> None:
    assert images_needed(coverage) == images
    held_out, labels = drawn(images, 11)
    scores = HeldOutScores.of(held_out, labels)
    assert not scores.sets(drawn(200, 12)[0], coverage).all()
    fewer = HeldOutScores.of(held_out[1:], labels[1:])
    with pytest.raises(ArgumentError, match=f"coverage={coverage}: needs {images} held-out images, and the model has"):
        fewer.sets(held_out, coverage)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 90.0, float("nan")])
def test_impossible_coverages_are_refused(coverage: float) -> None:
    scores = HeldOutScores.of(*drawn(50, 13))
    with pytest.raises(ArgumentError, match=r"coverage=.*: must be more than 0 and less than 1, such as 0\.9"):
        scores.sets(drawn(5, 14)[0], coverage)


def test_a_power_of_probabilities_is_another_temperature() -> None:
    logits = 3 * np.random.default_rng(16).normal(size=(50, CLASSES))
    for exponent in (0.3, 1.0, 2.5):
        expected = softmax(exponent * logits, axis=1)
        np.testing.assert_allclose(power(softmax(logits, axis=1), exponent), expected, rtol=1e-12)
        np.testing.assert_allclose(power(softmax(logits, axis=1).astype(np.float32), exponent), expected, rtol=1e-5)
    certain = np.eye(CLASSES, dtype=np.float32)
    np.testing.assert_array_equal(power(certain, 3.0), certain)


@pytest.mark.parametrize("method", METHODS)
def test_sets_are_those_of_the_temperature_that_the_scores_have(method: str) -> None:
    (held_out, labels), (new, _) = drawn(500, 17), drawn(200, 18)
    expected = HeldOutScores.of(power(held_out, 1.7), labels).sets(power(new, 1.7), 0.9, method)
    np.testing.assert_array_equal(HeldOutScores.of(held_out, labels, 1.7).sets(new, 0.9, method), expected)


def test_scores_travel_as_text() -> None:
    scores = HeldOutScores.of(*drawn(100, 15), 1.25)
    assert HeldOutScores.from_metadata(json.loads(json.dumps(scores.to_metadata())), CLASSES) == scores
    for spoiled, message in (([[0.1]] * 2, "scores of 2 classes, not 5"), ([[float("nan")]] * CLASSES, "not finite")):
        with pytest.raises(ValueError, match=message):
            HeldOutScores.from_metadata({"scores": dict.fromkeys(METHODS, spoiled)}, CLASSES)
    for exponent in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"an exponent of {float(exponent)} is not possible"):
            HeldOutScores.from_metadata({**scores.to_metadata(), "exponent": exponent}, CLASSES)
