"""Trackers get a run's rows, metrics and figures, read back with TensorBoard and from trackio; failures stop nothing."""

import io
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import Command
from sprintnet.cli.evaluate import TRACKERS as NAMES
from sprintnet.errors import SettingsError
from sprintnet.reporting.tracking import TRACKERS, Tracker, Tracking, shown_name
from sprintnet.runs.folder import RunFolder, read_json, read_rows

COLUMNS = {"lr": "lr", "loss/train": "train_loss", "loss/val": "val_loss", "accuracy/train": "train_accuracy"}
COLUMNS["accuracy/val"] = "val_accuracy"


@pytest.fixture
def trackio_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path / "trackio"


def figures(run: RunFolder) -> set[str]:
    return {path.stem for path in run.plots.glob("*.png") if not path.stem.endswith("-dark")}


def check_scalars(run: RunFolder) -> EventAccumulator:
    events = EventAccumulator(str(run.tensorboard), size_guidance={"images": 0})
    events.Reload()
    rows = read_rows(run.results)
    for tag, column in COLUMNS.items():
        scalars = events.Scalars(tag)
        assert [entry.step for entry in scalars] == [1, 2]
        assert [entry.value for entry in scalars] == pytest.approx([float(row[column]) for row in rows], rel=1e-6)
    (final,) = events.Scalars("final/val_accuracy")
    assert final.value == pytest.approx(read_json(run.metrics)["val"]["accuracy"])
    return events


def check_tensorboard(run: RunFolder) -> None:
    events = check_scalars(run)
    assert set(events.Tags()["images"]) == figures(run)
    first = events.Images("confusion_matrix")[0]
    with Image.open(io.BytesIO(first.encoded_image_string)) as kept, Image.open(run.plots / "confusion_matrix.png") as drawn:
        assert kept.size == drawn.size


def check_trackio(run: RunFolder, folder: Path) -> None:
    import sqlite3

    with sqlite3.connect(folder / "sprintnet.db") as store:
        kept = [
            (name, step, json.loads(text)) for name, step, text in store.execute("select run_name, step, metrics from metrics")
        ]
        (config,) = store.execute("select config from configs").fetchone()
    assert {name for name, _, _ in kept} == {run.path.name}
    assert json.loads(config)["optim.max_lr"] == tomllib.loads(run.resolved.read_text())["optim"]["max_lr"]
    for number, row in enumerate(read_rows(run.results), 1):
        (values,) = (values for _, step, values in kept if step == number and "lr" in values)
        assert values == pytest.approx({tag: float(row[column]) for tag, column in COLUMNS.items()})
    pictures = {tag: value for _, _, values in kept for tag, value in values.items() if isinstance(value, dict)}
    assert set(pictures) == figures(run)
    assert len(list((folder / "media").rglob("*.png"))) == len(pictures)


@pytest.mark.parametrize("again", [False, True])
def test_the_rows_and_figures_of_a_run_are_read_back(
    sprintnet: Command, tmp_path: Path, tiny: list[str], again: bool, trackio_folder: Path
) -> None:
    command = ["train", "davidnet", *tiny, "--track", "tensorboard", "--track", "trackio"]
    done = sprintnet(*command)
    assert done.returncode == 0, done.stderr
    assert "tracking:" not in done.stdout
    run = RunFolder(tmp_path / "runs" / "train" / "davidnet")
    if again:
        done = sprintnet("log", "davidnet", "--to", "tensorboard")
        assert done.returncode == 0, done.stderr
    else:
        check_trackio(run, trackio_folder)
    check_tensorboard(run)


def test_the_runs_of_a_study_are_sent_at_once(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    done = sprintnet("study", "davidnet", *tiny, "--seeds", "2")
    assert done.returncode == 0, done.stderr
    folders = [Path("runs", "study", "davidnet", f"seed-{seed}") for seed in (0, 1)]
    done = sprintnet("log", *map(str, folders), "--to", "tensorboard")
    assert (done.returncode, done.stdout) == (0, "".join(f"{folder}: in tensorboard\n" for folder in folders)), done.stderr
    for folder in folders:
        check_scalars(RunFolder(tmp_path / folder))


def test_runs_of_studies_are_told_apart() -> None:
    folders = {"runs/train/mine": "mine", "runs/study/a/seed-0": "a/seed-0", "runs/study/b/seed-0": "b/seed-0"}
    assert {path: shown_name(RunFolder(Path(path))) for path in folders} == folders


def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Tracker):
        def __init__(self, run: RunFolder, settings: Any):
            self.rows = 0

        def scalars(self, values: Any, step: int) -> None:
            self.rows += 1
            if self.rows > 1:
                raise OSError("the server\nis gone")

        def image(self, name: str, file: Path, step: int) -> None: ...
        def close(self) -> None: ...

    class NeverBegins(Failing):
        def __init__(self, run: RunFolder, settings: Any):
            raise RuntimeError("no key")

    kept: list[Any] = []

    class Working(Failing):
        def scalars(self, values: Any, step: int) -> None:
            kept.append((step, values))

    monkeypatch.setattr(
        "sprintnet.reporting.tracking.TRACKERS",
        {"failing": (Failing, "json"), "never": (NeverBegins, "json"), "working": (Working, "json")},
    )
    run = RunFolder(tmp_path)
    run.resolved.write_text("seed = 1\n")
    said: list[str] = []
    tracking = Tracking(run, ["failing", "never", "working"], said.append)
    row = {"epoch": "1", "lr": "0.1", "train_loss": 1, "val_loss": 1, "train_accuracy": 0.5, "val_accuracy": 0.5}
    for epoch in (1, 2, 3):
        tracking.row({**row, "epoch": epoch})
    assert said == [
        "tracking: never failed and gets nothing more: no key",
        "tracking: failing failed and gets nothing more: the server is gone",
    ]
    assert [step for step, _ in kept] == [1, 2, 3]


def test_what_is_not_there_is_refused_before_training(
    sprintnet: Command, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuple(TRACKERS) == NAMES
    done = sprintnet("train", "davidnet", *tiny, "--track", "trakio")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--track trakio: must be one of tensorboard, trackio, wandb, mlflow" in done.stderr
    monkeypatch.setattr("sprintnet.reporting.tracking.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="wandb: needs a package that is not installed: pip install wandb"):
        Tracking(RunFolder(tmp_path), ["wandb"], print)
    done = sprintnet("log", "davidnet")
    assert done.returncode == 2


def test_log_fails_where_the_tracker_did(sprintnet: Command, tmp_path: Path, tiny: list[str]) -> None:
    assert sprintnet("train", "davidnet", *tiny, "--no-report").returncode == 0
    (tmp_path / "runs" / "train" / "davidnet" / "tensorboard").touch()  # a file where its folder must be
    done = sprintnet("log", "davidnet", "--to", "tensorboard")
    assert done.returncode == 1
    assert "tracking: tensorboard failed and gets nothing more" in done.stdout
    assert "not completely in tensorboard, see above" in done.stderr
