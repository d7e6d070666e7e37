"""The scripts that train: a peer's seed, rounds that are kept, raw values beside summaries."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mosaics
import record
import side_by_side
import verify_row
from sprintnet.errors import VerificationError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SAMPLE = Path(__file__).parents[1] / "sample"
PEER = """
import torch
from time import perf_counter

class CifarNet(torch.nn.Module):
    def forward(self, images):
        return images

def print_training_details(variables, is_final_entry):
    pass

def main(run, model):
    tta_val_acc, time_seconds, epoch = torch.rand(()).item(), 1.0, "eval"
    print_training_details(locals(), is_final_entry=True)

if __name__ == "__main__":
    model = None
    main("warmup", model)
    accs = [main(run, model) for run in range(200)]
"""
OLDER_PEER = """
import torch

def make_net():
    return torch.nn.Sequential(torch.nn.Linear(8, 4)).half().cuda()

def print_training_details(variables, is_final_entry):
    pass

def main(run, gpu=0):
    accuracy, model = torch.rand(()).item(), torch.compile(make_net(), mode="max-autotune")
    images = torch.ones(2, 8).to(torch.device(gpu)).cuda().half()
    assert model._orig_mod[0].weight.dtype is model(images).dtype is torch.float32
    tta_val_acc, total_time_seconds, epoch = accuracy, 1.0, "eval"
    print_training_details(locals(), is_final_entry=True)

if __name__ == "__main__":
    accs = [main(run) for run in range(25)]
"""
"""One whose network comes from a function and is compiled."""


def test_summaries_keep_the_value_of_each_seed() -> None:
    assert record.spread([0.93, 0.95]) == {"mean": 0.94, "sd": pytest.approx(0.02 / 2**0.5), "values": [0.93, 0.95]}
    assert record.spread([0.93])["sd"] is None
    tta = record.tta_metrics([{"accuracy": 0.9, "seconds": 5.0, "cross_entropy": 1.0}, {"accuracy": 0.8, "seconds": 6.0}])
    assert tta is not None
    assert {key: summary["values"] for key, summary in tta.items()} == {"accuracy": [0.9, 0.8], "seconds": [5.0, 6.0]}


@pytest.fixture
def peer(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A script like the peers'."""
    script = tmp_path / "peer_script.py"
    script.write_text(getattr(request, "param", PEER), "utf-8")
    return script


