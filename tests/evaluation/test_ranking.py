"""ROC and precision-recall curves against scikit-learn; points on them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from sprintnet.evaluation.metrics import wilson_interval
from sprintnet.evaluation.ranking import DIGITS, ranking

CLASSES = ("a", "b", "c")
ROUNDED = 0.6 * 10**-DIGITS


def drawn(count: int, seed: int = 0, decimals: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and labels (N,); with few decimals, many are equal."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    exponentials = np.exp(generator.normal(size=(count, 3)) + 1.2 * np.eye(3)[labels])
    return np.round(exponentials / exponentials.sum(axis=1, keepdims=True), decimals), labels


@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([1, 2, 9]))
def test_curves_are_those_of_scikit_learn(seed: int, decimals: int) -> None:
    scores, labels = drawn(80, seed, decimals)
    membership = labels[:, None] == np.arange(3)
    curves = ranking(scores, membership, CLASSES)["curves"]
    for index, name in enumerate(CLASSES):
        own, has, found = scores[:, index], membership[:, index], curves["classes"][name]
        false, true, _ = roc_curve(has, own, drop_intermediate=False)
        np.testing.assert_allclose(
            found["true_positive_rate"], np.interp(curves["false_positive_rate"], false, true), atol=ROUNDED
        )
        precision, recall, _ = precision_recall_curve(has, own)
        for asked, value in zip(curves["recall"], found["precision"], strict=True):
            reached = precision[:-1][recall[:-1] >= asked - 1e-12]  # thresholds upwards: the last is the highest
            assert value == pytest.approx(reached[-1], abs=ROUNDED)
        assert found["roc_auc"] == pytest.approx(roc_auc_score(has, own), abs=ROUNDED)
        assert found["average_precision"] == pytest.approx(average_precision_score(has, own), abs=ROUNDED)
    assert curves["macro"]["roc_auc"] == pytest.approx(roc_auc_score(membership, scores, average="macro"), abs=ROUNDED)


def test_points_are_counts_at_their_threshold() -> None:
    scores, labels = drawn(500)
    membership = labels[:, None] == np.arange(3)
    points = ranking(scores, membership, CLASSES)["operating_points"]
    assert [(point["class"], point["asked"]) for point in points] == [(c, s) for c in CLASSES for s in (0.9, 0.95, 0.99)]
    for point in points:
        index = CLASSES.index(point["class"])
        said, has = scores[:, index] >= point["threshold"], membership[:, index]
        hits, rejected = (said & has).sum(), (~said & ~has).sum()
        assert point["sensitivity"] == hits / has.sum()
        assert point["specificity"] == rejected / (~has).sum() >= point["asked"]
        assert point["sensitivity_interval"] == [float(bound) for bound in wilson_interval(hits, has.sum())]
        lower = scores[:, index] >= np.max(scores[~said, index])
        assert (~lower & ~has).sum() / (~has).sum() < point["asked"]  # one threshold lower, it would be less specific


def test_a_class_that_nobody_or_everybody_has_is_left_out() -> None:
    scores, _ = drawn(20)
    membership = np.zeros((20, 3), bool)
    membership[:, 1] = True
    assert ranking(scores, membership, CLASSES) == {}
    membership[:5, 2] = True
    found = ranking(scores, membership, CLASSES)
    assert list(found["curves"]["classes"]) == ["c"]
    assert found["curves"]["macro"] == found["curves"]["classes"]["c"]


def test_a_class_whose_wrong_images_score_highest_has_no_threshold() -> None:
    scores = np.array([[0.9], [0.8], [0.1]])
    point = ranking(scores, np.array([[False], [True], [True]]), ("a",))["operating_points"][0]
    assert (point["threshold"], point["sensitivity"], point["specificity"]) == (None, 0.0, 1.0)
