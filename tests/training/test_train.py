"""Whole runs on the sample: what the run folder holds, and that an interrupted run ends in the very same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from scipy.special import log_softmax

from conftest import SAMPLE, Command
from sprintnet.config import Config, load_config
from sprintnet.data.custom.load import load_custom
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits
from sprintnet.data.settings import DataSettings
from sprintnet.errors import SettingsError
from sprintnet.evaluation.calibration import fit_temperature
from sprintnet.evaluation.trained_model import load_run
from sprintnet.kernels import conv3x3, winograd, winograd_fp32, winograd_torch
from sprintnet.runs.folder import RunFolder, read_rows
from sprintnet.runtime import select_runtime
from sprintnet.training import train as pipeline
from sprintnet.training.setup import build_step
from sprintnet.training.train import train

# dropout draws from the global generator, bf16 rounds: both must survive a resume
EPOCHS = 12
RESUMABLE = ["model.dropout=0.1", "precision=bf16", "checkpoint_seconds=0"]


@pytest.fixture
def finished(tmp_path: Path, tiny: list[str]) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    train(load_config("davidnet", [*tiny, "data.val=0.1"]), run)
    return run


def test_the_run_folder_holds_what_the_readme_lists(finished: RunFolder) -> None:
    names = {
        "resolved.toml",
        "config.toml",
        "data.json",
        "environment.json",
        "splits.csv",
        "results.csv",
        "metrics.json",
        "predictions.npz",
        "predictions.csv",
        "weights.safetensors",
        "log.txt",
        "artifacts.npz",
        "network.json",
        "checksums.txt",
    }
    assert {path.name for path in finished.path.iterdir()} - {".lock"} == names
    rows = read_rows(finished.results)
    metrics = json.loads(finished.metrics.read_text())
    arrays = np.load(finished.predictions)
    environment = json.loads(finished.environment.read_text())
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert (metrics["val"]["images"], metrics["epochs"]) == (20, 2)
    assert "test" not in metrics
    assert metrics["val"]["accuracy"] == float(rows[-1]["val_accuracy"])
    assert metrics["val"]["accuracy"] == np.mean(arrays["val_logits"].argmax(1) == arrays["val_labels"])
    assert (environment["threads"], environment["device"]) == (1, "cpu")
    assert len(environment["data_sha256"]) == 64
    assert "| Epoch | LR" in finished.log_text.read_text()


def test_the_temperature_is_fitted_on_held_out_images_alone(finished: RunFolder, tmp_path: Path, tiny: list[str]) -> None:
    metrics = json.loads(finished.metrics.read_text())
    arrays = np.load(finished.predictions)
    trained, _ = load_run(finished.path)
    logits, labels = arrays["val_logits"], arrays["val_labels"]
    assert metrics["temperature"] == fit_temperature(trained.preprocessing.unsmoothed(logits), labels)
    assert trained.preprocessing.temperature == metrics["temperature"]
    before, after = (
        -log_softmax(scaled, 1)[range(len(labels)), labels].mean()
        for scaled in (trained.preprocessing.unsmoothed(logits), trained.preprocessing.calibrated(logits))
    )
    assert after < before
    assert metrics["val"]["calibration"]["nll"] == metrics["val"]["cross_entropy"]


def test_predictions_have_a_row_an_image(finished: RunFolder) -> None:
    rows = read_rows(finished.predictions_csv)
    assert [row["split"] for row in rows] == ["val"] * 20
    right = [row["true"] == row["predicted"] for row in rows]
    assert np.mean(right) == json.loads(finished.metrics.read_text())["val"]["accuracy"]


def test_a_finished_run_opens_again_with_the_same_answers(finished: RunFolder) -> None:
    trained, config = load_run(finished.path)
    splits = load_splits(config.data)
    found = trained.evaluate(splits["val"])
    logits, figures = found.arrays["logits"], found.metrics(trained.preprocessing)
    assert np.array_equal(logits, np.load(finished.predictions)["val_logits"])
    kept = json.loads(finished.metrics.read_text())["val"]
    assert figures == {key: kept[key] for key in figures}
    assert len(trained.evaluate(splits["train"]).arrays["labels"]) == 180


def test_a_run_opens_without_its_data_and_refuses_data_of_other_classes(finished: RunFolder, tmp_path: Path) -> None:
    trained, config = load_run(finished.path, [f"data.name={tmp_path / 'gone'}"])
    assert config.data.name == str(tmp_path / "gone")
    test = load_custom(DataSettings(str(SAMPLE))).images
    with pytest.raises(SettingsError, match=r"the data has the classes truck, .*; the model: airplane, "):
        trained.predict(ImageDataset(test.images, test.labels, test.classes[::-1]))


def test_validation_images_are_not_trained_on_and_test_images_choose_nothing(tiny: list[str]) -> None:
    splits = load_splits(load_config("davidnet", [*tiny, "data.val=0.1"]).data, test=True)
    assert {name: len(part) for name, part in splits.items()} == {"train": 180, "val": 20, "test": 100}
    pixels = [image.tobytes() for part in splits.values() for image in part.images]
    assert len(set(pixels)) == len(pixels)


def test_a_cutout_larger_than_the_images_is_refused(tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"augment.cutout=33: larger than the images"):
        train(load_config("davidnet", [*tiny, "augment.cutout=33"]), RunFolder(tmp_path / "run"))


def test_a_hold_out_of_no_image_is_refused(tiny: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"data.val=0.01: less than one image per class"):
        load_splits(load_config("davidnet", [*tiny, "data.val=0.01"]).data)


def test_a_batch_of_one_image_is_refused(tiny: list[str]) -> None:
    config = load_config("davidnet", [*tiny, "batch_size=2"])
    three = load_splits(config.data)["train"].take(np.arange(3))
    with pytest.raises(SettingsError, match=r"batch_size=2: leaves a batch with a single one of the 3 training images.*use 3"):
        build_step(config, three, select_runtime("cpu", "fp32", 1))


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tmp_path: Path, tiny: list[str]) -> None:
    def weights(name: str, *overrides: str) -> bytes:
        run = RunFolder(tmp_path / name)
        train(load_config("davidnet", [*tiny, "epochs=1", *overrides]), run)
        return b"".join(tensor.numpy().tobytes() for tensor in load_file(run.weights).values())

    assert weights("one") == weights("two") != weights("three", "seed=1")


@pytest.mark.parametrize(("precision", "width"), [("fp32", 8), ("bf16", 8), ("fp16", 4)])  # fp16 is slow on a CPU
def test_every_precision_learns_the_sample(tmp_path: Path, tiny: list[str], precision: str, width: int) -> None:
    still = ["augment.crop_padding=0", "augment.affine=0", "augment.cutout=0", "label_smoothing=0"]
    overrides = [*tiny, f"precision={precision}", "epochs=15", f"model.width={width}", "batch_size=20", *still]
    metrics = train(load_config("davidnet", overrides), RunFolder(tmp_path / "run")).metrics
    assert metrics["skipped_steps"] <= 3
    trained, config = load_run(tmp_path / "run")
    assert trained.evaluate(load_splits(config.data)["train"]).metrics(trained.preprocessing)["accuracy"] > 0.5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_fast_recipe_learns_the_sample_and_resumes_in_the_same_bits(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # so that these small layers take a Winograd convolution, as far as the machine has one
    winograd_calls: list[None] = []
    monkeypatch.setattr(conv3x3, "MIN_BATCH", dict.fromkeys(conv3x3.MIN_BATCH, 16))
    kernel = {"bf16": winograd, "fp32": winograd_fp32}[precision]
    way = kernel if kernel.is_supported(64, 64, 7, 7) else winograd_torch
    convolve = way.convolve
    monkeypatch.setattr(
        conv3x3, "choose", lambda layer, dtype, *shape, **_: way if layer == "conv3x3" and way.is_supported(*shape) else None
    )
    monkeypatch.setattr(way, "convolve", lambda maps, weight: (winograd_calls.append(None), convolve(maps, weight))[1])
    small = [f"data.name={SAMPLE}", "model.width=32", "batch_size=40", "threads=1", "epochs=12", f"precision={precision}"]
    config = load_config("sprint94", [*small, "tta=1", "schedule.resolution=0.75,1", "schedule.resolution_milestones=0,0.4"])
    metrics = train(config, RunFolder(tmp_path / "whole")).metrics
    arrays = np.load(tmp_path / "whole" / "predictions.npz")
    assert metrics["val"]["tta"]["accuracy"] == np.mean(arrays["val_tta_logits"].argmax(1) == arrays["val_labels"])
    assert not np.array_equal(arrays["val_tta_logits"], arrays["val_logits"])
    assert winograd_calls
    trained, _ = load_run(tmp_path / "whole")
    assert trained.evaluate(load_splits(config.data)["train"]).metrics(trained.preprocessing)["accuracy"] > 0.7
    (tmp_path / "stopped").mkdir()
    run, _ = interrupted_run(tmp_path / "stopped", config)
    assert train(config, run, resume=True).metrics["val"]["cross_entropy"] == metrics["val"]["cross_entropy"]
    whole, resumed = (load_file(folder.weights) for folder in (RunFolder(tmp_path / "whole"), run))
    assert all(whole[name].equal(tensor) for name, tensor in resumed.items())


def test_resuming_under_other_settings_is_refused_by_name(tmp_path: Path, tiny: list[str], finished: RunFolder) -> None:
    changed = load_config("davidnet", [*tiny, "data.val=0.1", "seed=5", "optim.max_lr=0.2"])
    with pytest.raises(SettingsError) as caught:
        train(changed, finished, resume=True)
    assert str(caught.value).splitlines()[1:3] == ["  seed: 0 -> 5", "  optim.max_lr: 0.1 -> 0.2"]
    same = load_config(finished.config)
    splits = load_splits(same.data, run=finished)
    other = {**splits, "train": splits["train"].take(np.arange(10))}
    with pytest.raises(SettingsError, match="was trained on other images; give those, or choose another name"):
        train(same, finished, resume=True, splits=other)
    assert train(same, finished, resume=True, splits=load_splits(same.data, run=finished)).metrics["val"]["images"]


def test_a_run_is_not_overwritten(tiny: list[str], finished: RunFolder) -> None:
    with pytest.raises(SettingsError, match="already holds a run"):
        train(load_config("davidnet", [*tiny, "data.val=0.1"]), finished)


@pytest.mark.parametrize(("key", "value"), [("data_sha256", "0" * 64), ("precision", "fp16")])
def test_resuming_on_other_data_or_precision_is_refused(tmp_path: Path, tiny: list[str], key: str, value: str) -> None:
    run, config = interrupted_run(tmp_path, load_config("davidnet", tiny))
    record = json.loads(run.environment.read_text())
    run.environment.write_text(json.dumps({**record, key: value}))
    with pytest.raises(SettingsError, match=f"began with {key} {value}, now it is {record[key]}"):
        train(config, run, resume=True)


def test_resuming_with_other_threads_says_that_bits_may_differ(tmp_path: Path, tiny: list[str]) -> None:
    run, config = interrupted_run(tmp_path, load_config("davidnet", tiny))
    record = json.loads(run.environment.read_text())
    run.environment.write_text(json.dumps({**record, "threads": 64}))
    train(config, run, resume=True)
    assert "resuming with different threads: the result may differ in its last bits" in run.log_text.read_text()


def interrupted_run(folder: Path, config: Config) -> tuple[RunFolder, Config]:
    """A run that was stopped as its first epoch ended."""
    run = RunFolder(folder / "run")
    write = pytest.MonkeyPatch()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    write.setattr(pipeline, "write_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, run)
    write.undo()
    assert run.checkpoint.exists()
    return run, config


def test_resuming_a_finished_run_returns_its_metrics(tiny: list[str], finished: RunFolder) -> None:
    written = finished.weights.stat().st_mtime_ns
    metrics = train(load_config("davidnet", [*tiny, "data.val=0.1"]), finished, resume=True).metrics
    assert metrics == json.loads(finished.metrics.read_text())
    assert finished.weights.stat().st_mtime_ns == written


class Trainer:
    """`sprintnet train` as a process of its own, in its own folder."""

    def __init__(self, folder: Path, overrides: list[str]):
        self.folder = folder
        self.arguments = [sys.executable, "-m", "sprintnet", "train", "davidnet", "--name", "run", "--no-report", *overrides]

    def start(self, *more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.arguments, *more], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self, *more: str) -> float:
        started = time.monotonic()
        process = self.start(*more)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return time.monotonic() - started

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "runs" / "train" / "run")

    def weights(self) -> dict[str, bytes]:
        return {name: tensor.numpy().tobytes() for name, tensor in load_file(self.run.weights).items()}


@pytest.fixture
def trainer(tmp_path: Path, tiny: list[str]) -> Callable[[str], Trainer]:
    def make(name: str) -> Trainer:
        (tmp_path / name).mkdir()
        return Trainer(tmp_path / name, [*tiny, *RESUMABLE, f"epochs={EPOCHS}"])

    return make


def wait_for_step(run: RunFolder, process: "subprocess.Popen[str]") -> None:
    while not run.checkpoint.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def test_kill_9_anywhere_then_resume_ends_in_the_same_bits(trainer: Callable[[str], Trainer]) -> None:
    undisturbed = trainer("undisturbed")
    undisturbed.finish()
    seconds = sum(float(row["train_seconds"]) + float(row["val_seconds"]) for row in read_rows(undisturbed.run.results))
    moments = random.Random(0)
    in_training = 0
    for attempt in range(int(os.environ.get("SPRINTNET_KILLS", "4"))):
        victim = trainer(f"victim {attempt}")
        process = victim.start()
        if attempt == 0:  # before anything was saved
            time.sleep(0.5)
        else:
            wait_for_step(victim.run, process)
            time.sleep(moments.uniform(0, seconds))
        process.kill()
        process.communicate()
        in_training += victim.run.checkpoint.exists()
        victim.finish("--resume")
        assert victim.weights() == undisturbed.weights()
        assert len(read_rows(victim.run.results)) == EPOCHS
        names = {path.name for path in victim.run.path.iterdir() if not path.name.startswith(".sprintnet-")}  # removed later
        left = names - {path.name for path in undisturbed.run.path.iterdir()}
        assert not left
    print(f"killed in training: {in_training}")
    assert in_training


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(trainer: Callable[[str], Trainer], number: int, exit_code: int) -> None:
    interrupted, undisturbed = trainer("interrupted"), trainer("undisturbed")
    process = interrupted.start()
    wait_for_step(interrupted.run, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code
    name = signal.Signals(number).name
    advice = "the state is saved in runs/train/run; continue with the same command and --resume"
    assert errors == f"sprintnet: {name}: {advice}\n"
    interrupted.finish("--resume")
    undisturbed.finish()
    assert interrupted.weights() == undisturbed.weights()


def test_two_processes_do_not_train_in_one_folder(trainer: Callable[[str], Trainer]) -> None:
    first = trainer("both")
    process = first.start("epochs=1000")
    wait_for_step(first.run, process)
    second = first.start("epochs=1000", "--resume")
    _, errors = second.communicate(timeout=60)
    process.kill()
    process.communicate()
    assert second.returncode == 2
    assert errors == "sprintnet: runs/train/run: another process is training here; wait for it, or choose another name\n"


def test_a_loss_that_is_lost_ends_with_its_own_exit_code(sprintnet: Command, tiny: list[str]) -> None:
    finished = sprintnet("train", "davidnet", *tiny, "optim.max_lr=1000", "precision=fp32", "optim.weight_decay=1", "epochs=20")
    assert finished.returncode == 4
    assert "training diverged in epoch" in finished.stderr
    assert "start again with a lower optim.max_lr" in finished.stderr


def test_a_file_that_cannot_be_written_is_one_message_and_the_run_goes_on_later(trainer: Callable[[str], Trainer]) -> None:
    limited, undisturbed = trainer("limited"), trainer("undisturbed")
    wide = "model.width=8"
    # no file may pass 100 kB: the system refuses the checkpoint as a full disk would
    process = subprocess.run(
        ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", *limited.arguments, wide],
        cwd=limited.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 1
    assert "File too large; fix the cause and run the command with --resume" in process.stderr
    assert "Traceback" not in process.stderr
    limited.finish("--resume", wide)
    undisturbed.finish(wide)
    assert limited.weights() == undisturbed.weights()
