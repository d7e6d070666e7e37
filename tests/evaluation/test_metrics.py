"""Metrics against PyTorch, scikit-learn and SciPy, and by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import precision_recall_fscore_support
from torch.nn import functional as F

from small_sets import preprocessing
from sprintnet.evaluation.metrics import (
    confusion_matrix,
    cross_entropy,
    log_probabilities,
    most_confused,
    score_table,
    summarise,
    top_k_accuracy,
    wilson_interval,
)
from sprintnet.evaluation.task import Evaluation

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(0, 3, (200, 10)).astype(np.float32)
LABELS = GENERATOR.integers(0, 10, 200)
NAMES = tuple("abcdefghij")


def class_table(confusion: np.ndarray, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return score_table(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0), classes)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.2, 0.5])
def test_cross_entropy_is_pytorchs_and_the_articles_formula(alpha: float) -> None:
    expected = F.cross_entropy(torch.from_numpy(LOGITS).double(), torch.from_numpy(LABELS), label_smoothing=alpha)
    assert cross_entropy(LOGITS, LABELS, alpha) == pytest.approx(float(expected), rel=1e-12)
    targets = (1 - alpha) * np.eye(10)[LABELS] + alpha / 10  # y_ls = (1 - alpha) * y_hot + alpha / K
    assert cross_entropy(LOGITS, LABELS, alpha) == pytest.approx(-(targets * log_probabilities(LOGITS)).sum(1).mean())


def test_huge_logits_do_not_overflow() -> None:
    assert cross_entropy(np.array([[1e4, -1e4]], np.float32), np.array([0])) == 0
    assert cross_entropy(np.array([[1e4, -1e4]], np.float32), np.array([1])) == pytest.approx(2e4)


@pytest.mark.parametrize("k", [1, 3, 5, 10, 20])
def test_top_k_is_pytorchs(k: int) -> None:
    largest = torch.from_numpy(LOGITS).topk(min(k, 10)).indices.numpy()
    assert top_k_accuracy(LOGITS, LABELS, k) == np.mean([label in row for label, row in zip(LABELS, largest, strict=True)])


def test_the_confusion_matrix_by_hand() -> None:
    logits = np.eye(3)[[0, 1, 1, 2, 0]]
    assert confusion_matrix(logits, np.array([0, 1, 2, 2, 0])).tolist() == [[2, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_precision_recall_and_f1_are_scikit_learns() -> None:
    confusion = confusion_matrix(LOGITS, LABELS)
    table = class_table(confusion, NAMES)
    precision, recall, f1, support = precision_recall_fscore_support(LABELS, LOGITS.argmax(1))
    for index, name in enumerate(NAMES):
        row = table[name]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision[index], recall[index], f1[index]))
        assert row["support"] == support[index]
        low, high = row["f1_interval"]
        assert 0 <= low <= row["f1"] <= high <= 1


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_interval_of_a_share_is_scipys_wilson(count: int, share: float) -> None:
    hits = round(share * count)
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(np.int64(hits), np.int64(count)) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_f1_intervals_cover_the_true_f1() -> None:
    generator = np.random.default_rng(1)
    truth = np.array([[0.4, 0.1], [0.05, 0.45]])
    true_f1 = 2 * 0.4 / (2 * 0.4 + 0.1 + 0.05)
    covered = 0
    for _ in range(60):
        sample = generator.multinomial(300, truth.ravel()).reshape(2, 2)
        low, high = class_table(sample, ("a", "b"))["a"]["f1_interval"]
        covered += low <= true_f1 <= high
    assert covered >= 50  # 57 expected


def test_f1_of_few_images_is_uncertain_even_where_all_or_none_are_right() -> None:
    none, all_right = (class_table(np.array(counts), ("a", "b"))["a"] for counts in ([[0, 10], [0, 10]], [[10, 0], [0, 10]]))
    assert none["f1_interval"][0] == 0 < none["f1_interval"][1]
    assert all_right["f1_interval"][0] < 0.95 < all_right["f1_interval"][1]


def test_a_class_without_images_or_predictions_has_no_scores_and_no_warnings() -> None:
    metrics = summarise(np.eye(3)[[0, 1, 0, 0]], np.array([0, 1, 1, 2]), ("a", "b", "c"))
    assert metrics["accuracy"] == 0.5
    assert metrics["classes"]["a"]["precision"] == pytest.approx(1 / 3)
    assert (metrics["classes"]["c"]["precision"], metrics["classes"]["c"]["recall"]) == (None, 0)
    absent = summarise(np.eye(3)[[0, 1, 0]], np.array([0, 1, 1]), ("a", "b", "c"))["classes"]["c"]
    assert absent == {key: 0 if key == "support" else None for key in absent}


def test_the_largest_confusions_come_first() -> None:
    confusion = np.array([[5, 3, 0], [1, 7, 2], [0, 0, 4]])
    pairs = [(pair["true"], pair["predicted"], pair["images"]) for pair in most_confused(confusion, ("a", "b", "c"), 5)]
    assert pairs == [("a", "b", 3), ("b", "c", 2), ("b", "a", 1)]
    assert most_confused(confusion, ("a", "b", "c"), 1)[0]["share"] == 3 / 8


def test_a_prediction_row_by_hand() -> None:
    found = Evaluation({"logits": np.log(np.array([[0.7, 0.2, 0.1]])), "labels": np.array([1])})
    assert found.rows(preprocessing(("a", "b", "c")), ["x/y.png"])[0]["file"] == "x/y.png"
    (row,) = found.rows(preprocessing(("a", "b", "c")))
    assert row == {
        "index": 0, "true": "b", "predicted": "a", "confidence": "0.700000", "margin": "0.500000", "loss": "1.609438"
    }  # fmt: skip
