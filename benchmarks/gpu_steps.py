"""Milliseconds of a training step on a GPU, by how the step is launched, on random images.

    python benchmarks/gpu_steps.py sprint94 davidnet --output results/gpu-steps.jsonl --profiles results

Appends a row for each recipe, precision and launch: milliseconds by resolution (median of the steps after the warm-up), and the
seconds of the warm-up. With `--profiles`, first writes the operations of 20 launched steps, longest first. On a CPU all
launches are alike: a rehearsal.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import profile

from sprintnet.autoconfig import DatasetFacts, resolve
from sprintnet.config import Config, load_config
from sprintnet.data.augment import resize
from sprintnet.data.dataset import ImageDataset
from sprintnet.runs.io import append_row
from sprintnet.runtime import Runtime, select_runtime
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.setup import build_step
from sprintnet.training.step import Step
from sprintnet.training.warm_up import random_images, warm_up

LAUNCHES = {
    "each operation": ["cuda_graph=false"],
    "CUDA graph": [],
    "CUDA graph, fastest kernels": ["deterministic=false"],
    "CUDA graph, compiled": ["compile=true", "deterministic=false"],
}


def images_like_cifar10(count: int) -> ImageDataset:
    """Returns random images."""
    draw = np.random.default_rng(0)
    return ImageDataset(draw.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10, tuple("0123456789"))


def start(recipe: str, settings: list[str], images: ImageDataset) -> tuple[Config, Runtime]:
    """Returns the settings of a recipe for the images, and the runtime; on a CPU nothing is compiled."""
    kept = settings if torch.cuda.is_available() else [each for each in settings if each != "compile=true"]
    config, _ = resolve(load_config(recipe, ["data.val=0", "auto=", *kept]), DatasetFacts.of(images))
    return config, select_runtime(config.device, config.precision, config.threads, deterministic=config.deterministic)


def measure(config: Config, runtime: Runtime, images: ImageDataset, steps: int) -> dict[str, Any]:
    """Returns milliseconds by resolution, and the seconds of the warm-up."""
    found: dict[str, float] = {}
    with runtime.activated(config.seed):
        step, loader = build_step(config, images, runtime)
        seconds = warm_up(step, config, loader)
        size = loader.batch_sizes[0]
        batch, labels = random_images(loader, size), loader.labels[:size]
        set_learning_rates(step.optimizer, 1e-6, 0)
        step.model.train()
        for share in dict.fromkeys(config.schedule.resolution):
            resized = resize(batch, share)
            laps = []
            for _ in range(steps):
                wait(runtime)
                started = time.perf_counter()
                for _ in range(5):
                    step(resized, labels)
                wait(runtime)
                laps.append(200 * (time.perf_counter() - started))
            found[f"{share:g}"] = statistics.median(laps)
    return {"batch_size": size, "milliseconds": found, "warmup_seconds": seconds, "n": steps}


def operations(step: Step, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Returns the table of the operations of 20 steps."""
    with profile() as found:
        for _ in range(20):
            step(images, labels)
    by = "self_device_time_total" if images.is_cuda else "self_cpu_time_total"
    return str(found.key_averages().table(sort_by=by, row_limit=60, max_name_column_width=90))


def wait(runtime: Runtime) -> None:
    """Waits for the device."""
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measures and appends the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "gpu-steps.jsonl")
    parser.add_argument("--profiles", type=Path)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp16"])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=20, help="measurements, of five steps each")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", help="settings, such as model.width=8")
    options = parser.parse_args()
    images, gpu = images_like_cifar10(options.images), torch.cuda.get_device_name() if torch.cuda.is_available() else None
    for recipe in options.recipes if options.profiles else ():
        config, runtime = start(recipe, [*options.settings, "cuda_graph=false"], images)
        with runtime.activated(config.seed):
            step, loader = build_step(config, images, runtime)
            step.model.train()
            size = loader.batch_sizes[0]
            batch, labels = random_images(loader, size), loader.labels[:size]
            step(batch, labels)
            (options.profiles / f"operations-{recipe}.txt").write_text(operations(step, batch, labels), "utf-8")
    for launch, recipe, precision in itertools.product(LAUNCHES, options.recipes, options.precisions):
        config, runtime = start(recipe, [*options.settings, f"precision={precision}", *LAUNCHES[launch]], images)
        found = measure(config, runtime, images, options.steps)
        append_row(options.output, {"recipe": recipe, "precision": precision, "launch": launch, "gpu": gpu, **found})
        print(f"{recipe} {precision} {launch}: {found['milliseconds']} ms, warm-up {found['warmup_seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
