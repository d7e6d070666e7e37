"""The effect of each optimisation: images/s of training steps with and without it, measured in alternation (A B A B).

    python benchmarks/ablation.py allocator crowd --recipe sprint94

Each measurement runs in a new process, because allocator settings cannot be undone. Run nothing else on the machine. Appends a
row per ablation to benchmarks/results/ablation.jsonl: images/s of each arm in each round, the ratio of medians, peak memory, n.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sprintnet.config import load_config
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "ablation.jsonl"
WARM_UP, STEPS = 3, 6
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Arm:
    """One side of an ablation: its name, and how it differs from the recipe."""

    label: str
    overrides: tuple[str, ...] = ()
    returns_memory: bool = False
    trains_whitening: bool = False
    is_beside_a_busy_process: bool = False
    is_plain_script: bool = False
    is_direct: bool = False
    is_uncompiled: bool = False
    resolution: float = 1.0


ABLATIONS = {
    "allocator": (Arm("freed memory returned", returns_memory=True), Arm("freed memory kept")),
    "winograd": (Arm("PyTorch's convolutions", is_direct=True), Arm("the convolutions that are chosen")),
    "pytorch": (Arm("PyTorch's operations", is_direct=True, is_uncompiled=True), Arm("SprintNet's kernels")),
    "kernels": (Arm("Winograd by PyTorch's matrix products, no compiler", is_uncompiled=True), Arm("compiled kernels")),
    "precision": (Arm("fp32", ("precision=fp32",)), Arm("bf16", ("precision=bf16",))),
    "whitening": (Arm("whitening bias trained", trains_whitening=True), Arm("whitening bias frozen")),
    "resolution": (Arm("images at full resolution"), Arm("images at 3/4 resolution", resolution=0.75)),
    "batch": (Arm("batches of 2,000", ("batch_size=2000",)), Arm("the recipe's batches")),
    "crowd": (
        Arm("one thread per core, beside a busy process", (f"threads={CORES}",), is_beside_a_busy_process=True),
        Arm("adaptive threads, beside a busy process", is_beside_a_busy_process=True),
    ),
    "busy": (Arm("alone"), Arm("beside a busy process", is_beside_a_busy_process=True)),
    "engine": (
        Arm("a plain PyTorch script in fp32", is_plain_script=True, is_direct=True, is_uncompiled=True),
        Arm("SprintNet"),
    ),
}


def measure(recipe: str, arm: Arm) -> dict[str, float]:
    """Returns the median images/s of training steps on CIFAR-10, and the peak memory in GiB."""
    from sprintnet import runtime
    from sprintnet.data.augment import resize
    from sprintnet.data.builtin import cache
    from sprintnet.kernels import build, dispatch
    from sprintnet.training.adaptive_threads import AdaptiveThreads
    from sprintnet.training.optim import set_learning_rates
    from sprintnet.training.setup import build_step, whiten

    if arm.is_direct:
        dispatch.IMPLEMENTATIONS["conv3x3"] = {}
    if arm.is_uncompiled:
        build._library = lambda name, sources: "left out"
    if arm.is_plain_script:
        from baseline import training_steps

        batch_size, laps = training_steps(WARM_UP + STEPS)
    else:
        if arm.returns_memory:
            runtime._keep_freed_memory = lambda: None
        config = load_config(recipe, arm.overrides)
        context = runtime.select_runtime(config.device, config.precision, config.threads)
        batch_size, laps = config.batch_size, []
        with context.activated(0), AdaptiveThreads(context) as threads:
            step, loader = build_step(config, cache.load("cifar10")[0], context)
            whiten(step.model, loader, config)
            set_learning_rates(step.optimizer, 0.1, 0.1 if arm.trains_whitening else 0)
            last = time.perf_counter()
            for images, labels in loader.epoch(0, 0, config.augment):
                step(resize(images, arm.resolution), labels)
                threads.adapt()
                laps.append(time.perf_counter() - last)
                last = time.perf_counter()
                if len(laps) == WARM_UP + STEPS:
                    break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"images_per_second": batch_size / statistics.median(laps[WARM_UP:]), "peak_gib": peak}


@contextlib.contextmanager
def busy_process(wanted: bool) -> Iterator[None]:
    """Runs, if wanted, another process that keeps one core busy, in a session of its own as another program would be."""
    command = [sys.executable, "-c", "while True: pass"]
    process = subprocess.Popen(command, start_new_session=True) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def main() -> None:
    """Runs the arms in alternation and appends a row per ablation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablations", nargs="+", choices=ABLATIONS, metavar="ABLATION", help=", ".join(ABLATIONS))
    parser.add_argument("--recipe", default="sprint94")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--arm", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm is not None:
        print(json.dumps(measure(options.recipe, ABLATIONS[options.ablations[0]][options.arm])))
        return
    emulated = os.environ.get("SPRINTNET_EMULATED")
    emulation = [str(Path(__file__).with_name("emulate.py")), emulated] if emulated else []
    for name in options.ablations:
        arms = ABLATIONS[name]
        found: list[list[dict[str, float]]] = [[], []]
        for _ in range(options.rounds):
            for index, arm in enumerate(arms):
                command = [sys.executable, *emulation, __file__, name, "--recipe", options.recipe, "--arm", str(index)]
                with busy_process(arm.is_beside_a_busy_process):
                    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                found[index].append(json.loads(printed.splitlines()[-1]))
                print(f"{options.recipe}, {arm.label}: {found[index][-1]['images_per_second']:.0f} images/s", flush=True)
        medians = [statistics.median(entry["images_per_second"] for entry in side) for side in found]
        append_row(
            RESULTS,
            {
                "ablation": name,
                "recipe": options.recipe,
                "n": options.rounds,
                "images_per_second": {
                    arm.label: [entry["images_per_second"] for entry in side] for arm, side in zip(arms, found, strict=True)
                },
                "ratio_of_medians": medians[1] / medians[0],
                "peak_gib": {
                    arm.label: max(entry["peak_gib"] for entry in side) for arm, side in zip(arms, found, strict=True)
                },
                "clock": f"median of {STEPS} steps: order, augmentation, forward, backward, update",
            },
        )
        print(f"{options.recipe}, {name}: {medians[1] / medians[0]:.2f} times as fast")


if __name__ == "__main__":
    main()
