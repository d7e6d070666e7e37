"""The moving average of weights: against PyTorch's, in a training that is killed and resumed, and where steps are skipped."""

import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sprintnet.config import load_config
from sprintnet.errors import Interrupted, SettingsError
from sprintnet.evaluation.trained_model import load
from sprintnet.runs.folder import RunFolder, read_rows
from sprintnet.training import checkpoint, loop
from sprintnet.training.average import WARM_UP, Average
from sprintnet.training.train import train

KEPT = torch.ones((), dtype=torch.bool)


def test_it_is_pytorchs_once_warm() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    average = Average(model, 0.9)
    average._steps.fill_(10_000)
    expected = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    expected.update_parameters(model)  # the first one copies
    for _ in range(5):
        model(torch.randn(8, 4))  # moves the statistics
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(KEPT)
        expected.update_parameters(model)
    with average.in_place():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, expected.module.state_dict()[name])


def test_it_follows_faster_at_first() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.zero_()
    average = Average(model, 0.999)
    model.weight.data.fill_(1)
    average.update(KEPT)
    with average.in_place():
        assert model.weight.item() == 1  # nothing is left of the initial weights
    model.weight.data.zero_()
    average.update(KEPT)
    with average.in_place():
        assert model.weight.item() == pytest.approx(1 - WARM_UP / (WARM_UP + 1))
    assert model.weight.item() == 0


def test_a_skipped_step_changes_nothing() -> None:
    model = nn.Linear(2, 2)
    average = Average(model, 0.5)
    before = [value.clone() for value in average._values]
    model.weight.data.add_(1)
    average.update(~KEPT)
    assert all(torch.equal(old, new) for old, new in zip(before, average._values, strict=True))
    assert average._steps == 0


def test_the_average_is_evaluated_and_kept(tmp_path: Path, tiny: list[str]) -> None:
    settings = ["precision=fp32", *tiny]
    plain = train(load_config("davidnet", settings), RunFolder(tmp_path / "plain"))
    averaged = train(load_config("davidnet", [*settings, "ema=0.8"]), RunFolder(tmp_path / "averaged"))
    rows = [read_rows(RunFolder(tmp_path / name).results) for name in ("plain", "averaged")]
    assert [row["train_loss"] for row in rows[0]] == [row["train_loss"] for row in rows[1]]  # training is the same
    assert rows[0][-1]["val_loss"] != rows[1][-1]["val_loss"]
    assert float(rows[1][-1]["val_accuracy"]) == averaged.metrics["val"]["accuracy"]
    assert not torch.equal(plain.model.model.linear.weight, averaged.model.model.linear.weight)  # type: ignore[attr-defined]


def test_a_resumed_training_ends_in_the_same_average(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("davidnet", ["precision=fp32", *tiny, "ema=0.8"])
    train(config, RunFolder(tmp_path / "whole"))

    class Stop(Exception):
        pass

    def stop(row: object) -> None:
        raise Stop

    part = RunFolder(tmp_path / "part")
    with pytest.raises(Stop):
        train(config, part, on_epoch=stop)
    assert checkpoint.load_checkpoint(part.checkpoint, torch.device("cpu"))["average"]["steps"] > 0
    train(config, part, resume=True)
    whole, resumed = (load(tmp_path / name).model.state_dict() for name in ("whole", "part"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_signal_while_the_average_is_evaluated_saves_what_is_trained(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("davidnet", ["precision=fp32", *tiny, "ema=0.8"])
    train(config, RunFolder(tmp_path / "whole"))
    part, real = RunFolder(tmp_path / "part"), loop.predict

    def interrupted(model: nn.Module, batches: object, runtime: object) -> object:
        monkeypatch.setattr(loop, "predict", real)
        signal.raise_signal(signal.SIGTERM)
        return real(model, batches, runtime)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "predict", interrupted)
    with pytest.raises(Interrupted):
        train(config, part)
    train(config, part, resume=True)
    whole, resumed = (load(tmp_path / name).model.state_dict() for name in ("whole", "part"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, tiny: list[str]) -> None:
    config, run = load_config("davidnet", ["precision=fp32", *tiny]), RunFolder(tmp_path / "run")

    class Stop(Exception):
        pass

    def stop(row: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(config, run, on_epoch=stop)
    state = checkpoint.load_checkpoint(run.checkpoint, torch.device("cpu"))
    del state["model"]["novelty.means"]
    checkpoint.save_checkpoint(run.checkpoint, state)
    with pytest.raises(SettingsError, match="was saved by another version"):
        train(config, run, resume=True)
