"""Training on a real GPU against the CPU; without a GPU these tests are skipped (tests/cuda tests what can be tested then)."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from small_sets import preprocessing
from sprintnet.config import Config, load_config
from sprintnet.data.augment import augment, resize, sample_params
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Loader
from sprintnet.data.settings import AugmentSettings
from sprintnet.errors import Interrupted
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runtime import Runtime, select_runtime
from sprintnet.training.graphs import CudaGraphs
from sprintnet.training.muon import muon_update_in_one_batch
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.schedule import Schedule
from sprintnet.training.setup import build_step, whiten
from sprintnet.training.step import Step
from sprintnet.training.train import train
from sprintnet.training.warm_up import random_images, warm_up

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
RECIPES = ["sprint94", "davidnet"]
DRAW = np.random.default_rng(0)
DATASET = ImageDataset(DRAW.integers(0, 256, (2000, 32, 32, 3), np.uint8), np.arange(2000) % 10, tuple(map(str, range(10))))
SETTINGS = ["batch_size=500", "epochs=5", "data.val=0"]


def start(recipe: str, device: str, precision: str, *settings: str) -> tuple[Step, Loader, Config]:
    """Returns a step, its loader and its settings, from the same seed on each device."""
    config = load_config(recipe, [*SETTINGS, *settings])
    torch.manual_seed(0)
    runtime = select_runtime(device, precision, 2, deterministic=config.deterministic)
    step, loader = build_step(config, DATASET, runtime)
    step.model.train()
    return step, loader, config


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().cpu().double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("recipe", RECIPES)
def test_gradients_are_those_of_double_precision_on_the_cpu(recipe: str) -> None:
    step, loader, _ = start(recipe, "cuda", "fp32")
    exact = copy.deepcopy(step.model).cpu().double()
    images, labels = random_images(loader, 100), loader.labels[:100]
    with step.runtime.activated():
        step.backward(step.forward(images, labels)[0])
    there = Step(exact, step.optimizer, Runtime(torch.device("cpu"), "fp32", 2), step.label_smoothing, 0.0, step.task)
    loss, _ = there.forward(images.cpu().double().contiguous(memory_format=torch.channels_last), labels.cpu())
    loss.backward()
    pairs = zip(step.model.named_parameters(), exact.parameters(), strict=True)
    found = {
        name: relative_difference(parameter.grad, expected.grad)
        for (name, parameter), expected in pairs
        if parameter.grad is not None and expected.grad is not None
    }
    assert max(found.values()) < 0.02, found  # TF32 is off; the rest is the order of sums


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_in_reduced_precision_is_close_to_fp32(recipe: str, precision: str) -> None:
    after = []
    for kind in (precision, "fp32"):
        step, loader, config = start(recipe, "cuda", kind)
        whiten(step.model, loader, config)
        before = [parameter.detach().clone() for parameter in step.model.parameters()]
        if kind == "fp16":
            step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 256.0})
        with step.runtime.activated():
            set_learning_rates(step.optimizer, 0.1, 1)
            step(*next(loader.epoch(0, 0, config.augment)))
        assert step.read().is_sound
        assert step.read().skipped == 0
        after.append([new - old for new, old in zip(step.model.parameters(), before, strict=True)])
    changes = [torch.cat([change.flatten() for change in each]) for each in after]
    assert torch.nn.functional.cosine_similarity(*changes, dim=0) > 0.9


def test_muon_on_the_gpu_is_muon_on_the_cpu() -> None:
    shapes, results = [(64, 24, 3, 3), (256, 128, 3, 3), (256, 256, 3, 3)], []
    for device in ("cpu", "cuda"):
        draw = torch.Generator().manual_seed(0)
        tensors = [
            [torch.randn(shape, generator=draw).to(device, memory_format=torch.channels_last) for shape in shapes]
            for _ in range(3)
        ]
        for weight, gradient in zip(tensors[0], tensors[1], strict=True):
            weight.grad = gradient
        lr = torch.tensor(0.1, device=device)
        muon_update_in_one_batch(tensors[0], tensors[2], lr=lr, momentum=0.6, grad_scale=None, found_inf=None)
        results.append(tensors[0])
    for expected, found in zip(*results, strict=True):
        assert relative_difference(found, expected) < 0.02  # bf16 products, in another order


def test_augmented_and_resized_images_are_those_of_the_cpu() -> None:
    settings = AugmentSettings(padding="reflect")
    params = sample_params(100, 32, 32, settings, torch.Generator().manual_seed(0))
    images = torch.randn(100, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    there = augment(images.cuda(), params.to(torch.device("cuda")), settings)
    expected = augment(images, params, settings)
    torch.testing.assert_close(there.cpu(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(resize(there, 0.75).cpu(), resize(expected, 0.75), atol=1e-4, rtol=1e-4)
    plain = AugmentSettings(affine=0, cutout=0)  # copies only: equal bits
    params = sample_params(100, 32, 32, plain, torch.Generator().manual_seed(0))
    assert torch.equal(augment(images.cuda(), params.to(torch.device("cuda")), plain).cpu(), augment(images, params, plain))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recorded_steps_are_the_launched_ones(
    recipe: str, precision: str, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, schedule = [], Schedule(load_config(recipe).schedule, 5)
    for is_recorded in (False, True):
        step, loader, config = start(
            recipe, "cuda", precision, f"cuda_graph={str(is_recorded).lower()}", f"model.dropout={dropout}"
        )
        with step.runtime.activated(0):
            assert warm_up(step, config, loader) > 0
            assert bool(step._recorded) == is_recorded
            if is_recorded:
                monkeypatch.setattr(Step, "_run", None)  # nothing is left to the plain step
            whiten(step.model, loader, config)
            for epoch in range(config.epochs):
                for number, (images, labels) in enumerate(loader.epoch(0, epoch, config.augment)):
                    position = schedule.position(epoch, number, len(loader))
                    set_learning_rates(step.optimizer, schedule.lr_factor(position), schedule.whitening_factor(position))
                    step(resize(images, schedule.resolution(position)), labels)
        results.append((step.read(), step.model.state_dict()))
    (totals, weights), (found, recorded) = results
    assert found == totals
    assert all(torch.equal(recorded[name], values) for name, values in weights.items())


def test_an_overflow_is_skipped_whole_and_counted() -> None:
    step, loader, config = start("davidnet", "cuda", "fp16")
    with step.runtime.activated(0):
        warm_up(step, config, loader)
        assert step._recorded
        step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 1024.0})
        images, labels = random_images(loader, 500), loader.labels[:500]
        weights = copy.deepcopy(step.model.state_dict())
        step(images * 1e6, labels)
        assert (step.read().skipped, step.read().images) == (1, 0)
        assert all(torch.equal(values, weights[name]) for name, values in step.model.state_dict().items())
        step(images, labels)
        assert (step.read().skipped, step.read().images) == (1, 500)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_step_waits_for_the_gpu() -> None:
    step, loader, config = start("sprint94", "cuda", "fp16", "cuda_graph=false")
    with step.runtime.activated(0):
        whiten(step.model, loader, config)
        loader.batches_at_once = 1
        batches = loader.epoch(0, 0, config.augment)
        images, labels = next(batches)
        step(resize(images, 0.75), labels)
        try:
            torch.cuda.set_sync_debug_mode("error")
            for images, labels in batches:
                step(resize(images, 0.75), labels)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resumed_run_ends_in_the_same_bits(recipe: str, tmp_path: Path) -> None:
    config = load_config(recipe, [*SETTINGS, "epochs=3", "device=cuda"])
    splits = {"train": DATASET, "test": DATASET.take(np.arange(200))}

    def stop(row: dict[str, object]) -> None:
        if row["epoch"] == 2:
            raise Interrupted("stopped by the test", 0)

    whole = train(config, RunFolder(tmp_path / "whole"), splits=splits)
    with pytest.raises(Interrupted):
        train(config, RunFolder(tmp_path / "parts"), splits=splits, on_epoch=stop)
    parts = train(config, RunFolder(tmp_path / "parts"), splits=splits, resume=True)
    expected = whole.model.model.state_dict()
    assert all(torch.equal(values, expected[name]) for name, values in parts.model.model.state_dict().items())
    assert read_json(tmp_path / "whole" / "metrics.json")["warmup_seconds"] > 0


def test_predictions_with_tta_are_those_of_the_cpu() -> None:
    step, loader, config = start("sprint94", "cuda", "fp32")
    whiten(step.model, loader, config)
    described = preprocessing(DATASET.classes)
    there = TrainedModel(step.model, described, step.runtime).evaluate(DATASET, 1.0).arrays
    cpu = select_runtime("cpu", "fp32", 2)
    here = TrainedModel(cpu.place(copy.deepcopy(step.model)), described, cpu).evaluate(DATASET, 1.0).arrays
    for name in ("logits", "tta_logits"):
        np.testing.assert_allclose(there[name], here[name], atol=1e-3 * np.abs(here[name]).max())


def test_a_compiled_step_is_close_to_the_plain_one() -> None:
    results = []
    for is_compiled in ("false", "true"):
        step, loader, config = start("sprint94", "cuda", "bf16", f"compile={is_compiled}", "cuda_graph=false")
        with step.runtime.activated(0):
            warm_up(step, config, loader)
            whiten(step.model, loader, config)
            set_learning_rates(step.optimizer, 0.1, 1)
            step(resize(next(loader.epoch(0, 0, config.augment))[0], 0.75), loader.labels[:500])
        results.append(torch.cat([parameter.detach().flatten() for parameter in step.model.parameters()]))
    assert relative_difference(results[1], results[0].cpu()) < 0.02


def test_batches_augmented_at_once_are_those_augmented_one_by_one() -> None:
    _, several, _ = start("davidnet", "cuda", "fp32")
    _, one, _ = start("davidnet", "cuda", "fp32")
    one.batches_at_once = 1
    for first in (0, 2):
        both = (loader.epoch(0, 1, AugmentSettings(), first) for loader in (several, one))
        for (images, labels), (expected, same) in zip(*both, strict=True):
            torch.testing.assert_close(images, expected, atol=1e-5, rtol=1e-5)
            assert torch.equal(labels, same)


def test_graphs_share_memory() -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    step, loader, _ = start("sprint94", "cuda", "bf16")
    with step.runtime.activated(0):
        images, labels = random_images(loader, 500), loader.labels[:500]
        graphs, held = CudaGraphs(), []
        for size in (500, 499, 498):
            for _ in range(3):
                step(images[:size], labels[:size])
            step.record(images[:size], labels[:size], graphs)
            torch.cuda.synchronize()
            held.append(torch.cuda.memory_reserved() - before)
    assert held[2] < 1.5 * held[0]
