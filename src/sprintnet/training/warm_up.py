"""Warm-up of a GPU before a run's clock starts: libraries load, kernels are chosen or compiled, CUDA graphs are recorded."""

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from sprintnet.config import Config
from sprintnet.data.augment import resize
from sprintnet.data.loader import Loader
from sprintnet.errors import SprintNetError, is_out_of_memory
from sprintnet.evaluation.predict import predict
from sprintnet.models.sprintnet import SprintNet
from sprintnet.training.checkpoint import random_state, set_random_state
from sprintnet.training.graphs import CudaGraphs
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.schedule import Schedule
from sprintnet.training.step import Step

STEPS = 3  # before recording


@dataclass(frozen=True)
class StepKind:
    """What distinguishes steps that launch different kernels."""

    images: int
    resolution: float
    trains_whitening: bool


def step_kinds(config: Config, loader: Loader, *, has_whitening: bool) -> list[StepKind]:
    """Returns the kinds of steps of a training, in the order of their first occurrence."""
    schedule, sizes = Schedule(config.schedule, config.epochs), loader.batch_sizes
    kinds: dict[StepKind, None] = {}
    for epoch in range(config.epochs):
        for batch, size in enumerate(sizes):
            position = schedule.position(epoch, batch, len(sizes))
            trains_whitening = has_whitening and schedule.whitening_factor(position) > 0
            kinds[StepKind(size, schedule.resolution(position), trains_whitening)] = None
    return list(kinds)


def warm_up(step: Step, config: Config, loader: Loader) -> float:
    """Runs each kind of step on random images and records it as a CUDA graph; returns the seconds it took, 0 on a CPU.

    Weights, momentum, totals and random generators are afterwards as before; learning rates are set by each step of training.
    With `cuda_graph` off, nothing is recorded. Raises SprintNetError where PyTorch cannot record or compile.
    """
    device = step.runtime.device
    if device.type != "cuda":
        return 0.0
    started, before = time.monotonic(), copy.deepcopy(step.state_dict())
    kinds = step_kinds(config, loader, has_whitening=step.optimizer.has_whitening)
    if config.compile:
        step.compile(len(kinds))
    try:
        _warm_up(step, config, loader, kinds, CudaGraphs() if config.cuda_graph and step.runtime.ranks.world == 1 else None)
    except Exception as error:  # PyTorch's compiler has exceptions of many kinds
        if isinstance(error, SprintNetError) or is_out_of_memory(error):
            raise
        cause = error.__context__ or error  # a capture that failed fails again when it is ended
        raise SprintNetError(
            f"the steps could not be recorded or compiled ({cause}); use cuda_graph=false compile=false"
        ) from error
    step.load_state_dict(before)
    step.optimizer.zero_grad()
    torch.cuda.synchronize(device)
    return time.monotonic() - started


def _warm_up(step: Step, config: Config, loader: Loader, kinds: list[StepKind], graphs: CudaGraphs | None) -> None:
    step.model.train()
    ranks = step.runtime.ranks
    images = random_images(loader, -(-max(loader.batch_sizes) // ranks.world))
    if isinstance(step.model, SprintNet):
        step.model.whiten_from(images)
    next(loader.epoch(config.seed, 0, config.augment))
    predict(step.model, [(images, loader.labels[: len(images)])], step.runtime)
    for kind in kinds:
        set_learning_rates(step.optimizer, 1e-6, float(kind.trains_whitening))
        part = ranks.part(slice(0, kind.images))
        count = part.stop - part.start
        batch, labels = resize(images[:count], kind.resolution), loader.targets(torch.arange(count, device=loader.device))
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # as PyTorch's documentation advises
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(STEPS):
                step(batch, labels, kind.images)
        torch.cuda.current_stream().wait_stream(stream)
        if graphs:
            step.record(batch, labels, graphs)


def step_seconds(step: Step, loader: Loader) -> float:
    """Returns the seconds of a forward and a backward pass of a batch, after one that is not measured.

    Neither weights nor random generators change; the network must keep the statistics of batch norm.
    """
    images = random_images(loader, max(loader.batch_sizes))
    labels = loader.targets(torch.arange(len(images), device=loader.device))
    generators, seconds = random_state(loader.device), 0.0
    step.model.train()
    for _ in range(2):
        started = time.monotonic()
        loss, _ = step.forward(images, labels)
        step.backward(loss)
        float(loss.detach())  # waits for the device
        seconds = time.monotonic() - started
    step.optimizer.zero_grad()
    set_random_state(generators, loader.device)
    return seconds


def random_images(loader: Loader, count: int) -> Tensor:
    """Returns random images (count, C, H, W) in the loader's shape, on its device, in channels_last; no generator advances."""
    generator = torch.Generator(loader.device).manual_seed(0)
    height, width, channels = loader.images.shape[1:]
    pixels = torch.randn(count, height, width, channels, generator=generator, device=loader.device)
    return pixels.permute(0, 3, 1, 2)
