"""Calibration against torchmetrics, scikit-learn and SciPy, then properties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from sprintnet.evaluation.calibration import BINS, calibration, coverage_table, fit_temperature
from sprintnet.evaluation.metrics import cross_entropy, log_probabilities

GENERATOR = np.random.default_rng(0)
COUNT = 2000
LABELS = GENERATOR.integers(0, 10, COUNT)
LOGITS = (3 * np.eye(10)[LABELS] + GENERATOR.normal(0, 2, (COUNT, 10))).astype(np.float32)
PROBABILITIES = np.exp(log_probabilities(LOGITS))


def test_ece_is_torchmetrics() -> None:
    expected = multiclass_calibration_error(torch.from_numpy(PROBABILITIES), torch.from_numpy(LABELS), 10, n_bins=BINS)
    assert calibration(LOGITS, LABELS)["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_nll_and_brier_are_scikit_learns_and_by_hand() -> None:
    found = calibration(LOGITS, LABELS)
    assert found["nll"] == pytest.approx(log_loss(LABELS, PROBABILITIES))
    squares = [(PROBABILITIES[i] ** 2).sum() - 2 * PROBABILITIES[i, label] + 1 for i, label in enumerate(LABELS)]
    assert found["brier"] == pytest.approx(np.mean(squares))


def test_the_reliability_rows_are_the_bins_of_ece() -> None:
    found = calibration(LOGITS, LABELS)
    filled = [row for row in found["reliability"] if row["images"]]
    assert sum(row["images"] for row in found["reliability"]) == COUNT
    gaps = sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in filled)
    assert found["ece"] == pytest.approx(gaps / COUNT)
    for index, row in enumerate(found["reliability"]):
        assert row["confidence"] is None or index / BINS <= row["confidence"] <= (index + 1) / BINS


def test_adaptive_bins_have_equal_counts() -> None:
    order = np.argsort(PROBABILITIES.max(axis=1), kind="stable")
    hits = (LOGITS.argmax(axis=1) == LABELS).astype(float)
    parts = np.array_split(order, BINS)
    expected = sum(abs((PROBABILITIES.max(axis=1)[part] - hits[part]).sum()) for part in parts) / COUNT
    assert calibration(LOGITS, LABELS)["adaptive_ece"] == pytest.approx(expected, abs=2e-3)


def test_the_temperature_is_the_minimum_of_the_nll_with_platts_targets() -> None:
    doubt, classes = 1 / (COUNT + 2), LOGITS.shape[1]
    targets = np.where(np.eye(classes)[LABELS] == 1, 1 - doubt, doubt / (classes - 1))

    def nll(temperature: float) -> float:
        return float(-(targets * log_probabilities(LOGITS / temperature)).sum())

    best = minimize_scalar(nll, bounds=(0.05, 20), method="bounded").x
    assert fit_temperature(LOGITS, LABELS) == pytest.approx(best, rel=1e-3)
    bare = minimize_scalar(lambda t: cross_entropy(LOGITS / t, LABELS), bounds=(0.05, 20), method="bounded").x
    assert best == pytest.approx(bare, rel=20 * doubt)


@given(st.floats(0.1, 10))
def test_the_temperature_scales_with_the_logits(factor: float) -> None:
    assert fit_temperature(LOGITS * factor, LABELS) == pytest.approx(factor * fit_temperature(LOGITS, LABELS), rel=1e-3)


def test_true_probabilities_are_calibrated_and_the_temperature_corrects_doubled_logits() -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 1.5, (20_000, 5))
    probabilities = np.exp(log_probabilities(logits))
    labels = (probabilities.cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1)  # drawn from those probabilities
    assert calibration(logits, labels)["ece"] < 0.015
    temperature = fit_temperature(2 * logits, labels)
    assert temperature == pytest.approx(2, rel=0.05)
    before, after = calibration(2 * logits, labels), calibration(2 * logits / temperature, labels)
    assert before["ece"] > 0.1 > 0.015 > after["ece"]
    assert before["nll"] > after["nll"]


def test_a_few_correct_predictions_do_not_give_infinite_certainty() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(2 / np.log(3))  # of two, three in four
    many = np.tile(logits, (500, 1))
    assert np.exp(log_probabilities(many / fit_temperature(many, np.tile([0, 1], 500)))).max() == pytest.approx(1001 / 1002)


def test_few_images_have_one_row_for_each_number_of_them() -> None:
    rows = coverage_table(np.linspace(0.1, 0.9, 4), np.array([True, False, True, True]))
    assert [row["coverage"] for row in rows] == [1, 0.75, 0.5]


def test_selective_prediction_keeps_the_most_confident() -> None:
    confidence, hits = PROBABILITIES.max(axis=1), LOGITS.argmax(axis=1) == LABELS
    rows = coverage_table(confidence, hits)
    assert rows[0]["accuracy"] == pytest.approx(hits.mean())
    for row in rows:
        answered = confidence >= row["confidence"]
        assert answered.mean() == pytest.approx(row["coverage"], abs=1e-3)
        assert hits[answered].mean() == pytest.approx(row["accuracy"], abs=1e-3)
    assert rows[-1]["accuracy"] > rows[0]["accuracy"]
