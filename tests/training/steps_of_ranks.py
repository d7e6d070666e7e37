"""Some steps of a training, by one process or by several that torchrun starts; each rank writes where it ends.

torchrun --standalone --nproc-per-node 2 steps_of_ranks.py FOLDER RECIPE SETTING...
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from sprintnet.config import load_config
from sprintnet.data.augment import resize
from sprintnet.data.load import load_splits
from sprintnet.ranks import joined
from sprintnet.runtime import select_runtime
from sprintnet.training.setup import build_step, whiten

STEPS = 2


def main() -> None:
    """Trains some steps and saves the state."""
    folder, recipe, *settings = sys.argv[1:]
    config = load_config(recipe, settings)
    images = load_splits(config.data, lambda line: None)["train"]
    with joined("cpu") as ranks:
        runtime = replace(select_runtime("cpu", config.precision, 1), ranks=ranks, adapts_threads=False)
        with runtime.activated(0):
            step, loader = build_step(config, images, runtime)
            whiten(step.model, loader, config)
            step.model.train()
            batches = loader.endless(0, config.augment)
            for number in range(STEPS):
                batch, labels = next(batches)
                step(resize(batch, 1.0), labels, loader.batch_sizes[number % len(loader)])
            totals = step.read()
            state = {**step.model.state_dict(), "totals": torch.tensor([totals.loss, totals.correct, totals.images])}
            torch.save(state, Path(folder) / f"{ranks.rank}-of-{ranks.world}.pt")


if __name__ == "__main__":
    main()
