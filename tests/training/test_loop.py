"""fit on a small problem: its rows, its rates, what it does when the loss is lost."""

import contextlib
import math
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sprintnet.config import Config
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Batch, Loader
from sprintnet.data.preprocessing import Normalisation
from sprintnet.errors import DivergedError, Interrupted
from sprintnet.evaluation.task import SINGLE_LABEL
from sprintnet.runs.folder import RunFolder
from sprintnet.runtime import Runtime
from sprintnet.training.adaptive_threads import AdaptiveThreads
from sprintnet.training.loop import Progress, _label, fit
from sprintnet.training.optim import build_optimizer
from sprintnet.training.settings import MuonSettings, OptimSettings, ScheduleSettings
from sprintnet.training.step import Step

CPU = torch.device("cpu")


def track(batches: Iterable[Batch], _total: int, _label: str, _done: int, _images: int) -> Iterable[Batch]:
    return batches


def folder(path: Path) -> RunFolder:
    path.mkdir()
    return RunFolder(path)


def loader(count: int = 50) -> Loader:
    labels = np.arange(count, dtype=np.int64) % 2
    images = np.random.default_rng(0).integers(0, 100, (count, 8, 8, 1), dtype=np.uint8)
    images[labels == 1] += 120  # bright is class 1
    return Loader(ImageDataset(images, labels, ("dark", "bright")), Normalisation((0.5,), (0.25,)), 10, CPU)


def step(precision: str = "fp32") -> Step:
    torch.manual_seed(0)  # of weights and dropout alike
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.BatchNorm1d(2), nn.Dropout(0.1))
    return Step(
        model,
        build_optimizer(model, OptimSettings(max_lr=0.1), MuonSettings()),
        Runtime(CPU, precision, 1),
        label_smoothing=0.1,
        l1=0,
        task=SINGLE_LABEL,
    )


def settings_for(epochs: int = 3, interval: str = "epoch", checkpoint_seconds: float = 60) -> Config:
    schedule = ScheduleSettings(knots=(0, 1, 3), factors=(0.5, 1, 0), interval=interval)  # type: ignore[arg-type]
    optim = OptimSettings(max_lr=0.1)
    return Config(epochs=epochs, checkpoint_seconds=checkpoint_seconds, schedule=schedule, optim=optim)


def test_a_row_an_epoch_with_the_figures_of_that_epoch(tmp_path: Path) -> None:
    trained = step()
    rows = list(fit(settings_for(), trained, loader(), loader(20), RunFolder(tmp_path), track))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["lr"] for row in rows] == pytest.approx([0.05, 0.1, 0.05])
    assert rows[-1]["val_accuracy"] == 1
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(row["train_seconds"] > 0 and row["val_seconds"] > 0 and row["skipped_steps"] == 0 for row in rows)


def test_a_rate_a_step_moves_at_every_step(tmp_path: Path) -> None:
    trained, seen = step(), []
    update = trained.optimizer.step
    trained.optimizer.step = lambda: (seen.append(trained.optimizer.param_groups[0]["lr"]), update())  # type: ignore[method-assign]
    list(fit(settings_for(interval="step"), trained, loader(), loader(), RunFolder(tmp_path), track))
    up = [0.05 + 0.05 * index / 5 for index in range(5)]
    down = [0.1 - 0.1 * index / 10 for index in range(10)]
    assert seen == pytest.approx(up + down)


def test_how_long_it_takes_is_said_once_from_the_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprintnet.training.forecast.MEASURED_SECONDS", 0.0)
    run = folder(tmp_path / "run")
    list(fit(settings_for(), step(), loader(), loader(20), run, track))
    assert re.fullmatch(r"about \d+ s to the end of epoch 3\n", run.log_text.read_text())


def test_a_finished_training_yields_its_rows_again(tmp_path: Path) -> None:
    rows = list(fit(settings_for(), step(), loader(), loader(), RunFolder(tmp_path), track))
    again = step()
    assert list(fit(settings_for(), again, loader(), loader(), RunFolder(tmp_path), track)) == rows


def moment_of(label: str) -> str:
    """Returns a label without the accuracy and the time that is left."""
    return re.sub(r", val .* left", "", label)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("when", ["between epochs", "in the last step", "in the statistics"])
def test_a_lost_network_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path, precision: str, when: str) -> None:
    run = RunFolder(tmp_path)
    trained = step(precision)
    rows, good = [], []

    def spoil(batches: Iterable[Batch], _total: int, label: str, _done: int, _images: int) -> Iterator[Batch]:
        yield from batches
        if moment_of(label) == "epoch 2/3" and when != "between epochs":  # after its last step
            spoiled = trained.model[1].weight if when == "in the last step" else trained.model[2].running_var
            with torch.no_grad():
                spoiled.fill_(math.nan)

    with pytest.raises(DivergedError, match=r"training diverged in epoch 2, by step 5: .* lower optim.max_lr"):
        for row in fit(settings_for(), trained, loader(), loader(), run, spoil):
            rows.append(row)
            good = [tensor.detach().clone() for tensor in trained.model.state_dict().values()]
            if when == "between epochs":
                with torch.no_grad():
                    trained.model[1].weight.fill_(math.nan)
    assert len(rows) == 1
    restored = step(precision)
    following = fit(settings_for(), restored, loader(), loader(), run, track)
    assert next(following) == rows[0]
    assert all(torch.equal(a, b) for a, b in zip(good, restored.model.state_dict().values(), strict=True))
    assert [row["epoch"] for row in following] == [2, 3]


