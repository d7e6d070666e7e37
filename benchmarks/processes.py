"""One process with two threads against two processes with one thread each: training steps of a recipe, A B A B.

    python benchmarks/processes.py sprint94 --rounds 3

Appends a row to benchmarks/results/processes.jsonl. Run nothing else on the machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from sprintnet.config import load_config
from sprintnet.data.augment import resize
from sprintnet.data.builtin import cache
from sprintnet.ranks import joined
from sprintnet.runs.io import append_row
from sprintnet.runtime import select_runtime
from sprintnet.training.setup import build_step, whiten

RESULTS = Path(__file__).parent / "results" / "processes.jsonl"
WARM_UP, STEPS = 5, 25
SIDES = {"1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}


def measure(recipe: str, threads: int) -> None:
    """Trains some steps, in this process or as one of several; the first prints the images a second."""
    config = load_config(recipe)
    with joined("cpu") as ranks:
        runtime = replace(select_runtime("cpu", "auto", threads), ranks=ranks, adapts_threads=False)
        with runtime.activated(0):
            step, loader = build_step(config, cache.load("cifar10")[0], runtime)
            whiten(step.model, loader, config)
            step.model.train()
            batches, size = loader.endless(0, config.augment), loader.batch_sizes[0]
            started = 0.0
            for number in range(WARM_UP + STEPS):
                if number == WARM_UP:
                    started = time.perf_counter()
                images, labels = next(batches)
                step(resize(images, config.schedule.resolution[0]), labels, size)
            seconds = time.perf_counter() - started
    if ranks.is_first:
        print(json.dumps({"images_per_second": STEPS * size / seconds}), flush=True)


def main() -> None:
    """Runs both sides in alternation and appends the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--measure", type=int, metavar="THREADS", help="measure in this process (for this script itself)")
    options = parser.parse_args()
    if options.measure:
        measure(options.recipe, options.measure)
        return
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side, (processes, threads) in SIDES.items():
            launcher = (
                ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
            )
            command = [sys.executable, *launcher, __file__, options.recipe, "--measure", str(threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rates[side].append(json.loads(done.stdout.splitlines()[-1])["images_per_second"])
            print(f"{side}: {rates[side][-1]:,.0f} images/s", flush=True)
    one, two = (statistics.median(found) for found in rates.values())
    ratios = [after / before for before, after in zip(*rates.values(), strict=True)]
    row = {
        "recipe": options.recipe,
        "n": options.rounds,
        "images_per_second": rates,
        "ratio_of_medians": two / one,
        "ratios": ratios,
    }
    print(f"two processes: {two / one:.2f} times the rate of one ({min(ratios):.2f} to {max(ratios):.2f})")
    append_row(options.output, row)


if __name__ == "__main__":
    main()
