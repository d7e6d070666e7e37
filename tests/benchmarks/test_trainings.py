"""The scripts that train: a peer's seed, rounds that are kept, raw values beside summaries."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import record
import side_by_side
import verify_row
from sprintnet.errors import VerificationError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
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


def test_summaries_keep_the_value_of_each_seed() -> None:
    assert record.spread([0.93, 0.95]) == {"mean": 0.94, "sd": pytest.approx(0.02 / 2**0.5), "values": [0.93, 0.95]}
    assert record.spread([0.93])["sd"] is None
    tta = record.tta_metrics([{"accuracy": 0.9, "seconds": 5.0, "cross_entropy": 1.0}, {"accuracy": 0.8, "seconds": 6.0}])
    assert tta is not None
    assert {key: summary["values"] for key, summary in tta.items()} == {"accuracy": [0.9, 0.8], "seconds": [5.0, 6.0]}


@pytest.mark.cifar10
@pytest.mark.skipif(torch.cuda.is_available(), reason="the script is for CUDA events on a GPU")
def test_a_peer_takes_a_seed(tmp_path: Path) -> None:
    script = tmp_path / "peer_script.py"
    script.write_text(PEER, "utf-8")
    command = [sys.executable, BENCHMARKS / "peer.py", script, "--runs", "2", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    torch.manual_seed(7)
    assert [run["accuracy"] for run in found["runs"]] == [torch.rand(()).item(), torch.rand(()).item()]


def test_an_interrupted_comparison_keeps_its_finished_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_peer(script: Path, seed: int, warm_ups: int) -> dict[str, float]:
        if seed == 5:
            raise KeyboardInterrupt
        return {"seed": seed, "accuracy": 0.9, "seconds": 30.0}

    monkeypatch.setattr(side_by_side, "train_peer", train_peer)  # a training takes minutes
    run = {"seed": 0, "accuracy": 0.9, "seconds": 10.0}
    monkeypatch.setattr(side_by_side, "train_recipe", lambda recipe, seed, warm_ups: (run | {"seed": seed}, None))
    output = tmp_path / "rows.jsonl"
    command = ["side_by_side.py", "peer.py", "sprint94", "--rounds", "9", "--seed", "3", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(KeyboardInterrupt):
        side_by_side.main()
    rows = list(map(json.loads, output.read_text("utf-8").splitlines()))
    assert [(row["n"], row["peer_runs"][0]["seed"], row["recipe_runs"][0]["seed"]) for row in rows] == [(1, 3, 3), (1, 4, 4)]
    assert {row["ratio_of_median_seconds"] for row in rows} == {3.0}


def test_a_recipe_without_tta_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["side_by_side.py", "peer.py", "davidnet"])
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
