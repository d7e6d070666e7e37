"""Predictions with PyTorch from a run without an export: equal to those of its exported file."""

from pathlib import Path

import numpy as np
import pytest

from conftest import SAMPLE
from sprintnet.data.dataset import ImageDataset
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.run_predictor import RunPredictor
from sprintnet.errors import DataError, SettingsError
from sprintnet.runs.folder import RunFolder


def test_a_run_predicts_as_its_export(exported: dict[str, RunFolder], test_set: ImageDataset) -> None:
    run = exported["davidnet"]
    found, expected = RunPredictor(run.path)(test_set.images), Predictor(run.export / "model.onnx")(test_set.images)
    assert (found.classes, found.threshold, found.activation_maps) == (expected.classes, None, None)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    assert found.logits == pytest.approx(expected.logits, abs=1e-2)


def test_multi_label_predictions_have_the_threshold(labelled: RunFolder) -> None:
    files = sorted(labelled.path.parents[2].glob("test-*.png"))
    predictor = RunPredictor(labelled.path)
    assert predictor.threshold == 0.5
    assert predictor(files).labels == Predictor(labelled.export / "model.onnx")(files).labels


def test_images_of_any_size_and_none(exported: dict[str, RunFolder]) -> None:
    predictor = RunPredictor(exported["davidnet"].path)
    sizes = [np.full((height, width, 3), 128, np.uint8) for height, width in ((32, 32), (10, 70), (200, 100))]
    found = predictor(sizes, batch=2)
    assert found.probabilities == pytest.approx(np.repeat(found.probabilities[:1], 3, axis=0), abs=1e-5)
    assert found.probabilities.sum(axis=1) == pytest.approx(1)
    assert predictor([]).probabilities.shape == (0, 10)


def test_errors_name_the_file_or_the_folder(exported: dict[str, RunFolder], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        RunPredictor(exported["davidnet"].path)([next((SAMPLE / "test").rglob("*.png")), tmp_path / "none.png"])
    with pytest.raises(SettingsError, match=str(tmp_path)):
        RunPredictor(tmp_path)
