"""Fixtures: a tiny exported run."""

import shutil
from pathlib import Path

import pytest

from conftest import TINY, call


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, exported."""
    folder = tmp_path_factory.mktemp("faults")
    for words in (["train", "davidnet", *TINY, "--name", "R", "--no-report"], ["export", "runs/train/R"]):
        done = call(folder, *words)
        assert done.returncode == 0, done.stderr
    return folder / "runs" / "train" / "R"


@pytest.fixture(scope="session")
def small_model(small_run: Path) -> Path:
    """Its model.onnx."""
    return small_run / "export" / "model.onnx"


@pytest.fixture
def copied_run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    shutil.copytree(small_run, tmp_path / "runs" / "train" / "R")
    return tmp_path / "runs" / "train" / "R"
