"""What it brings to let the allocator keep freed memory: images/s of training steps with and without, A B A B.

    python benchmarks/allocator.py sprint94 davidnet

Each arm is a process of its own, since the allocator cannot be told to forget. Appends a row per recipe to
benchmarks/results/allocator.jsonl: median images/s of each arm, the ratio of medians, peak memory, n.
"""

import argparse
import datetime
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from sprintnet.config import load_config
from sprintnet.run import environment

ROUNDS = 4
STEPS = 6
RESULTS = Path(__file__).parent / "results" / "allocator.jsonl"


def measure(recipe: str, arm: str) -> dict[str, float]:
    """Returns the median images/s of training steps on random images (without the first two), and the peak memory."""
    import torch

    from sprintnet import runtime
    from sprintnet.data.dataset import ImageDataset
    from sprintnet.data.loader import Loader, Normalisation
    from sprintnet.models.build import build_model
    from sprintnet.training.optim import build_optimizer
    from sprintnet.training.step import Step

    if arm == "returned":
        runtime._keep_freed_memory = lambda: None
    config = load_config(recipe)
    context = runtime.start("cpu", config.precision, config.threads, 0)
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size * STEPS, 32, 32, 3), dtype=np.uint8)
    dataset = ImageDataset(images, np.arange(len(images)) % 10, tuple("0123456789"))
    loader = Loader(dataset, Normalisation((0.5,) * 3, (0.25,) * 3), config.batch_size, context.device)
    model = build_model(config.model, 10, (32, 32, 3)).to(memory_format=torch.channels_last)
    if hasattr(model, "whiten_from"):
        model.whiten_from(loader.first(1000))
    step = Step(model, build_optimizer(model, config.optim, config.muon), context, config.label_smoothing, config.l1)
    seconds, last = [], time.perf_counter()
    for batch in loader.epoch(0, 0, config.augment):
        step(*batch)
        seconds.append(time.perf_counter() - last)
        last = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"images_per_second": config.batch_size / statistics.median(seconds[2:]), "peak_gib": peak}


def main() -> None:
    """Runs the arms in turn and appends a row a recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--arm", choices=("kept", "returned"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(options.recipes[0], options.arm)))
        return
    for recipe in options.recipes:
        found: dict[str, list[dict[str, float]]] = {"returned": [], "kept": []}
        for _ in range(ROUNDS):
            for arm, measured in found.items():
                command = [sys.executable, __file__, recipe, "--arm", arm]
                measured.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
                print(recipe, arm, measured[-1], flush=True)
        rates = {arm: [entry["images_per_second"] for entry in measured] for arm, measured in found.items()}
        record = environment()
        row = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            **{key: record[key] for key in ("commit", "versions", "cpu", "cores")},
            "what": "freed memory kept by the allocator, against returned to the system",
            "recipe": recipe,
            "n": ROUNDS,
            "images_per_second": rates,
            "ratio_of_medians": statistics.median(rates["kept"]) / statistics.median(rates["returned"]),
            "peak_gib": {arm: max(entry["peak_gib"] for entry in measured) for arm, measured in found.items()},
            "clock": f"median of {STEPS - 2} steps: order, augmentation, forward, backward, update",
        }
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{recipe}: {row['ratio_of_medians']:.2f} times as fast")


if __name__ == "__main__":
    main()
