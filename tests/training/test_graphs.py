"""A recorded step against the plain one; the GPU itself is tested by tests/test_cuda.py."""

import copy

import numpy as np
import pytest
import torch

from recorded_operations import RecordedOperations
from sprintnet.config import Config, load_config
from sprintnet.data.augment import resize
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Loader
from sprintnet.errors import SettingsError
from sprintnet.models.sprintnet import SprintNet
from sprintnet.runtime import Runtime
from sprintnet.training.muon import muon_update, muon_update_in_one_batch
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.schedule import Schedule
from sprintnet.training.setup import build_step, whiten
from sprintnet.training.step import Step
from sprintnet.training.warm_up import random_images, step_kinds

IMAGES = np.random.default_rng(0).integers(0, 256, (130, 16, 16, 3), np.uint8)
DATASET = ImageDataset(IMAGES, np.arange(130) % 10, tuple(map(str, range(10))))
SETTINGS = ["model.width=8", "batch_size=26", "epochs=4", "schedule.whitening=0.4", "auto="]


def start(recipe: str, precision: str, *settings: str) -> tuple[Step, Loader, Config]:
    """Returns a step as on CUDA: without compiled kernels, learning rates as tensors, Muon in one batch."""
    config = load_config(recipe, [*SETTINGS, *settings])
    torch.manual_seed(0)
    step, loader = build_step(config, DATASET, Runtime(torch.device("cpu"), precision, 1))
    for group in step.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
        if group["update"] is muon_update:
            group["update"] = muon_update_in_one_batch
    step.model.train()
    return step, loader, config


def use_pytorch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes no compiled kernel, as on CUDA."""
    for module in ("conv3x3", "dispatch"):
        monkeypatch.setattr(f"sprintnet.kernels.{module}.can_train", lambda *_: False)


def train(step: Step, loader: Loader, config: Config) -> None:
    """Trains all epochs."""
    whiten(step.model, loader, config)
    schedule = Schedule(config.schedule, config.epochs)
    for epoch in range(config.epochs):
        for number, (images, labels) in enumerate(loader.epoch(0, epoch, config.augment)):
            position = epoch + number / len(loader)
            set_learning_rates(step.optimizer, schedule.lr_factor(position), schedule.whitening_factor(position))
            step(resize(images, schedule.resolution(position)), labels)


@pytest.mark.parametrize(("recipe", "precision"), [("sprint94", "bf16"), ("sprint94", "fp16"), ("davidnet", "fp32")])
def test_twenty_recorded_steps_are_the_plain_ones(recipe: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_pytorch_alone(monkeypatch)
    plain, loader, config = start(recipe, precision)
    train(plain, loader, config)
    recorded, loader, config = start(recipe, precision)
    before = copy.deepcopy(recorded.state_dict())
    for kind in step_kinds(config, loader, has_whitening=recorded.optimizer.has_whitening):
        set_learning_rates(recorded.optimizer, 1e-6, float(kind.trains_whitening))
        images = random_images(loader, kind.images)
        recorded.record(resize(images, kind.resolution), loader.labels[: kind.images], RecordedOperations())
    recorded.load_state_dict(before)
    monkeypatch.setattr(Step, "_run", None)  # nothing is left to the plain step
    train(recorded, loader, config)
    assert recorded.read() == plain.read()
    expected = plain.state_dict()
    for name, values in recorded.state_dict()["model"].items():
        assert torch.equal(values, expected["model"][name]), name
    momenta = (step.optimizer.state_dict()["momentum_buffers"] for step in (recorded, plain))
    assert all(map(torch.equal, *momenta))


def test_an_overflow_in_a_replay_is_skipped_and_counted() -> None:
    step, loader, _ = start("davidnet", "fp16")
    images, labels = random_images(loader, 26), loader.labels[:26]
    before = copy.deepcopy(step.state_dict())
    step.record(images, labels, RecordedOperations())
    step.load_state_dict(before)
    weights = copy.deepcopy(step.model.state_dict())
    step(images * 1e6, labels)
    assert (step.read().skipped, step.read().images) == (1, 0)
    assert all(torch.equal(values, weights[name]) for name, values in step.model.state_dict().items())
    step(images, labels)
    assert (step.read().skipped, step.read().images) == (1, 26)


def test_every_kind_of_step_is_known_before_training() -> None:
    _, loader, config = start("sprint94", "fp32", "batch_size=40")  # 130 images in batches of 32 and 33
    kinds = step_kinds(config, loader, has_whitening=True)
    assert [(kind.images, kind.resolution, kind.trains_whitening) for kind in kinds] == [
        (32, 0.75, True), (33, 0.75, True), (33, 0.75, False), (32, 1.0, False), (33, 1.0, False),
    ]  # fmt: skip


def test_a_network_without_whitening_has_half_the_kinds() -> None:
    step, loader, config = start("davidnet", "fp32", "batch_size=40")
    kinds = step_kinds(config, loader, has_whitening=step.optimizer.has_whitening)
    assert [(kind.images, kind.trains_whitening) for kind in kinds] == [(32, False), (33, False)]


@pytest.mark.parametrize("recipe", ["sprint94", "davidnet"])
def test_network_and_loss_are_one_graph_for_the_compiler(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_pytorch_alone(monkeypatch)
    (plain, loader, _), (compiled, *_) = start(recipe, "bf16"), start(recipe, "bf16")
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: real(*args, backend="aot_eager", **options))
    compiled.compile(1)
    images, labels = random_images(loader, 26), loader.labels[:26]
    assert isinstance(plain.model, SprintNet) == (recipe == "sprint94")
    for step in (plain, compiled):
        step(images, labels)
        step(images, labels)
    assert compiled.read() == plain.read()
    assert all(map(torch.equal, compiled.model.state_dict().values(), plain.model.state_dict().values()))


def test_what_was_recorded_and_compiled_can_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    step, loader, _ = start("sprint94", "fp32")
    images, labels = random_images(loader, 26), loader.labels[:26]
    step.record(images, labels, RecordedOperations())
    monkeypatch.setattr(torch, "compile", lambda function, **_: None)  # what it returns cannot be called
    step.compile(1)
    with pytest.raises(TypeError):
        step.forward(images, labels)
    step.launch_plainly()
    step.reset()
    step(images, labels)
    assert step.read().images == 26


def test_compiling_needs_cuda() -> None:
    with pytest.raises(SettingsError, match="compile=true: works on cuda alone, and the device is cpu"):
        start("sprint94", "fp32", "compile=true")
