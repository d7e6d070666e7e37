"""Thresholds of each class: against scikit-learn's curves and the least cost by trial, and what cannot be asked."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, precision_score, recall_score

from sprintnet.errors import ArgumentError
from sprintnet.evaluation.thresholds import NEVER, ThresholdRule, threshold_metrics

CLASSES = ("a", "b", "c")


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities (N, K), and classes (N, K) drawn by them."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (count, len(CLASSES)))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (generator.random(count)[:, None] > probabilities.cumsum(1)).sum(1).clip(max=len(CLASSES) - 1)
    return probabilities, labels[:, None] == np.arange(len(CLASSES))


@pytest.mark.parametrize("precision", [0.6, 0.8, 0.95])
def test_the_lowest_threshold_with_the_precision_is_scikit_learns(precision: float) -> None:
    probabilities, membership = drawn(400)
    found = ThresholdRule(precision).thresholds(probabilities, membership, CLASSES, is_multi_label=True)
    for label, threshold in enumerate(found):
        precisions, _, thresholds = precision_recall_curve(membership[:, label], probabilities[:, label])
        lowest = thresholds[np.flatnonzero(precisions[:-1] >= precision)[0]]
        np.testing.assert_array_equal(probabilities[:, label] > threshold, probabilities[:, label] >= lowest)


def test_with_one_label_an_image_the_most_probable_class_alone_counts() -> None:
    probabilities, membership = drawn(400)
    found = np.array(ThresholdRule(0.9).thresholds(probabilities, membership, CLASSES, is_multi_label=False))
    best = probabilities.argmax(1)
    for label in range(len(CLASSES)):
        chosen = (best == label) & (probabilities[:, label] > found[label])
        assert membership[chosen, label].mean() >= 0.9
        lower = (best == label) & (probabilities[:, label] >= np.sort(probabilities[best == label, label])[::-1][chosen.sum()])
        assert membership[lower, label].mean() < 0.9  # one image more is too many


def test_equal_scores_are_on_one_side() -> None:
    scores, right = np.array([[0.9], [0.5], [0.5], [0.1]]), np.array([[True], [True], [False], [False]])
    assert ThresholdRule(0.9).thresholds(scores, right, ("a",), is_multi_label=True) == [pytest.approx(0.7)]
    assert ThresholdRule(0.5).thresholds(scores, right, ("a",), is_multi_label=True) == [pytest.approx(0.05)]
    assert ThresholdRule(0.9).thresholds(scores, ~right, ("a",), is_multi_label=True) == [NEVER]


@pytest.mark.parametrize("is_multi_label", [True, False])
def test_thresholds_by_cost_have_the_least_cost(is_multi_label: bool) -> None:
    probabilities, membership = drawn(200_000)
    cost = 4.0
    threshold = ThresholdRule(costs={"": cost}).thresholds(probabilities, membership, CLASSES, is_multi_label=is_multi_label)[0]

    def total(bound: float) -> float:
        if is_multi_label:  # of the first class: a wrong prediction costs 4, a missed image 1
            predicted, has = probabilities[:, 0] > bound, membership[:, 0]
            return float(cost * (predicted & ~has).sum() + (~predicted & has).sum())
        best, right = probabilities.max(1), membership[np.arange(len(membership)), probabilities.argmax(1)]
        return float(cost * ((best > bound) & ~right).sum() + (best <= bound).sum())

    assert threshold == pytest.approx(0.8 if is_multi_label else 0.75)
    tried = [total(bound) for bound in np.linspace(0.3, 0.99, 24)]
    assert total(threshold) <= min(tried) * 1.002


def test_costs_are_by_class_with_one_for_all_others() -> None:
    probabilities, membership = drawn(5)
    rule = ThresholdRule(costs={"b": 10.0, "": 2.0})
    assert rule.thresholds(probabilities, membership, CLASSES, is_multi_label=False) == pytest.approx([0.5, 0.9, 0.5])
    rule = ThresholdRule(costs={"b": 10.0})
    assert rule.thresholds(probabilities, membership, CLASSES, is_multi_label=False) == pytest.approx([0, 0.9, 0])


def test_metrics_are_scikit_learns() -> None:
    probabilities, membership = drawn(300)
    predicted = probabilities.argmax(1)[:, None] == np.arange(3)
    unsure = probabilities.max(1) <= 0.6
    found = threshold_metrics(predicted, unsure, membership, dict.fromkeys(CLASSES, 0.6))
    made = predicted & ~unsure[:, None]
    assert found["unsure"] == unsure.mean()
    for label, row in enumerate(found["rows"]):
        assert row["precision"] == precision_score(membership[:, label], made[:, label])
        assert row["recall"] == recall_score(membership[:, label], made[:, label])
        assert row["precision_interval"][0] < row["precision"] < row["precision_interval"][1]
    nothing = threshold_metrics(predicted, np.ones(300, bool), membership & False, dict.fromkeys(CLASSES, NEVER))
    assert nothing["rows"][0]["precision"] is nothing["rows"][0]["recall"] is None


@pytest.mark.parametrize(
    ("rule", "is_multi_label", "message"),
    [
        (ThresholdRule(0.9, {"": 3.0}), False, "cannot be combined with costs"),
        (ThresholdRule(1.5), False, "must be more than 0 and at most 1"),
        (ThresholdRule(costs={"": 0.5}), False, "must be 1, the cost of no prediction, or more, such as 5"),
        (ThresholdRule(costs={"a": -1.0}), True, "a=-1'?: must be 0 or more"),
        (ThresholdRule(costs={"": float("nan")}), True, "must be 0 or more"),
        (ThresholdRule(costs={"z": 3.0}), False, "is no class of the model; its classes are a, b, c"),
    ],
)
def test_what_cannot_be_asked(rule: ThresholdRule, is_multi_label: bool, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        rule.check(CLASSES, is_multi_label=is_multi_label)
    assert rule
    assert not ThresholdRule()
