"""Training on CUDA, as far as it can be tested without a GPU: on fake tensors no step mixes devices, waits or copies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
MAX_OPERATIONS = {"fp32": 185, "bf16": 205, "fp16": 230}
"""Operations of a step of sprint94 that would launch kernels; SiLU's gradient, one kernel on CUDA, counts as six here."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pretended CUDA, compiled."""
    if shutil.which("g++") is None:
        if os.environ.get("CI"):
            pytest.fail("no g++: .ci/run installs it")
        pytest.skip("no g++: apt-get install g++")
    file, package = tmp_path_factory.mktemp("cuda") / "pretended_cuda.so", Path(torch.__file__).parent
    options = ["-std=c++20", "-O0", "-shared", "-fPIC", f"-I{package / 'include'}", f"-L{package / 'lib'}"]
    libraries = [f"-Wl,-rpath,{package / 'lib'}", "-ltorch_cpu", "-lc10"]
    subprocess.run(["g++", *options, str(HERE / "pretended_cuda.cpp"), *libraries, "-o", str(file)], check=True)
    return file


def parts(library: Path, recipe: str, precision: str, *more: str) -> dict[str, Any]:
    """Returns what each part of training does."""
    command = [sys.executable, str(HERE / "fake_steps.py"), str(library), recipe, precision, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def steps(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the parts that are repeated in every step."""
    return {name: part for name, part in found.items() if name.startswith(("batch", "resize", "step"))}


@pytest.mark.parametrize(
    ("recipe", "precision", "data"),
    [
        ("sprint94", "fp16", "cifar10"),
        ("sprint94", "bf16", "cifar10"),
        ("sprint94", "fp32", "custom"),
        ("davidnet", "fp16", "cifar10"),
        ("davidnet", "bf16", "custom"),
    ],
)
def test_a_step_stays_on_the_device_and_never_waits(library: Path, recipe: str, precision: str, data: str) -> None:
    found = parts(library, recipe, precision, "--data", data)
    assert {name: part["error"] for name, part in found.items() if part.get("error")} == {}
    for name, part in steps(found).items():
        assert (part["waits"], part["copies"]) == (None, {}), name
    assert found["batch"]["is_channels_last"]
    assert found["gradients"]["in_layout_of_weights"]
    assert found["TTA"]["waits"] is None
    if recipe == "sprint94":
        operations = max(part["operations"] for name, part in found.items() if name.startswith("step"))
        assert 50 < operations <= MAX_OPERATIONS[precision]


@pytest.mark.parametrize("fault", ["host wait", "two devices", "copy", "operations"])
def test_planted_faults_are_found(library: Path, fault: str) -> None:
    found = steps(parts(library, "sprint94", "bf16", "--plant", fault))
    step = next(part for name, part in found.items() if name.startswith("step"))
    assert {
        "host wait": step["waits"] is not None,
        "two devices": "device" in (step["error"] or ""),
        "copy": step["copies"] != {},
        "operations": step["operations"] > MAX_OPERATIONS["bf16"],
    }[fault]
