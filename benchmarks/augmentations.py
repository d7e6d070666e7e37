"""What mixup, CutMix, TrivialAugment and a moving average of the weights gain on a recipe, by the number of training images.

    python benchmarks/augmentations.py sprint94 1000
    python benchmarks/augmentations.py sprint94 45000 --seeds 5 --only augment.cutmix=1

For each seed a subset of CIFAR-10's training images is drawn, the same for all settings; 5,000 other training images judge, so
that no choice is made on the test set. A row of results/augmentations.jsonl has the accuracies by seed, the difference from the
recipe as it is, and its 95 % interval and p (paired t-test). The same command continues in runs/augmentations.
"""

import argparse
import statistics
from dataclasses import asdict

from few_images import WATCHED, subset
from rows import ROOT
from sprintnet.config import load_config
from sprintnet.data.builtin import cache
from sprintnet.experiments.compare import compare
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import append_row
from sprintnet.training.train import train

SETTINGS = ("augment.mixup=0.2", "augment.cutmix=1", "augment.trivial=true", "ema=0.99")
JUDGES = 500  # of each class
RUNS = ROOT / "runs" / "augmentations"
ROWS = ROOT / "benchmarks" / "results" / "augmentations.jsonl"


def accuracy(recipe: str, images: int, seed: int, overrides: list[str]) -> float:
    """Returns the accuracy, on the judging images, of a recipe that was trained with a seed and its subset."""
    everything, _ = cache.load("cifar10")
    classes = len(everything.classes)
    order = subset(everything.labels, images // classes + JUDGES, seed).reshape(classes, -1)  # of each class in random order
    rows, judges = order[:, JUDGES:].ravel(), order[:, :JUDGES].ravel()
    name = "-".join([recipe, str(images), *overrides, str(seed)])
    run = RunFolder(RUNS / environment_record()["code_sha256"][:12] / name, is_quiet=True)
    watched = judges[:: len(judges) // WATCHED]  # after each epoch; they choose nothing
    splits = {name: everything.take(index) for name, index in {"train": rows, "val": watched, "test": judges}.items()}
    if not run.metrics.exists():
        train(load_config(recipe, [f"seed={seed}", "threads=1", "tta=0", *overrides]), run, splits=splits, resume=True)
    found: float = read_json(run.metrics)["test"]["accuracy"]
    return found


def main() -> None:
    """Trains with each setting and writes its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("images", type=int, help="training images, the same number of each class; at most 45,000")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=SETTINGS, help="one of the settings (default: all)")
    options = parser.parse_args()
    values: dict[str, list[float]] = {}
    for setting in ("", *(options.only or SETTINGS)):
        overrides = [setting] if setting else []
        values[setting] = [accuracy(options.recipe, options.images, seed, overrides) for seed in range(options.seeds)]
        row = {"recipe": options.recipe, "images": options.images, "setting": setting, "accuracies": values[setting]}
        shown = f"{setting or 'as it is'}: {statistics.fmean(values[setting]):.2%} (n = {options.seeds})"
        if setting:
            found = compare(values[""], values[setting], is_paired=True)
            row |= {key: value for key, value in asdict(found).items() if key in ("difference", "low", "high", "p")}
            shown += (
                f", {100 * found.difference:+.2f} points ({100 * found.low:+.2f} to {100 * found.high:+.2f}), p {found.p:.3f}"
            )
        append_row(ROWS, row)
        print(shown, flush=True)


if __name__ == "__main__":
    main()