@pytest.mark.skipif(torch.cuda.is_available(), reason="the script is for CUDA events on a GPU")
@pytest.mark.parametrize("peer", [PEER, OLDER_PEER], indirect=True, ids=["a class", "a function"])
def test_a_peer_takes_a_seed_for_each_training(peer: Path) -> None:
    command = [sys.executable, BENCHMARKS / "peer.py", peer, "--seeds", "7", "9", "--data", SAMPLE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["accuracy"] for line in done.stdout.splitlines() if line.startswith('{"accuracy"')]
    assert found == [torch.rand((), generator=torch.Generator().manual_seed(seed)).item() for seed in (7, 9)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a rehearsal on a CPU")
def test_the_measurements_on_a_gpu_are_rehearsed(peer: Path, tmp_path: Path) -> None:
    parts = ["tests", "steps", "compile", "cold", "study", "beside", "davidnet"]
    command = [sys.executable, BENCHMARKS / "gpu.py", *parts, "--peers", peer.parent, "--results", "all.tar.gz", "--rehearse"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    results = tmp_path / "runs" / "gpu"
    assert done.returncode == 0, "\n".join([done.stdout, *(file.read_text("utf-8") for file in results.glob("*.txt"))])
    rows = {file.stem: file.read_text("utf-8").splitlines() for file in results.glob("*.jsonl")}
    assert {name: len(lines) for name, lines in rows.items()} == {
        "gpu-steps": 8, "sprint94-gpu": 1, "side-by-side": 1, "davidnet-24-epochs-gpu": 1,
    }  # fmt: skip
    together = json.loads(rows["side-by-side"][0])
    assert (together["peer"], together["recipe"], together["peer_runs"][0]["seconds"]) == ("peer_script", "sprint94", 1.0)
    assert "self_cpu_time" in (results / "operations-davidnet.txt").read_text("utf-8").lower().replace(" ", "_")
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        kept = archive.getnames()
    assert {"runs/study/gpu-sprint94/seed-1/metrics.json", "runs/gpu/compile.txt", "runs/gpu/compiled"} <= set(kept)


@pytest.mark.skipif(torch.cuda.is_available(), reason="without a GPU")
def test_without_a_gpu_nothing_is_measured(peer: Path, tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "gpu.py", "study", "--peers", peer.parent, "--results", "all.tar.gz"]
    named = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "has none of airbench94_muon.py, cifar10_speedrun.py; download them into it" in named.stderr
    peer.rename(peer.with_name("airbench94_muon.py"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "PyTorch sees no GPU with CUDA here; add --rehearse" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_comparison_keeps_its_finished_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Side:
        """A side whose trainings take no time."""

        def __init__(self, name: str, command: list[str]):
            self.name = name

        def train(self, seed: int) -> dict[str, float]:
            if self.name == "peer" and seed == 5:
                raise KeyboardInterrupt
            return {"seed": seed, "accuracy": 0.9, "seconds": 30.0 if self.name == "peer" else 10.0}

        def close(self) -> None:
            closed.append(self.name)

    closed: list[str] = []
    monkeypatch.setattr(side_by_side, "Side", Side)
    output = tmp_path / "rows.jsonl"
    command = ["side_by_side.py", "sprint94", "peer.py", "--rounds", "9", "--seed", "3", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(KeyboardInterrupt):
        side_by_side.main()
    rows = list(map(json.loads, output.read_text("utf-8").splitlines()))
    assert [(row["n"], row["peer_runs"][0]["seed"], row["recipe_runs"][0]["seed"]) for row in rows] == [(1, 3, 3), (1, 4, 4)]
    assert {row["ratio_of_median_seconds"] for row in rows} == {3.0}
    assert closed == ["peer", "sprint94"]


def test_mosaics_keep_every_byte(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, 10_000 * 3073, np.uint8).tobytes()
    mosaics.pack(content, tmp_path / "test_batch.bin")
    assert mosaics.unpack(tmp_path / "test_batch.webp") == content


def test_a_recipe_without_tta_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["side_by_side.py", "davidnet", "peer.py"])
    with pytest.raises(SystemExit):
        side_by_side.main()
    assert "davidnet has no TTA" in capsys.readouterr().err


ROW: dict[str, Any] = {"n": 3, "seeds": [4, 5, 6], "tta": None, **dict.fromkeys(record.SHARED, "x")}
ROW["test_accuracy"] = {"mean": 0.94, "sd": 0.001, "values": [0.94, 0.939, 0.941]}


@pytest.mark.parametrize(
    ("accuracy", "changes", "conditions", "said"),
    [
        (0.939, {}, {}, "test accuracy 93.90%, in the row 93.90%"),
        (0.9401, {}, {}, None),  # the same code, processor and threads must give the same
        (0.9401, {}, {"code_sha256": "y"}, "other code_sha256: the row's 3 seeds predict"),
        (0.5, {}, {"code_sha256": "y"}, None),
        (0.9401, {"test_accuracy": {"mean": 0.94, "sd": 0.001}}, {"processor": "y"}, "the row's mean 94.00%; other processor"),
        (0.5, {"n": 1, "seeds": [5]}, {"cpu": "y"}, "one seed gives no interval: not compared"),
    ],
)
def test_a_row_is_verified_by_training_one_of_its_seeds_again(
    accuracy: float, changes: dict[str, Any], conditions: dict[str, str], said: str | None
) -> None:
    here = {**dict.fromkeys(record.SHARED, "x"), **conditions}
    row = {**ROW, **changes}
    if row["n"] == 1:
        row["test_accuracy"] = {"mean": 0.94, "sd": None, "values": [0.94]}
    if said is None:
        with pytest.raises(VerificationError, match="test accuracy"):
            verify_row.verify(row, 5, {"test": {"accuracy": accuracy}}, here)
    else:
        (line,) = verify_row.verify(row, 5, {"test": {"accuracy": accuracy}}, here)
        assert said in line
