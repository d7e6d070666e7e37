"""The weights of the repository are those whose digest and accuracy are written beside them, and predict without training."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from conftest import SAMPLE
from sprintnet.deploy.predictor import Predictor

WEIGHTS = Path(__file__).parents[2] / "weights"
FILES = sorted(WEIGHTS.glob("*.onnx"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_file_is_as_described_and_right_about_most_of_the_sample(file: Path) -> None:
    digests = dict(line.split()[::-1] for line in (WEIGHTS / "SHA256SUMS").read_text().splitlines())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digests[file.name]
    assert file.stat().st_size < 10_000_000
    described = json.loads(file.with_suffix(".json").read_text())["metrics"]
    low, high = described["accuracy_interval"]
    row = next(line for line in (WEIGHTS / "README.md").read_text("utf-8").splitlines() if f"`{file.name}` |" in line)
    assert f"{100 * described['accuracy']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})" in row
    assert f"{100 * described['ece']:.2f} %" in row
    images = sorted((SAMPLE / "test").glob("*/*.png"))
    predictor = Predictor(file)
    right = np.array(predictor(images).labels) == [image.parent.name for image in images]
    assert right.mean() >= 0.85  # 100 images: below it by chance once in 800 files of this accuracy
    assert predictor.metadata["metrics"]["accuracy"] == described["accuracy"]
