"""The speed of a recipe on this machine: phases of a step, arithmetic against the ceiling, memory, a whole training."""

import itertools
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sprintnet.autoconfig import DatasetFacts, resolve
from sprintnet.config import Config
from sprintnet.data.augment import resize
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.loader import Loader
from sprintnet.data.settings import AugmentSettings
from sprintnet.errors import SprintNetError
from sprintnet.evaluation.predict import predict
from sprintnet.models.transfer import Pretrained, load_pretrained
from sprintnet.runs.folder import RunFolder, evaluation_split, read_json
from sprintnet.runtime import DTYPES, Runtime, select_runtime
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.setup import build_step

WARM_UP, REPEATS = 2, 5
CEILING_SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}  # of square matrices to multiply
NO_AUGMENTATION = AugmentSettings(crop_padding=0, flip=0, affine=0, cutout=0)


def measure_phases(config: Config, images: ImageDataset) -> dict[str, Any]:
    """Returns medians of the phases of a training step at full resolution, and of whole steps at each resolution.

    `images_per_second` by phase (evaluate: forward only; None: below the noise), `step_images_per_second` by resolution,
    `gflop_per_image` and `gflops` (forward and backward as computed: Winograd convolutions do fewer multiplications; each
    multiplication and addition counts), `ceiling_gflops` of matrix products.
    """
    pretrained = load_pretrained(config.init_from, config.model, images.image_shape[2])
    config, _ = resolve(config, DatasetFacts.of(images, pretrained.saved.settings if pretrained else None))
    runtime = select_runtime(config.device, config.precision, config.threads, deterministic=config.deterministic)
    with runtime.activated(config.seed):
        return _measure_phases(config, images, runtime, pretrained)


def _measure_phases(config: Config, images: ImageDataset, runtime: Runtime, pretrained: Pretrained | None) -> dict[str, Any]:
    some = images.take(np.arange(min(len(images), (WARM_UP + REPEATS) * config.batch_size)))
    step, loader = build_step(config, some, runtime, pretrained)
    set_learning_rates(step.optimizer, 1e-6, 0)  # the whitening bias is frozen during most of training
    step.model.train()
    batches = list(itertools.islice(loader.endless(0, config.augment), WARM_UP + REPEATS))
    laps = []
    for inputs, labels in batches:
        clock = _Clock(runtime)
        loss, logits = step.forward(inputs, labels)
        forward = clock.lap()
        step.backward(loss)
        backward = clock.lap()
        step.update(loss.detach(), step.task.correct(logits.detach(), labels).sum(), len(labels))
        laps.append([lap / len(labels) for lap in (forward, backward, clock.lap())])
    times = map(statistics.median, zip(*laps[WARM_UP:], strict=True))
    medians = dict(zip(("forward", "backward", "update"), times, strict=True))
    medians["load"] = _loading(loader, NO_AUGMENTATION, runtime)
    medians["augment"] = max(_loading(loader, config.augment, runtime) - medians["load"], 0)
    inputs, labels = batches[0]
    medians["evaluate"] = _median(lambda: predict(step.model, [(inputs, labels)], runtime), runtime) / len(labels)
    steps = {}
    for resolution in dict.fromkeys((*config.schedule.resolution, 1.0)):
        resized = resize(inputs, resolution)
        steps[str(resolution)] = len(labels) / _median(partial(step, resized, labels), runtime)
    with FlopCounterMode(display=False) as counter:
        step.backward(step.forward(inputs, labels)[0])
    gflop = counter.get_total_flops() / len(labels) / 1e9
    return {
        **runtime.describe(),
        "batch_size": config.batch_size,
        "images_per_second": {phase: 1 / value if value else None for phase, value in medians.items()},
        "step_images_per_second": steps,
        "gflop_per_image": gflop,
        "gflops": gflop / (medians["forward"] + medians["backward"]),
        "ceiling_gflops": ceiling(runtime),
        "n": REPEATS,
    }


def ceiling(runtime: Runtime) -> float:
    """Returns the GFLOP/s of matrix products in the run's precision: the best of several sizes and repeats."""
    best = 0.0
    for side in CEILING_SIDES[runtime.device.type]:
        matrix = torch.randn(side, side, device=runtime.device).to(DTYPES[runtime.precision])
        clock = _Clock(runtime)
        for _ in range(4 * REPEATS):
            torch.mm(matrix, matrix)
            best = max(best, 2 * side**3 / clock.lap() / 1e9)
    return best


def measure_training(words: Sequence[str], run: RunFolder, target: float) -> dict[str, Any]:
    """Trains in a process of its own, `sprintnet train *words` into `run`, and returns its times and its peak memory.

    `command_seconds`: the whole command; `start_seconds`: until training begins; `warmup_seconds`: of a GPU; `train_seconds`:
    whitening, order, augmentation, forward, backward, update; `seconds_to_target`: the same where the trained network reaches
    the target, or else with the seconds of TTA where TTA reaches it (None: neither does); `accuracy`, `tta_accuracy`,
    `tta_seconds`, `peak_gib`.
    """
    started = time.time()
    command = [sys.executable, "-m", "sprintnet", "train", *words, "--name", run.path.name, "--no-report"]
    sys.stdout.flush()
    process = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        raise _failure(process.returncode, process.stderr.strip().removeprefix("sprintnet: "))
    metrics = read_json(run.metrics)
    evaluated = metrics[evaluation_split(metrics)]
    tta = evaluated.get("tta", {})
    seconds = metrics["train_seconds"] if evaluated["accuracy"] >= target else None
    if seconds is None and tta.get("accuracy", 0) >= target:
        seconds = metrics["train_seconds"] + tta["seconds"]
    return {
        "command_seconds": time.time() - started,
        "start_seconds": run.resolved.stat().st_mtime - started,  # the last file that is written before training
        "warmup_seconds": metrics["warmup_seconds"],
        "train_seconds": metrics["train_seconds"],
        "accuracy": evaluated["accuracy"],
        "tta_accuracy": tta.get("accuracy"),
        "tta_seconds": tta.get("seconds"),
        "target": target,
        "seconds_to_target": seconds,
        "peak_gib": metrics["peak_gib"],
    }


def _failure(code: int, message: str) -> SprintNetError:
    """Returns the error of a training that ended with this exit code (negative: by a signal)."""
    if code < 0:
        return SprintNetError(f"the training was ended by {signal.Signals(-code).name}; is there enough memory?")
    error = SprintNetError(f"the training failed: {message}")
    error.exit_code = code
    return error


class _Clock:
    """A stopwatch that waits for the device."""

    def __init__(self, runtime: Runtime):
        self._is_asynchronous = runtime.device.type != "cpu"
        self._last = self._now()

    def lap(self) -> float:
        """Returns the seconds since the last lap."""
        before, self._last = self._last, self._now()
        return self._last - before

    def _now(self) -> float:
        if self._is_asynchronous:
            torch.accelerator.synchronize()
        return time.perf_counter()


def _median(action: Callable[[], Any], runtime: Runtime) -> float:
    """Returns the median seconds of an action after warm-up."""
    clock, laps = _Clock(runtime), []
    for _ in range(WARM_UP + REPEATS):
        action()
        laps.append(clock.lap())
    return statistics.median(laps[WARM_UP:])


def _loading(loader: Loader, settings: AugmentSettings, runtime: Runtime) -> float:
    """Returns the median seconds an image of making a batch, after warm-up."""
    clock, batches = _Clock(runtime), itertools.islice(loader.endless(0, settings), WARM_UP + REPEATS)
    return statistics.median([clock.lap() / len(labels) for _, labels in batches][WARM_UP:])
