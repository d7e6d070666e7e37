"""What training keeps for figures: real images under their classes, the surest errors first, the schedule that ran."""

from pathlib import Path

import numpy as np
import pytest

from sprintnet.config import load_config
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
    schedule = Schedule(config.schedule, config.epochs)
    at_starts = np.interp(range(config.epochs), kept["schedule_epoch"], kept["schedule_lr"])
    assert at_starts == pytest.approx([config.peak_lr * schedule.lr_factor(epoch) for epoch in range(config.epochs)])
    network = read_json(run.network)
    assert sum(layer["parameters"] for layer in network["layers"]) == network["parameters"]
    assert network["layers"][-1]["shape"] == [10]
