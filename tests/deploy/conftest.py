"""Two small networks of the sample, exported once for all tests."""

from pathlib import Path

import pytest

from conftest import TINY
from sprintnet import pipeline
from sprintnet.config import load_config
from sprintnet.deploy.export import export
from sprintnet.run import RunFolder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """Runs by the name of their network, exported in fp32; sprintnet's held images out for its temperature."""
    runs = {}
    for name, more in {"davidnet": [], "sprintnet": ["model.width=8", "data.val=0.2"]}.items():
        run = RunFolder(tmp_path_factory.mktemp(name) / "run")
        pipeline.train(load_config("davidnet", [*TINY, f"model.name={name}", *more]), run)
        export(run.path)
        runs[name] = run
    return runs


@pytest.fixture
def model(exported: dict[str, RunFolder]) -> Path:
    """davidnet's file."""
    return exported["davidnet"].export / "model.onnx"
