"""What training keeps for figures: images under their classes, the surest errors or the least sure, the schedule that ran."""

import json
from pathlib import Path

import numpy as np
import pytest

from sprintnet.api import Model
from sprintnet.config import load_config
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits
from sprintnet.models.factory import load_model
from sprintnet.runs.folder import RunFolder, read_arrays, read_json
from sprintnet.training.schedule import Schedule
from sprintnet.training.train import train

STILL = ["augment.crop_padding=0", "augment.flip=0", "augment.affine=0", "augment.cutout=0"]


@pytest.mark.parametrize("overrides", [[], STILL])
def test_evidence_is_of_the_runs_own_data(tmp_path: Path, tiny: list[str], overrides: list[str]) -> None:
    config = load_config("davidnet", [*tiny, "data.val=0.2", *overrides])
    run = RunFolder(tmp_path / "run")
    train(config, run)
    kept, splits = read_arrays(run.artifacts), load_splits(config.data)
    assert tuple(kept["classes"]) == splits["train"].classes
    for name, part in splits.items():
        assert kept[f"counts_{name}"].tolist() == np.bincount(part.labels, minlength=10).tolist()
    for image, label in zip(kept["originals"], kept["original_labels"], strict=True):
        same = (splits["train"].images == image).all(axis=(1, 2, 3))
        assert label in splits["train"].labels[same]
    is_same = [np.array_equal(variant, kept["originals"]) for variant in kept["augmented"]]
    assert is_same == [bool(overrides)] * 3
    logits = read_arrays(run.predictions)["val_logits"]
    confidence = load_model(run.weights).preprocessing.probabilities(logits).max(axis=1)
    wrong = kept["error_index"]
    assert set(wrong) == set(np.flatnonzero(logits.argmax(axis=1) != splits["val"].labels))
    assert (np.diff(confidence[wrong]) <= 1e-6).all()
    assert np.array_equal(kept["error_images"], splits["val"].images[wrong])
    assert np.array_equal(kept["error_labels"], splits["val"].labels[wrong])
    assert len(wrong)
    assert not len(kept["unsure_images"])
    schedule = Schedule(config.schedule, config.epochs)
    at_starts = np.interp(range(config.epochs), kept["schedule_epoch"], kept["schedule_lr"])
    assert at_starts == pytest.approx([config.peak_lr * schedule.lr_factor(epoch) for epoch in range(config.epochs)])
    network = read_json(run.network)
    assert sum(layer["parameters"] for layer in network["layers"]) == network["parameters"]
    assert network["layers"][-1]["shape"] == [10]


def test_where_none_is_wrong_the_least_confident_predictions_are_explained(tmp_path: Path, tiny: list[str]) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = (generator.integers(0, 60, (80, 32, 32, 3)) + 180 * labels[:, None, None, None]).astype(np.uint8)  # dark, bright
    dataset = ImageDataset(images, labels, ("dark", "bright"))
    splits = {"train": dataset, "val": dataset}
    run = RunFolder(tmp_path / "run")
    result = train(load_config("davidnet", [*tiny, "epochs=20", "batch_size=20"]), run, splits=splits)
    assert result.metrics["val"]["accuracy"] == 1
    kept = read_arrays(run.artifacts)
    assert not len(kept["error_index"])
    unsure = [int(np.flatnonzero((images == image).all(axis=(1, 2, 3)))[0]) for image in kept["unsure_images"]]
    assert len(set(unsure)) == 16
    confidence = result.model.preprocessing.probabilities(read_arrays(run.predictions)["val_logits"]).max(axis=1)
    assert confidence[unsure].max() <= np.delete(confidence, unsure).min() + 1e-6
    Model(result.model, run, splits).report()
    explained = json.loads(str(read_arrays(run.explanations)["facts"]))
    assert explained["none_wrong"]
    assert [row["predicted"] for row in explained["predictions"]] == [("dark", "bright")[label] for label in labels[unsure]]
    assert "least confident predictions, of which none is wrong" in run.report.read_text("utf-8")
