"""The learning-rate finder: closed forms of its curve, everything as before afterwards, and it works for every recipe."""

import copy
import csv
import json
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import SAMPLE, Command
from sprintnet.config import load_config, recipes
from sprintnet.errors import SettingsError
from sprintnet.evaluation.task import SINGLE_LABEL
from sprintnet.runs.folder import RunFolder, read_json, read_rows
from sprintnet.runs.io import write_json
from sprintnet.runtime import Runtime
from sprintnet.training.lr_finder import Sweep, slide, sweep, valley
from sprintnet.training.lr_search import RECOMMENDED, lr_find
from sprintnet.training.optim import build_optimizer
from sprintnet.training.schedule import Schedule
from sprintnet.training.settings import MuonSettings, OptimSettings
from sprintnet.training.step import Step
from sprintnet.training.train import train

REFERENCE = Path(__file__).parents[1] / "reference"
BATCH = (torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 4)


def step(max_lr: float = 0.1) -> Step:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten(), nn.Linear(288, 4))
    settings = OptimSettings(max_lr=max_lr, momentum=0.9)
    return Step(
        model, build_optimizer(model, settings, MuonSettings()), Runtime(torch.device("cpu"), "fp32", 1), 0.0, 0.0, SINGLE_LABEL
    )


def test_rates_rise_geometrically_and_the_first_loss_is_the_untrained_networks() -> None:
    untrained = step()
    torch.manual_seed(7)  # dropout draws
    found = sweep(untrained, islice(repeat(BATCH), 50), 0.1, 1e-5, 1e-2, 50)
    assert found.rates == pytest.approx(np.geomspace(1e-5, 1e-2, 50))
    torch.manual_seed(7)
    assert found.losses[0] == untrained.forward(*BATCH)[0].item()


def test_a_constant_loss_is_smoothed_to_itself_from_the_first_step_on() -> None:
    found = sweep(step(), islice(repeat(BATCH), 30), 0.1, 1e-12, 1e-11, 30)
    assert found.smoothed[0] == pytest.approx(found.losses[0])
    average = 0.0
    for number, (loss, smoothed) in enumerate(zip(found.losses, found.smoothed, strict=True), 1):
        average = 0.98 * average + 0.02 * loss
        assert smoothed == pytest.approx(average / (1 - 0.98**number))


def test_everything_is_as_before_afterwards() -> None:
    trained = step()
    for _ in range(3):
        trained(*BATCH)
    before = copy.deepcopy((trained.model.state_dict(), trained.optimizer.state_dict(), trained.totals))
    generator = torch.get_rng_state()
    found = sweep(trained, islice(repeat(BATCH), 60), 0.1, 1e-3, 10, 60)
    assert max(found.losses) > min(found.losses) + 0.1  # it did train
    after = (trained.model.state_dict(), trained.optimizer.state_dict(), trained.totals)
    assert all(torch.equal(before[0][name], tensor) for name, tensor in after[0].items())
    torch.testing.assert_close(before[1:], after[1:], rtol=0, atol=0)
    assert torch.equal(generator, torch.get_rng_state())


def test_a_loss_that_explodes_ends_the_sweep() -> None:
    found = sweep(step(), islice(repeat(BATCH), 100), 0.1, 1e-3, 1e6, 100)
    assert len(found.rates) < 100
    assert np.isfinite(found.losses).all()


