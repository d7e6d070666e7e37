"""Distillation: what is trained towards, by its formula; whole trainings of one from several; refusals."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special
from torch.nn import functional as F

import sprintnet as sn
from conftest import SAMPLE, TINY, Command, call
from sprintnet.config import load_config
from sprintnet.data.load import load_splits
from sprintnet.errors import SettingsError
from sprintnet.evaluation.trained_model import load
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runtime import select_runtime
from sprintnet.training.distill import soft_labels
from sprintnet.training.losses import cross_entropy
from sprintnet.training.settings import DistillSettings

CPU = select_runtime("cpu", "fp32", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two seeds, and the ensemble of them."""
    folder = tmp_path_factory.mktemp("distill")
    done = call(folder, "study", "davidnet", "--seeds", "2", "--name", "some", "precision=fp32", *TINY)
    assert done.returncode == 0, done.stderr
    with contextlib.chdir(folder):
        sn.ensemble("some")
    return folder


def test_targets_are_the_labels_and_the_teacher_by_weight(place: Path) -> None:
    path = place / "runs" / "train" / "some-ensemble"
    images = load_splits(load_config(path / "config.toml").data, lambda line: None)["train"]
    found = soft_labels(DistillSettings(str(path), weight=0.3, temperature=2.0), images, CPU)
    assert found is not None
    teacher = load(path)
    calibrated = teacher.preprocessing.calibrated(teacher.predict_logits(images.images))
    probabilities = special.softmax(calibrated / 2.0, axis=1)
    expected = 0.3 * probabilities + 0.7 * np.eye(10)[images.labels]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(len(images)))
    with contextlib.chdir(place):
        by_name = soft_labels(DistillSettings("some-ensemble", weight=0.3, temperature=2.0), images, CPU)
    assert by_name is not None
    assert torch.equal(by_name, found)


def test_soft_labels_that_are_hard_give_the_loss_of_labels() -> None:
    logits, labels = torch.randn(7, 4), torch.arange(7) % 4
    weights = torch.tensor([0.5, 1.0, 1.5, 1.0])
    for class_weights in (None, weights):
        soft = cross_entropy(logits, F.one_hot(labels, 4).float(), 0.2, class_weights)
        torch.testing.assert_close(soft, cross_entropy(logits, labels, 0.2, class_weights))


def test_class_weights_of_soft_labels_are_their_mean() -> None:
    logits, labels, weights = torch.randn(6, 3), torch.rand(6, 3).softmax(1), torch.tensor([0.5, 1.0, 1.5])
    losses = -(labels * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(cross_entropy(logits, labels, 0.0, weights), (losses * (labels * weights).sum(1)).mean())


def test_a_study_of_students_is_trained_towards_the_ensemble(place: Path) -> None:
    settings = ["precision=fp32", *TINY, "distill.teacher=runs/train/some-ensemble"]
    done = call(place, "study", "davidnet", "--seeds", "2", "--name", "students", *settings)
    assert done.returncode == 0, done.stderr
    plain, student = (RunFolder(place / "runs" / "study" / name / "seed-0") for name in ("some", "students"))
    assert read_json(plain.metrics)["parameters"] == read_json(student.metrics)["parameters"]
    assert read_json(plain.metrics)["val"]["cross_entropy"] != read_json(student.metrics)["val"]["cross_entropy"]
    digest = read_json(student.environment)["teacher_sha256"]
    assert len(digest) == 64 and read_json(plain.environment)["teacher_sha256"] is None


def test_without_weight_the_teacher_says_nothing(place: Path) -> None:
    settings = ["precision=fp32", *TINY, "distill.teacher=runs/train/some-ensemble", "distill.weight=0"]
    assert call(place, "train", "davidnet", "--name", "alone", "--no-report", *settings).returncode == 0
    plain, student = (place / "runs" / kind for kind in ("study/some/seed-0", "train/alone"))
    first, second = (load(path).model.state_dict() for path in (plain, student))
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("runs/train/nothing", "there is no such run or file; name a run"),
        (".", "holds neither weights.safetensors nor model.safetensors"),
        ("some.onnx", "is an ONNX file, which only predicts"),
        (
            "runs/train/some-ensemble",
            r"its image_shape is \(32, 32, 3\), the data's \(16, 16, 3\); name a model of the same data",
        ),
    ],
)
def test_a_teacher_of_other_data_is_refused(place: Path, teacher: str, message: str) -> None:
    classes = [entry.name for entry in sorted((SAMPLE / "train").iterdir())]
    data = sn.from_arrays(
        np.random.default_rng(0).integers(0, 255, (100, 16, 16, 3), np.uint8), np.arange(100) % 10, classes=classes
    )
    with pytest.raises(SettingsError, match=message):
        soft_labels(DistillSettings(str(place / teacher)), data.train, CPU)


def test_the_command_names_the_setting(sprintnet: Command, tiny: list[str]) -> None:
    done = sprintnet("train", "davidnet", "distill.teacher=nothing", *tiny)
    assert done.returncode == 2
    assert done.stderr.startswith("sprintnet: distill.teacher=nothing: ")
