"""fit on a small problem: its rows, its rates, what it does when the loss is lost."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Loader, Normalisation
from sprintnet.data.settings import AugmentSettings
from sprintnet.errors import DivergedError
from sprintnet.run import RunFolder
from sprintnet.runtime import Runtime
from sprintnet.training.loop import Plan, fit
from sprintnet.training.optim import build_optimizer
from sprintnet.training.settings import OptimSettings, ScheduleSettings
from sprintnet.training.step import Step

CPU = torch.device("cpu")


def track(batches: object, _total: int, _label: str) -> object:
    return batches


def loader(count: int = 50) -> Loader:
    labels = np.arange(count, dtype=np.int64) % 2
    images = np.random.default_rng(0).integers(0, 100, (count, 8, 8, 1), dtype=np.uint8)
    images[labels == 1] += 120  # bright is class 1
    return Loader(ImageDataset(images, labels, ("dark", "bright")), Normalisation((0.5,), (0.25,)), 10, CPU)


def step(precision: str = "fp32") -> Step:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    return Step(model, build_optimizer(model, OptimSettings()), Runtime(CPU, precision, 1), label_smoothing=0.1, l1=0)


def plan(epochs: int = 3, interval: str = "epoch", checkpoint_seconds: float = 60) -> Plan:
    schedule = ScheduleSettings(knots=(0, 1, 3), factors=(0.5, 1, 0), interval=interval)  # type: ignore[arg-type]
    return Plan(epochs, 0.1, schedule, AugmentSettings(), 0, checkpoint_seconds)


def test_a_row_an_epoch_with_the_figures_of_that_epoch(tmp_path: Path) -> None:
    trained = step()
    rows = list(fit(plan(), trained, loader(), loader(20), RunFolder(tmp_path), track))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["lr"] for row in rows] == pytest.approx([0.05, 0.1, 0.05])
    assert rows[-1]["val_accuracy"] == 1
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(row["train_seconds"] > 0 and row["val_seconds"] > 0 and row["skipped_steps"] == 0 for row in rows)


def test_a_rate_a_step_moves_at_every_step(tmp_path: Path) -> None:
    trained, seen = step(), []
    trained.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
    list(fit(plan(interval="step"), trained, loader(), loader(), RunFolder(tmp_path), track))
    up = [0.05 + 0.05 * index / 5 for index in range(5)]
    down = [0.1 - 0.1 * index / 10 for index in range(10)]
    assert seen == pytest.approx(up + down)


def test_a_finished_training_yields_its_rows_again(tmp_path: Path) -> None:
    rows = list(fit(plan(), step(), loader(), loader(), RunFolder(tmp_path), track))
    again = step()
    assert list(fit(plan(), again, loader(), loader(), RunFolder(tmp_path), track)) == rows


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_lost_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path, precision: str) -> None:
    run = RunFolder(tmp_path)
    trained = step(precision)
    rows = []
    with pytest.raises(DivergedError, match=r"training diverged in epoch 2, by step 5: .* lower optim.max_lr"):
        for row in fit(plan(), trained, loader(), loader(), run, track):
            rows.append(row)
            good = [parameter.detach().clone() for parameter in trained.model.parameters()]
            with torch.no_grad():
                trained.model[1].weight.fill_(math.nan)  # type: ignore[index]
    assert len(rows) == 1
    restored = step(precision)
    following = fit(plan(), restored, loader(), loader(), run, track)
    assert next(following) == rows[0]
    assert all(torch.equal(a, b) for a, b in zip(good, restored.model.parameters(), strict=True))
    assert [row["epoch"] for row in following] == [2, 3]