def curve(losses: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Sweep:
    return Sweep(np.geomspace(1e-4, 1, len(losses)).tolist(), losses.tolist(), losses.tolist())


def test_suggestions_on_a_curve_whose_answers_are_known() -> None:
    logs = np.linspace(-4, 0, 81)  # falls as a sigmoid round 10^-2, rises after 10^-0.5
    losses = 2 - 1 / (1 + np.exp(-6 * (logs + 2))) + np.maximum(0, logs + 0.5) * 3
    found = curve(losses).suggestions()
    assert np.log10(found["steepest"]) == pytest.approx(-2, abs=0.06)
    assert np.log10(found["minimum"]) == pytest.approx(logs[losses.argmin()] - 1, abs=1e-6)


def noisy_curve(seed: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Returns losses over rising learning rates: level, falling, rising, with noise; a third of the curves smoothed."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(40, 150))
    logs = np.linspace(draw.uniform(-7, -4), draw.uniform(0, 1.5), count)
    drop, middle, noise, rise = draw.uniform(0.2, 1.5), draw.uniform(-4, -1), draw.uniform(0, 0.15), draw.uniform(0, 6)
    losses = 2.3 - drop * np.clip((logs - middle) / 2, 0, 1)
    losses += rise * np.maximum(0, logs - draw.uniform(-1.5, 0.5)) ** 2 + draw.normal(0, noise, count)
    return np.round(smoothed(losses.tolist()) if seed % 3 == 0 else losses, 6)


def test_valley_and_slide_are_fastais_on_200_noisy_curves() -> None:
    # the indices that fastai 2.8.12's own functions (callback/schedule.py) return for these curves
    with (REFERENCE / "fastai_suggestions.csv").open() as file:
        rows = [{key: int(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == 200
    found = [(row["seed"], valley(losses), slide(losses)) for row in rows for losses in [noisy_curve(row["seed"])]]
    assert found == [tuple(row.values()) for row in rows]


def test_a_sweep_goes_on_until_the_loss_rises_or_says_that_it_still_falls() -> None:
    enough = sweep(step(), islice(repeat(BATCH), 200), 0.1, 1e-4, 1e-1, 50)
    assert 50 < len(enough.rates) < 200
    assert enough.rates[49] == pytest.approx(1e-1)
    assert not enough.still_falls
    short = sweep(step(), islice(repeat(BATCH), 50), 0.1, 1e-4, 1e-1, 50)
    assert short.still_falls
    with pytest.raises(SettingsError, match=r"the loss still falls at the last learning rate, 0.1: .* sweep to a higher one"):
        short.suggestions()


def smoothed(losses: list[float]) -> list[float]:
    averages = np.zeros(len(losses) + 1)
    for number, loss in enumerate(losses, 1):
        averages[number] = 0.98 * averages[number - 1] + 0.02 * loss
    return [average / (1 - 0.98**number) for number, average in enumerate(averages[1:].tolist(), 1)]


@pytest.mark.parametrize("seed", range(30))
def test_noise_of_the_first_batches_suggests_nothing(seed: int) -> None:
    logs = np.linspace(-7, 1, 100)  # level up to 10^-4, falls to 10^-1, rises
    noise = np.random.default_rng(seed).normal(0, 0.1, 100)
    losses = (2.3 - 0.9 * np.clip((logs + 4) / 3, 0, 1) + np.maximum(0, logs + 0.5) * 5 + noise).tolist()
    found = Sweep((10**logs).tolist(), losses, smoothed(losses)).suggestions()
    assert 1e-6 < found["steepest"] < 1
    assert 1e-6 < found["valley"] < 1


def test_the_first_loss_decides_nothing_even_where_it_is_far_off() -> None:
    logs = np.linspace(-4, 0, 81)
    losses = 2 - 1 / (1 + np.exp(-6 * (logs + 2)))
    losses[0] = 9
    assert np.log10(curve(losses).suggestions()["steepest"]) == pytest.approx(-2, abs=0.06)


@pytest.mark.parametrize("seed", range(30))
def test_the_steepest_slope_is_not_at_the_edge_of_the_explosion(seed: int) -> None:
    logs = np.linspace(-7, 2, 110)  # level up to 10^-2, falls, fastest from 10^-1 to 10^0, explodes after 10^1.2
    noise = np.random.default_rng(seed).normal(0, 0.02, 110)
    fall = 0.12 * np.clip(logs + 2, 0, 3.2) + 0.15 * np.clip(logs + 1, 0, 1)
    losses = (2.33 - fall + 9 * np.maximum(0, logs - 1.2) ** 2 + noise).tolist()
    found = Sweep((10**logs).tolist(), losses, smoothed(losses))
    lowest = found.rates[int(np.argmin(found.smoothed))]
    assert 0.05 < found.suggestions()["steepest"] < lowest / 2


@pytest.mark.parametrize("trend", [0.0, 0.02])
def test_a_curve_that_does_not_fall_suggests_nothing(trend: float) -> None:
    losses = (2.3 + trend * np.arange(100) + np.random.default_rng(0).normal(0, 0.1, 100)).tolist()
    with pytest.raises(SettingsError, match=r"within its noise \(0\.\d+\): the curve suggests no learning rate"):
        Sweep(np.geomspace(1e-7, 10, 100).tolist(), losses, smoothed(losses)).suggestions()


def test_a_curve_of_a_few_rates_suggests_nothing() -> None:
    with pytest.raises(SettingsError, match=r"diverged after 3 learning rates, from 0.0001; start the sweep at a lower one"):
        curve(np.array([1.0, 2, 5])).suggestions()


SMALL = [f"data.name={SAMPLE}", "model.width=8", "batch_size=40", "threads=1", "precision=fp32"]


@pytest.mark.parametrize("recipe", [name for name in recipes() if not load_config(name).init_from])
def test_every_recipe_has_a_curve_that_falls_and_suggestions_on_it(tmp_path: Path, recipe: str) -> None:
    config = load_config(recipe, [*SMALL, "augment.cutout=0"])
    (found,) = lr_find(config, RunFolder(tmp_path / "lr"), 1, 1e-4, 10, 100)
    lowest_loss = found["rates"][int(np.argmin(found["smoothed"]))]
    assert min(found["smoothed"]) < found["smoothed"][10] - 0.05
    assert all(found["rates"][10] <= found["suggestions"][name] <= lowest_loss for name in ("steepest", "valley"))
    assert found["rates"][0] <= found["suggestions"]["slide"] <= found["rates"][-1]
    assert found["suggestions"]["minimum"] == pytest.approx(lowest_loss / 10)


def test_a_training_of_no_epochs_has_no_curve(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="epochs=0: only the last layer is fitted, at no learning rate"):
        lr_find(load_config("photos", [f"data.name={SAMPLE}"]), RunFolder(tmp_path / "lr"))


def test_the_sweep_sees_images_of_the_size_that_training_begins_with(tmp_path: Path) -> None:
    config = load_config("sprint94", SMALL)
    sides = []
    forward = Step.forward

    def seen(step: Step, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sides.append(images.shape[2])
        return forward(step, images, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "forward", seen)
        lr_find(config, RunFolder(tmp_path / "lr"), 1, 1e-3, 10, 40)
    assert set(sides) == {24}


def test_the_command_keeps_curves_and_a_picture(sprintnet: Command, tmp_path: Path) -> None:
    finished = sprintnet("lr-find", "davidnet", *SMALL, "--seeds", "2", "--rates", "40", "--lowest", "1e-4")
    assert finished.returncode == 0, finished.stderr
    folder = tmp_path / "runs" / "lr_find" / "davidnet"
    sweeps = json.loads((folder / "lr_finder.json").read_text())["sweeps"]
    assert [found["seed"] for found in sweeps] == [0, 1]
    assert (folder / "plots" / "lr_finder.png").stat().st_size > 5000
    assert "median of 2 seeds" in finished.stdout
    first_words = [line.split()[0] for line in finished.stdout.splitlines() if line]
    rules = ("steepest", "minimum", "valley", "slide")
    assert [word for word in first_words if word in rules] == ["steepest"]
    every = sprintnet("lr-find", "davidnet", *SMALL, "--rates", "40", "--lowest", "1e-4", "--all")
    first_words = [line.split()[0] for line in every.stdout.splitlines() if line]
    assert [word for word in first_words if word in rules] == list(rules)
    assert sprintnet("lr-find", "davidnet", "--rates", "3").returncode == 2


@pytest.mark.parametrize("recipe", ["davidnet", "sprint94"])
def test_auto_trains_at_the_suggestion_and_keeps_it_over_a_resume(recipe: str, tmp_path: Path, tiny: list[str]) -> None:
    small = [*(setting for setting in tiny if "max_lr" not in setting), "model.width=8"]
    config = load_config(recipe, [*small, "lr_find=true"])
    run = RunFolder(tmp_path / "run")
    train(config, run)
    taken = read_json(run.lr_finder)["sweeps"][0]["suggestions"][RECOMMENDED]
    peak = max(Schedule(config.schedule, config.epochs).lr_factor(epoch) for epoch in range(config.epochs))
    assert max(float(row["lr"]) for row in read_rows(run.results)) == pytest.approx(taken * peak)
    assert load_config(run.config) == config
    scaled = config.with_peak(taken)
    assert scaled.peak_lr == pytest.approx(taken)
    assert scaled.optim.head_lr * config.peak_lr == pytest.approx(config.optim.head_lr * taken)
    found = read_json(run.lr_finder)
    found["sweeps"][0]["suggestions"][RECOMMENDED] = 2 * taken  # what a resumed run must read, not find again
    write_json(run.lr_finder, found)
    run.metrics.unlink()
    train(config, run, resume=True)
    assert read_json(run.metrics)["peak_lr"] == pytest.approx(2 * taken)
    assert max(float(row["lr"]) for row in read_rows(run.results)) == pytest.approx(2 * taken * peak)
    run.metrics.unlink()
    run.lr_finder.unlink()
    run.checkpoint.touch()
    with pytest.raises(SettingsError, match=r"lr_finder.json: missing"):
        train(config, run, resume=True)


def test_a_learning_rate_is_not_given_where_one_is_to_be_found(tmp_path: Path) -> None:
    finding = load_config("davidnet", ["lr_find=true"])
    (tmp_path / "found.toml").write_text(finding.to_toml())
    assert load_config(tmp_path / "found.toml") == finding
    for rate in ("optim.max_lr=0.3", "optim.head_lr=0.3", "muon.max_lr=0.3"):
        with pytest.raises(SettingsError, match=rf"{rate}: lr_find=true would replace it; leave one of them out"):
            load_config(tmp_path / "found.toml", [rate])
    assert load_config(tmp_path / "found.toml", ["optim.max_lr=0.3", "lr_find=false"]).optim.max_lr == 0.3
