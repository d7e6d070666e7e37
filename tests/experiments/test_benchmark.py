"""Benchmarks: closed forms of the arithmetic, then the command on the sample as a user runs it."""

import json
import re
from pathlib import Path

import pytest

from conftest import SAMPLE, Command
from sprintnet.config import load_config
from sprintnet.data.load import load_splits
from sprintnet.experiments import benchmark
from sprintnet.models.factory import build_model
from sprintnet.runs.environment import cpu_flags


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_arithmetic_is_counted_layer_by_layer(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the instructions, large products in bf16 take minutes; the command below measures the ceiling as it is
    monkeypatch.setattr(benchmark, "CEILING_SIDES", {"cpu": (64,)})
    small = [f"data.name={SAMPLE}", "model.width=4", "batch_size=20", "threads=1", f"precision={precision}"]
    config = load_config("davidnet", small)
    found = benchmark.measure_phases(config, load_splits(config.data)["train"])
    macs, side = 0, 32
    for name, parameter in build_model(config.model, 10, (32, 32, 3)).named_parameters():
        if parameter.ndim == 4:
            side = 32 if "prepare" in name or name == "block1.conv.conv.weight" else side
            macs += parameter.numel() * side * side * (2 if "prepare" in name else 3)  # no gradient for the images
            side = side // 2 if name in POOLED else side
    macs += 3 * 10 * 32
    assert found["gflop_per_image"] == pytest.approx(2 * macs / 1e9, rel=1e-6)
    assert found["ceiling_gflops"] > 0
    phases = found["images_per_second"]
    assert set(phases) == {"load", "augment", "forward", "backward", "update", "evaluate"}
    assert all(rate > 0 for rate in phases.values())


POOLED = {"block1.conv.conv.weight", "transition.0.conv.weight", "block2.conv.conv.weight"}


def test_every_scheduled_resolution_is_timed() -> None:
    small = [f"data.name={SAMPLE}", "model.width=4", "batch_size=20", "threads=1"]
    resolution = ["schedule.resolution=0.5,0.75,1", "schedule.resolution_milestones=0,0.3,0.6"]
    config = load_config("sprint94", [*small, *resolution])
    rates = benchmark.measure_phases(config, load_splits(config.data)["train"])
    assert set(rates["step_images_per_second"]) == {"0.5", "0.75", "1.0"}


def test_the_command_prints_a_table_and_appends_a_row(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    finished = sprintnet("benchmark", "davidnet", *tiny, "--target", "0.05", "--output", "rows/mine.jsonl")
    assert finished.returncode == 0, finished.stderr
    assert "GFLOP/s" in finished.stdout
    alone, row = map(json.loads, (tmp_path / "rows" / "mine.jsonl").read_text().splitlines())
    assert alone["phases"] == row["phases"]
    assert row["recipe"] == "davidnet"
    assert row["phases"]["precision"] == ("bf16" if cpu_flags() & {"amx_bf16", "avx512_bf16"} else "fp32")
    training = row["training"]
    assert 0 < training["start_seconds"] < training["command_seconds"]
    assert 0 < training["seconds_to_target"] <= training["train_seconds"] < training["command_seconds"]
    assert training["peak_gib"] > 0.1
    assert (tmp_path / "runs/train/benchmark-davidnet/metrics.json").exists()
    assert (tmp_path / "runs/train/benchmark-davidnet/plots/accuracy_over_time.png").stat().st_size > 5000
    assert sprintnet("benchmark", "davidnet", *tiny, "--phases", "--output", "rows/mine.jsonl").returncode == 0
    assert "training" not in json.loads((tmp_path / "rows" / "mine.jsonl").read_text().splitlines()[2])


def test_few_images_are_shown_again_and_again(tmp_path: Path) -> None:
    config = load_config("davidnet", [f"data.name={SAMPLE}", "model.width=4", "threads=1"])  # one batch holds them all
    assert benchmark.measure_phases(config, load_splits(config.data)["train"])["n"] == benchmark.REPEATS


def test_a_training_that_diverges_keeps_its_exit_code_and_the_phases(
    sprintnet: Command, tmp_path: Path, tiny: list[str]
) -> None:
    wild = ["optim.max_lr=1000", "precision=fp32", "optim.weight_decay=1", "epochs=20"]
    finished = sprintnet("benchmark", "davidnet", *tiny, *wild, "--output", "rows.jsonl")
    assert finished.returncode == 4
    assert re.search(r"the training failed: runs/train/\S+: training diverged", finished.stderr)
    assert "phases" in json.loads((tmp_path / "rows.jsonl").read_text())


@pytest.mark.parametrize("target", ["94", "0", "nan"])
def test_a_target_is_a_share(sprintnet: Command, target: str) -> None:
    finished = sprintnet("benchmark", "davidnet", "--target", target)
    assert finished.returncode == 2
    assert "must be a number from 0.01 to 1, such as 0.94" in finished.stderr


def test_settings_that_do_not_fit_the_images_are_one_message(sprintnet: Command, tiny: list[str]) -> None:
    finished = sprintnet("benchmark", "davidnet", *tiny, "augment.cutout=40")
    assert finished.returncode == 2
    assert "augment.cutout=40: larger than the images" in finished.stderr
    assert "Traceback" not in finished.stderr
