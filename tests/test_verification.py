"""Verification: an untouched run is verified bit for bit; every planted change is found, and named, with exit code 5."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import sprintnet as sn
from conftest import TINY, Command
from sprintnet.deploy.export.graph import to_bytes
from sprintnet.experiments.compare import prediction_interval
from sprintnet.models.tensor_file import read_tensors, write_tensors
from sprintnet.runs import checksums
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import write_json

Change = Callable[[RunFolder], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    from conftest import call

    folder = tmp_path_factory.mktemp("verification")
    for command in (["train", "davidnet", *TINY, "--name", "R", "tta=0.9", "precision=fp32"], ["export", "R"]):
        done = call(folder, *command)
        assert done.returncode == 0, done.stderr
    return RunFolder(folder / "runs" / "train" / "R")


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(made.path, tmp_path / "runs" / "train" / "R"))


def sign(run: RunFolder) -> None:
    """Makes checksums.txt anew, as someone would who hides a change."""
    checksums.write_checksums(run.path, [file for file in (*run.final_files, run.metrics) if file.exists()], {})


def edit(name: str, old: str, new: str) -> Change:
    """Returns a change of a text file of a run."""

    def change(run: RunFolder) -> None:
        text = (run.path / name).read_text()
        assert old in text
        (run.path / name).write_text(text.replace(old, new, 1))

    return change


def test_an_untouched_run_is_verified_bit_for_bit(run: RunFolder, sprintnet: Command) -> None:
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file() and not file.name.startswith(".")}
    done = sprintnet("verify", "R")
    assert done.returncode == 0, done.stderr
    outcomes = [line.split()[:2] for line in done.stdout.splitlines() if line.split()[1:2] == ["same"]]
    names = ["files", "settings", "metrics", "report", "data", "predictions", "model.onnx", "training"]
    assert outcomes == [[name, "same"] for name in names]
    assert done.stdout.splitlines()[-1] == "verified: runs/train/R"
    assert {file: file.read_bytes() for file in before} == before


def test_a_flipped_bit_of_any_file_is_found(run: RunFolder, sprintnet: Command) -> None:
    listed = run.path / checksums.FILE
    whole = listed.read_text()
    listed.write_text(whole.replace("0", "1", 1))
    done = sprintnet("verify", "R", "--no-replay")
    assert (done.returncode, "checksums.txt: cannot be checked" in done.stderr) == (5, True)
    listed.write_text(whole)
    for name in checksums.names(run.path):
        file = run.path / name
        content = file.read_bytes()
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
        done = sprintnet("verify", "R", "--no-replay")
        assert done.returncode == 5, name
        assert f"{name}: its content does not match checksums.txt" in done.stderr
        file.write_bytes(content)


def weigh(run: RunFolder) -> None:
    tensors, metadata = read_tensors(run.weights)
    tensors["linear.weight"][0, 0] += 0.1
    write_tensors(run.weights, tensors, metadata)


def score(run: RunFolder) -> None:
    metrics = read_json(run.metrics)
    metrics["val"]["tta"]["accuracy"] = 0.941
    (run.path / checksums.FILE).unlink()
    write_json(run.metrics, metrics)


def other_file(run: RunFolder) -> None:
    model = onnx.load(run.export / "model.onnx")
    (weights,) = [tensor for tensor in model.graph.initializer if "linear" in tensor.name and len(tensor.dims) == 2]
    changed = onnx.numpy_helper.to_array(weights)[::-1]
    weights.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(changed), weights.name))
    (run.export / "model.onnx").write_bytes(to_bytes(model))


def bit_of_file(run: RunFolder) -> None:
    content = bytearray((run.export / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (run.export / "model.onnx").write_bytes(content)


def table_of_file(run: RunFolder) -> None:
    table = read_json(run.export / "parity.json")
    table["files"]["model.onnx"]["accuracy"] = 0.99
    write_json(run.export / "parity.json", table)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (weigh, "weights.safetensors, 1"),  # other accuracy, or the same with other logits
        (score, "metrics.json: val.tta.accuracy=0.941, but 0."),
        (edit("config.toml", "epochs = 2", "epochs = 3"), "resolved.toml: epochs=2, but config.toml has epochs=3"),
        (edit("resolved.toml", "label_smoothing = 0.2", "label_smoothing = 0.1"), "label_smoothing=0.1, but config.toml has"),
        (edit("predictions.csv", "val,0,", "val,7,"), "predictions.csv: val[0].index=7, but 0 by the logits in"),
        (edit("report.html", "validation accuracy", "test accuracy"), "report.html: is not what the run's files give"),
        (bit_of_file, "model.onnx: "),
        (other_file, "model.onnx: does not match the trained model"),
        (table_of_file, "model.onnx: its metadata are not those of"),
    ],
)  # fmt: skip
def test_a_change_with_new_checksums_is_found(run: RunFolder, sprintnet: Command, change: Change, found: str) -> None:
    change(run)
    sign(run)
    done = sprintnet("verify", "R", "--no-replay")
    assert done.returncode == 5
    assert found in done.stderr or (change is weigh and "accuracy" in done.stderr)


def test_reports_that_other_code_wrote_or_that_are_older_than_later_files_are_not_compared(
    run: RunFolder, sprintnet: Command
) -> None:
    edit("report.html", "validation accuracy", "val accuracy")(run)
    later = run.report.stat().st_mtime + 10
    os.utime(run.explanations, (later, later))
    assert "report          not checked  it is older than explanations.npz" in sprintnet("verify", "R", "--no-replay").stdout
    os.utime(run.report, (later, later))
    assert sprintnet("verify", "R", "--no-replay").returncode == 5
    edit("environment.json", read_json(run.environment)["code_sha256"], "0" * 64)(run)
    sign(run)
    assert "report          not checked  other code wrote it" in sprintnet("verify", "R", "--no-replay").stdout


def test_a_run_of_a_device_that_is_not_here_is_compared_as_far_as_it_can_be(run: RunFolder, sprintnet: Command) -> None:
    for name in ("config.toml", "resolved.toml"):
        edit(name, 'device = "auto"', 'device = "cuda"')(run)
    edit("environment.json", '"device": "cpu"', '"device": "cuda"')(run)
    sign(run)
    run.report.unlink()
    done = sprintnet("verify", "R")
    assert done.returncode == 0, done.stderr
    assert "training        not checked  device=cuda: PyTorch sees no GPU here" in done.stdout


def test_another_seed_gives_other_weights(run: RunFolder, sprintnet: Command) -> None:
    for name in ("config.toml", "resolved.toml"):
        edit(name, "seed = 0", "seed = 1")(run)
    sign(run)
    run.report.unlink()  # which shows the settings
    assert sprintnet("verify", "R", "--no-replay").returncode == 0
    done = sprintnet("verify", "R")
    assert done.returncode == 5
    assert "weights.safetensors: repeated, the training gives other weights: block1.conv.conv.weight differs" in done.stderr


def test_a_run_of_other_code_is_compared_by_its_accuracy(run: RunFolder, sprintnet: Command) -> None:
    for name in ("config.toml", "resolved.toml"):
        edit(name, "seed = 0", "seed = 1")(run)  # other weights, as other code may give
    edit("environment.json", read_json(run.environment)["code_sha256"], "0" * 64)(run)
    sign(run)
    run.report.unlink()
    done = sprintnet("verify", "R")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("training")]
    assert "close        repeated: val accuracy " in line
    assert "other code_sha256; within the 99.9% interval of a paired comparison" in line
    assert "report          not checked  there is none" in done.stdout
    assert done.stdout.splitlines()[-1] == "partly verified: runs/train/R; not checked: report"


def test_what_cannot_be_compared_is_named(run: RunFolder, sprintnet: Command, tmp_path: Path) -> None:
    shutil.rmtree(run.export)
    (run.path / checksums.FILE).unlink()
    (run.plots / "coverage.png").unlink()
    done = sprintnet("verify", "R", "--no-replay")
    assert done.returncode == 0, done.stderr
    for text in (
        "files           not checked  checksums.txt is missing",
        "report          not checked  its figure coverage.png is missing; write it again: sprintnet report runs/train/R",
        "export          not checked  there is none: sprintnet export runs/train/R",
        "partly verified: runs/train/R; not checked: files, report, export, training",
    ):
        assert text in done.stdout
    edit("config.toml", "tests/sample", "tests/gone")(run)
    edit("resolved.toml", "tests/sample", "tests/gone")(run)
    done = sprintnet("verify", "R")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("not checked: files, report, data, predictions, export, training\n")
    missing = sprintnet("verify", "runs/train/S")
    assert missing.returncode == 2
    run.metrics.unlink()
    unfinished = sprintnet("verify", "R")
    assert (unfinished.returncode, "unfinished" in unfinished.stderr) == (2, True)


def test_a_run_on_arrays_is_verified_without_its_images(
    sprintnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    data = sn.from_arrays(images, np.arange(60) % 3)
    sn.train("davidnet", data, name="A", epochs=1, model__width=4, threads=1, batch_size=16)
    done = sprintnet("verify", "A")
    assert done.returncode == 0, done.stderr
    assert "data            not checked  the images were in memory only\n" in done.stdout


def moments(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1))


def test_one_more_run_falls_within_the_prediction_interval_19_times_in_20() -> None:
    draw = np.random.default_rng(0).normal(0.94, 0.001, (4000, 6))
    inside = [low <= row[5] <= high for row in draw for low, high in [prediction_interval(5, *moments(row[:5]))]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)