def test_a_skipped_first_step_is_no_divergence(tmp_path: Path) -> None:
    trained = step("fp16")
    trained.scaler.load_state_dict({**trained.scaler.state_dict(), "scale": 2.0**30})
    rows = list(fit(settings_for(checkpoint_seconds=0), trained, loader(), loader(), RunFolder(tmp_path), track))
    assert rows[0]["skipped_steps"] > 0
    assert len(rows) == 3


def test_an_epoch_of_skipped_steps_alone_has_no_figures(tmp_path: Path) -> None:
    trained = step("fp16")
    trained.scaler.load_state_dict({**trained.scaler.state_dict(), "scale": 2.0**60})
    rows = fit(settings_for(), trained, loader(), loader(), RunFolder(tmp_path), track)
    row = next(rows)
    assert row["skipped_steps"] == 5
    assert math.isnan(row["train_loss"])
    with pytest.raises(DivergedError, match="in epoch 3, by step 5: every step of the last epoch overflowed in fp16"):
        list(rows)


class Stopped(Exception):
    """Stands for a kill at this very moment."""


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("batch", [1, 4, 5, 6, 14, 15])
def test_whatever_step_it_is_killed_after_it_ends_in_the_same_bits(tmp_path: Path, precision: str, batch: int) -> None:
    def killing(batches: Iterable[Batch], _total: int, label: str, _done: int, _images: int) -> Iterator[Batch]:
        for item in batches:
            killing.left -= "evaluating" not in label  # type: ignore[attr-defined]
            if killing.left < 0:  # type: ignore[attr-defined]
                raise Stopped
            yield item

    killing.left = batch  # type: ignore[attr-defined]
    always = settings_for(checkpoint_seconds=0)
    undisturbed = step(precision)
    expected = list(fit(always, undisturbed, loader(), loader(), folder(tmp_path / "a"), track))
    run = folder(tmp_path / "b")
    with contextlib.suppress(Stopped):
        list(fit(always, step(precision), loader(), loader(), run, killing))  # type: ignore[arg-type]
    resumed = step(precision)
    rows = list(fit(always, resumed, loader(), loader(), run, track))
    timed = {"train_seconds", "val_seconds"}
    assert [{key: row[key] for key in row.keys() - timed} for row in rows] == [
        {key: row[key] for key in row.keys() - timed} for row in expected
    ]
    assert all(
        torch.equal(a, b)
        for a, b in zip(undisturbed.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["epoch 2/3", "epoch 2/3, evaluating", "epoch 3/3, evaluating"])
def test_a_signal_in_training_or_evaluation_saves_first(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    def signalling(batches: Iterable[Batch], _total: int, label: str, _done: int, _images: int) -> Iterator[Batch]:
        for index, item in enumerate(batches):
            if moment_of(label) == moment and index == 3:
                signal.raise_signal(number)
            yield item

    run = folder(tmp_path / "b")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="the state is saved") as caught:
        list(fit(settings_for(), step(), loader(), loader(), run, signalling))
    assert caught.value.exit_code == 128 + number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    seen: list[str] = []

    def watching(batches: Iterable[Batch], _total: int, label: str, done: int, _images: int) -> Iterable[Batch]:
        seen.append(f"{moment_of(label)}: {done}")
        return batches

    resumed = step()
    list(fit(settings_for(), resumed, loader(), loader(), run, watching))
    undisturbed = step()
    list(fit(settings_for(), undisturbed, loader(), loader(), folder(tmp_path / "a"), track))
    assert torch.equal(resumed.model[1].weight, undisturbed.model[1].weight)
    first = {"epoch 2/3": "epoch 2/3: 4", "epoch 2/3, evaluating": "epoch 2/3: 5", "epoch 3/3, evaluating": "epoch 3/3: 5"}
    assert seen[0] == first[moment]


def test_the_network_sees_each_resolution_in_its_part_of_training(tmp_path: Path) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 2), nn.BatchNorm1d(2))
    trained = Step(model, build_optimizer(model, OptimSettings(), MuonSettings()), Runtime(CPU, "fp32", 1), 0, 0, SINGLE_LABEL)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]) if module.training else None)
    schedule = ScheduleSettings(resolution=(0.5, 1), resolution_milestones=(0, 0.3))
    list(fit(replace(settings_for(epochs=2), schedule=schedule), trained, loader(), loader(), folder(tmp_path / "a"), track))
    assert seen == [4] * 3 + [8] * 7


def test_threads_are_looked_after_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(AdaptiveThreads, "adapt", lambda _: (calls.append(True), len(calls) in (3, 5))[1])
    run = folder(tmp_path / "a")
    list(fit(settings_for(), step(), loader(), loader(), run, track))
    assert len(calls) == 15
    assert run.log_text.read_text().count("other processes keep cores busy") == 1


def test_the_label_of_the_bar_says_the_last_accuracy_and_the_time_that_is_left() -> None:
    rows = [
        {"train_seconds": seconds, "val_seconds": 2.0, "val_accuracy": accuracy} for seconds, accuracy in ((8, 0.4), (18, 0.5))
    ]
    assert _label(Progress(), 10) == "epoch 1/10"
    assert _label(Progress(epoch=2, rows=rows), 4) == "epoch 3/4, val 50.0%, 30 s left"
    assert _label(Progress(epoch=2, rows=rows), 82) == "epoch 3/82, val 50.0%, 20 min left"
