"""Multi-label metrics against scikit-learn, torchmetrics and PyTorch, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_calibration_error, multilabel_average_precision

from small_sets import preprocessing
from sprintnet.data.dataset import label_text
from sprintnet.evaluation.calibration import BINS, fit_label_temperature, label_calibration
from sprintnet.evaluation.metrics import wilson_interval
from sprintnet.evaluation.multilabel import (
    binary_cross_entropy,
    label_confidence,
    label_predictions,
    label_probabilities,
    summarise_labels,
)
from sprintnet.evaluation.ranking import ranking_scores
from sprintnet.evaluation.task import MULTI_LABEL, SINGLE_LABEL, TASKS, Evaluation
from sprintnet.training.losses import LOSSES

GENERATOR = np.random.default_rng(0)
LABELS = (GENERATOR.random((400, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]).astype(np.uint8)
LOGITS = (3 * LABELS - 1.5 + GENERATOR.normal(0, 2, LABELS.shape)).round(1).astype(np.float32)  # rounded: many are equal
NAMES = tuple("abcde")
METRICS = summarise_labels(LOGITS, LABELS, NAMES)


def test_the_overall_metrics_are_scikit_learns() -> None:
    said = LOGITS > 0
    assert METRICS["accuracy"] == accuracy_score(LABELS, said)
    assert METRICS["accuracy_interval"] == pytest.approx(wilson_interval(np.int64(METRICS["accuracy"] * 400), np.int64(400)))
    assert METRICS["hamming_loss"] == pytest.approx(hamming_loss(LABELS, said))
    assert METRICS["micro_f1"] == pytest.approx(f1_score(LABELS, said, average="micro"))
    assert METRICS["macro_f1"] == pytest.approx(f1_score(LABELS, said, average="macro"))
    assert METRICS["mean_average_precision"] == pytest.approx(average_precision_score(LABELS, LOGITS, average="macro"))
    theirs = multilabel_average_precision(torch.from_numpy(LOGITS), torch.from_numpy(LABELS).long(), 5)
    assert METRICS["mean_average_precision"] == pytest.approx(float(theirs), abs=1e-6)


def test_the_metrics_of_each_label_are_scikit_learns() -> None:
    precision, recall, f1, support = precision_recall_fscore_support(LABELS, LOGITS > 0)
    for index, row in enumerate(METRICS["classes"].values()):
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision[index], recall[index], f1[index]))
        assert row["support"] == support[index]
        hits = support[index] - row["missed"]
        assert row["recall_interval"] == pytest.approx([float(end) for end in wilson_interval(hits, support[index])])
        assert hits / (hits + row["false"]) == pytest.approx(precision[index])
        assert row["average_precision"] == pytest.approx(average_precision_score(LABELS[:, index], LOGITS[:, index]))
        assert row["roc_auc"] == pytest.approx(roc_auc_score(LABELS[:, index], LOGITS[:, index]))


@given(arrays(np.int8, st.integers(2, 30), elements=st.integers(-3, 3)), st.randoms(use_true_random=False))
def test_ranking_scores_are_scikit_learns_with_any_ties(logits: np.ndarray, random: object) -> None:
    labels = np.array([random.random() < 0.5 for _ in logits], np.uint8)  # type: ignore[attr-defined]
    precision, area = ranking_scores(logits.astype(np.float32), labels)
    if labels.any():
        assert precision == pytest.approx(average_precision_score(labels, logits))
    else:
        assert precision is None
    if 0 < labels.sum() < len(labels):
        assert area == pytest.approx(roc_auc_score(labels, logits))
    else:
        assert area is None


def test_a_label_that_no_image_has_is_left_out_of_means() -> None:
    logits, labels = np.array([[1.0, 2.0, -1.0], [2.0, 1.0, -3.0]]), np.array([[1, 0, 1], [1, 0, 0]], np.uint8)
    figures = summarise_labels(logits, labels, ("a", "b", "c"))
    assert (figures["classes"]["b"]["f1"], figures["classes"]["b"]["average_precision"]) == (None, None)
    assert figures["classes"]["b"]["false"] == 2
    assert (figures["classes"]["a"]["average_precision"], figures["classes"]["a"]["roc_auc"]) == (1, None)
    assert figures["macro_f1"] == pytest.approx((1 + 0) / 2)  # c is never answered
    assert figures["mean_average_precision"] == 1
    none = summarise_labels(-np.ones((2, 1)), np.zeros((2, 1), np.uint8), ("a",))
    assert (none["accuracy"], none["micro_f1"], none["mean_average_precision"]) == (1, None, None)


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_cross_entropy_is_pytorchs(alpha: float) -> None:
    targets = torch.from_numpy((1 - alpha) * LABELS + alpha / 2)
    expected = F.binary_cross_entropy_with_logits(torch.from_numpy(LOGITS).double(), targets, reduction="sum") / 400
    assert binary_cross_entropy(LOGITS, LABELS, alpha) == pytest.approx(float(expected), rel=1e-12)
    trained = LOSSES["multi-label"](torch.from_numpy(LOGITS), torch.from_numpy(LABELS), alpha, None)
    assert float(trained) == pytest.approx(float(expected), rel=1e-5)


def test_every_task_has_a_loss() -> None:
    assert LOSSES.keys() == TASKS.keys()


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4]], np.float32)
    assert label_probabilities(logits).tolist() == [[1, 0]]
    assert binary_cross_entropy(logits, np.array([[1, 0]])) == 0
    assert binary_cross_entropy(logits, np.array([[0, 1]])) == pytest.approx(2e4)


def test_confidence_is_the_probability_of_the_label_set() -> None:
    generator = np.random.default_rng(3)
    logits = np.array([[0.3, -1.2, 2.0]])
    drawn = generator.random((20_000, 3)) < 1 / (1 + np.exp(-logits))
    right = (drawn == label_predictions(logits)).all(axis=1).mean()
    assert label_confidence(logits)[0] == pytest.approx(right, abs=0.015)


def test_a_prediction_row_by_hand() -> None:
    p = np.array([[0.9, 0.2, 0.6]])
    found = Evaluation({"logits": np.log(p / (1 - p)), "labels": np.array([[1, 1, 0]], np.uint8)})
    (row,) = found.rows(preprocessing(("a", "b", "c"), task="multi-label"), ["x/y.png"])
    assert row == {
        "index": 0,
        "file": "x/y.png",
        "true": "a|b",
        "predicted": "a|c",
        "confidence": f"{0.9 * 0.8 * 0.6:.6f}",
        "margin": f"{0.9 * 0.8 * (0.6 - 0.4):.6f}",  # the second most probable label set lacks c
        "loss": f"{-np.log(0.9 * 0.2 * 0.4):.6f}",
        "probabilities": "0.900000|0.200000|0.600000",
    }


def test_the_calibration_of_pairs_is_torchmetrics() -> None:
    found = label_calibration(LOGITS, LABELS)
    probabilities = torch.from_numpy(label_probabilities(LOGITS)).flatten()
    expected = binary_calibration_error(probabilities, torch.from_numpy(LABELS).flatten().long(), n_bins=BINS)
    assert found["ece"] == pytest.approx(float(expected), abs=1e-6)
    assert sum(row["images"] for row in found["reliability"]) == LABELS.size
    assert found["nll"] == METRICS["cross_entropy"]
    assert found["brier"] == pytest.approx(float(F.mse_loss(probabilities, torch.from_numpy(LABELS).flatten().double())) * 5)


def test_the_temperature_is_the_minimum_of_the_cross_entropy_with_platts_targets() -> None:
    there, absent = int(LABELS.sum()), int((1 - LABELS).sum())
    targets = torch.from_numpy(np.where(LABELS == 1, (there + 1) / (there + 2), 1 / (absent + 2)))

    def loss(temperature: float) -> float:
        return float(F.binary_cross_entropy_with_logits(torch.from_numpy(LOGITS).double() / temperature, targets))

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x
    assert fit_label_temperature(LOGITS, LABELS) == pytest.approx(best, rel=1e-3)
    assert fit_label_temperature(2 * LOGITS, LABELS) == pytest.approx(2 * best, rel=1e-3)


def test_true_probabilities_are_calibrated_and_the_temperature_corrects_doubled_logits() -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(-1, 1.5, (10_000, 4))
    labels = (generator.random(logits.shape) < label_probabilities(logits)).astype(np.uint8)
    assert label_calibration(logits, labels)["ece"] < 0.01
    temperature = fit_label_temperature(2 * logits, labels)
    assert temperature == pytest.approx(2, rel=0.05)
    before, after = label_calibration(2 * logits, labels), label_calibration(2 * logits / temperature, labels)
    assert before["ece"] > 0.05 > 0.01 > after["ece"]
    assert before["nll"] > after["nll"]


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_a_tasks_tensors_and_arrays_agree(task: object) -> None:
    labels = LABELS if task is MULTI_LABEL else LABELS.argmax(axis=1)
    tensors = torch.from_numpy(LOGITS), torch.from_numpy(labels)
    hits = task.correct_mask(LOGITS, labels)  # type: ignore[attr-defined]
    assert task.correct(*tensors).tolist() == hits.tolist()  # type: ignore[attr-defined]
    assert task.accuracy(LOGITS, labels) == task.summarise(LOGITS, labels, NAMES)["accuracy"]  # type: ignore[attr-defined]
    members = task.membership(labels, 5)  # type: ignore[attr-defined]
    assert label_text(labels, NAMES)[3] == "|".join(np.array(NAMES)[members[3]])
    probabilities = task.activate(tensors[0]).numpy()  # type: ignore[attr-defined]
    said = task.membership(task.predictions(LOGITS), 5)  # type: ignore[attr-defined]
    assert (said == (probabilities > 0.5 if task is MULTI_LABEL else said)).all()
    whole = np.where(said, probabilities, 1 - probabilities).prod(axis=1)
    expected = whole if task is MULTI_LABEL else probabilities.max(axis=1)
    np.testing.assert_allclose(task.confidence(LOGITS), expected, rtol=1e-5)  # type: ignore[attr-defined]
