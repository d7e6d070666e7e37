"""The runtime: what a machine without a GPU is told, and that freed memory is kept."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from sprintnet import runtime
from sprintnet.config import load_config
from sprintnet.errors import SettingsError
from sprintnet.runs.environment import cpu_flags
from sprintnet.runs.folder import RunFolder
from sprintnet.training.train import train

FAULTS = """
import resource, torch
from sprintnet import runtime
if {keep}:
    runtime.start("cpu", "fp32", 1, 0)
def churn():
    torch.ones(16 * 2**20)  # 64 MiB, freed at once
for _ in range(30):  # until the heap has all the memory that it will ever take
    churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_memory_that_is_freed_is_not_faulted_in_again() -> None:
    def faults(keep: bool) -> int:
        command = [sys.executable, "-c", FAULTS.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults(keep=True) < faults(keep=False) / 10


def test_precision_follows_what_the_processor_has() -> None:
    chosen = runtime.start("cpu", "auto", 0, 0).precision
    assert chosen == ("bf16" if cpu_flags() & {"amx_bf16", "avx512_bf16"} else "fp32")
    assert runtime.start("cpu", "fp32", 0, 0).precision == "fp32"


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="device=cuda: PyTorch sees no GPU here"):
        runtime.start("cuda", "auto", 0, 0)


def test_training_works_outside_the_main_thread_too(tmp_path: Path, tiny: list[str]) -> None:
    metrics: list[dict[str, object]] = []
    config = load_config("davidnet", [*tiny, "epochs=1"])
    thread = threading.Thread(target=lambda: metrics.append(train(config, RunFolder(tmp_path / "run"))))
    thread.start()
    thread.join()
    assert metrics[0]["epochs"] == 1
