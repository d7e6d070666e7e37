"""Metrics against PyTorch's own functions and by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sprintnet.evaluation.metrics import confusion_matrix, cross_entropy, log_probabilities, summarise, top_k_accuracy

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(0, 3, (200, 10)).astype(np.float32)
LABELS = GENERATOR.integers(0, 10, 200)


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


def test_a_class_without_images_has_no_accuracy() -> None:
    figures = summarise(np.eye(3)[[0, 1, 0]], np.array([0, 1, 1]), ("a", "b", "c"))
    assert figures["class_accuracy"] == {"a": 1.0, "b": 0.5, "c": None}
    assert figures["accuracy"] == pytest.approx(2 / 3)
