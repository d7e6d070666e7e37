"""Accuracy by the number of training images: a pretrained network's last layer beside networks from scratch, on CIFAR-10.

    python benchmarks/few_images.py photos              # embeds the training and the test set
    python benchmarks/few_images.py sprint94 --most 100 # trains from scratch on the same subsets
    python benchmarks/few_images.py document            # writes table and figure of docs/tutorials/photos.md

Each subset of N images a class is drawn with a seed; both see the same. From scratch, 5,000 a class are what a study of the
recipe trains on, and not repeated here. Rows: results/few_images.jsonl; their seconds may be those of a machine with other
work. `photos` fits the last layer as `sprintnet train photos epochs=0` does, of images that the network enlarges to 160x160
pixels; a row has also scikit-learn's logistic regression as it comes (C=1, embeddings as they are, no mirror images). Nothing
was chosen on the test set. A training from scratch takes minutes; the same command continues in runs/few_images.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import ttest_1samp

from document import write_between
from rows import ROOT, hardware, measured, newest
from sprintnet.config import Config, load_config
from sprintnet.data.builtin import cache
from sprintnet.data.dataset import ImageDataset, images_at_a_time
from sprintnet.data.loader import Loader
from sprintnet.evaluation.predict import outputs
from sprintnet.evaluation.task import TASKS
from sprintnet.evaluation.trained_model import EVALUATION_BATCH
from sprintnet.models.transfer import load_pretrained
from sprintnet.progress import track
from sprintnet.reporting.figures.style import StyledFigure, save, styled
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import append_row
from sprintnet.runtime import select_runtime
from sprintnet.training.head_fit import Objective, as_embeddings, cross_validate, fitted_layer
from sprintnet.training.train import train

PHOTOS = "photos epochs=0 data=cifar10"
COUNTS = (5, 10, 20, 50, 100, 200, 500, 1000, 5000)
SUBSETS, OF_SCRATCH = 10, 5
WATCHED = 10  # other images for the validation after each epoch, in place of the 10,000 test images: they choose nothing
RUNS = ROOT / "runs" / "few_images"
ROWS = ROOT / "benchmarks" / "results" / "few_images.jsonl"


def subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Returns the rows of `count` images of each class."""
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.permutation(np.flatnonzero(labels == label))[:count] for label in np.unique(labels)])


def embeddings_of(config: Config, images: ImageDataset, *, mirrored: bool) -> np.ndarray:
    """Returns the pretrained network's embeddings (N, C) of images, or of their mirror images."""
    pretrained = load_pretrained(config.init_from, config.model)
    runtime = select_runtime("cpu", "auto", 0)
    network = runtime.place(pretrained.saved.network)
    pixels = images.images[:, :, ::-1].copy() if mirrored else images.images
    batch = images_at_a_time(EVALUATION_BATCH, network.working_shape(images.image_shape))
    loader = Loader(
        replace(images, storage=pixels, rows=None), pretrained.saved.preprocessing.normalisation, batch, runtime.device
    )
    with runtime.activated():
        return outputs(network, track(loader.sequential(), len(loader), "embedding"), runtime).embeddings


def photos() -> None:
    """Writes a row for each number of images, of the pretrained network."""
    from sklearn.linear_model import LogisticRegression

    config = load_config("photos", ["data=cifar10"])
    train_set, test_set = cache.load("cifar10")
    labels = train_set.labels
    started = time.monotonic()
    both = np.stack([embeddings_of(config, train_set, mirrored=mirrored) for mirrored in (False, True)])
    test = embeddings_of(config, test_set, mirrored=False)
    print(f"{2 * len(labels) + len(test_set):,} images embedded in {time.monotonic() - started:.0f} s", flush=True)
    objective = Objective(TASKS["single-label"], 0.0, None)
    for count in COUNTS:
        found: dict[str, list[float]] = {"accuracies": [], "scikit_learn": [], "seconds": []}
        for seed in range(SUBSETS if count < np.bincount(labels).min() else 1):
            rows = subset(labels, count, seed)
            started = time.monotonic()
            embeddings = as_embeddings(torch.from_numpy(both[:, rows]), torch.from_numpy(labels[rows]))
            chosen = cross_validate(objective, embeddings, labels[rows], 10).chosen
            weight, bias = fitted_layer(objective, embeddings, 10, chosen)
            found["seconds"].append(time.monotonic() - started)
            predicted = (test @ weight.numpy().T + bias.numpy()).argmax(1)
            found["accuracies"].append(float((predicted == test_set.labels).mean()))
            plain = LogisticRegression(max_iter=1000).fit(both[0, rows], labels[rows])
            found["scikit_learn"].append(float((plain.predict(test) == test_set.labels).mean()))
        write(count, PHOTOS, found)


def scratch(recipe: str, counts: list[int], subsets: int, threads: int) -> None:
    """Writes a row for each number of images, of a recipe trained from scratch."""
    train_set, test_set = cache.load("cifar10")
    for count in counts:
        found: dict[str, list[float]] = {"accuracies": [], "seconds": []}
        for seed in range(subsets):
            rows = subset(train_set.labels, count, seed)
            watched = np.setdiff1d(np.arange(len(train_set)), rows)[:WATCHED]
            run = RunFolder(RUNS / environment_record()["code_sha256"][:12] / f"{recipe}-{count}-{seed}", is_quiet=True)
            splits = {"train": train_set.take(rows), "val": train_set.take(watched), "test": test_set}
            train(load_config(recipe, [f"seed={seed}", f"threads={threads}", "tta=0"]), run, splits=splits, resume=True)
            metrics = read_json(run.metrics)
            found["accuracies"].append(metrics["test"]["accuracy"])
            found["seconds"].append(metrics["train_seconds"])
            print(count, seed, found["accuracies"][-1], flush=True)
        write(count, recipe, found)


def write(count: int, command: str, found: dict[str, list[float]]) -> None:
    """Writes and prints a row."""
    row: dict[str, Any] = {"images_per_class": count, "command": command, **found}
    append_row(ROWS, row)
    shown = ", ".join(f"{name} {statistics.fmean(values):.4f}" for name, values in found.items())
    print(f"{count} a class: {shown} (n = {len(found['accuracies'])})", flush=True)


def found_rows() -> dict[tuple[str, int], dict[str, Any]]:
    """Returns the newest row of each command and number of images; of sprint94 on all images, its last study of five seeds."""
    rows = {(row["command"], row["images_per_class"]): row for row in newest("few_images", "command", "images_per_class")}
    studies = [json.loads(line) for line in ROWS.with_name("sprint94.jsonl").read_text("utf-8").splitlines()]
    study = [row for row in studies if row["n"] >= OF_SCRATCH and "values" in row["test_accuracy"]][-1]
    return {**rows, ("sprint94", COUNTS[-1]): {**study, "accuracies": study["test_accuracy"]["values"]}}


def with_interval(values: list[float], form: str = "{:.1f}", unit: str = "%") -> str:
    """Returns the mean in percent, with its 95 % interval (Student 1908) where there are several values."""
    mean = form.format(100 * statistics.fmean(values)) + unit
    if len(values) == 1:
        return mean
    low, high = ttest_1samp(values, 0).confidence_interval()
    return f"{mean} ({form.format(100 * low)} to {form.format(100 * high)})"


def table() -> Iterator[str]:
    """Yields the table by number of images."""
    rows = found_rows()
    yield "| images of each class | `photos epochs=0` | scikit-learn | ours less scikit-learn's | `sprint94` from scratch | n |"
    yield "|" + "---|" * 6
    for count in sorted(count for command, count in rows if command == PHOTOS):
        ours, scratch = rows[PHOTOS, count], rows.get(("sprint94", count))
        gains = [one - other for one, other in zip(ours["accuracies"], ours["scikit_learn"], strict=True)]
        beside = with_interval(scratch["accuracies"]) if scratch else "not measured"
        n = f"{len(gains)}, {len(scratch['accuracies'])}" if scratch else str(len(gains))
        both = f"{with_interval(ours['accuracies'])} | {with_interval(ours['scikit_learn'])}"
        yield f"| {count:,} | {both} | {with_interval(gains, '{:+.2f}', ' points')} | {beside} | {n} |"
    where = "; ".join(dict.fromkeys(f"{hardware(row)}, {measured(row)}" for row in rows.values()))
    yield f"\nTest accuracy on CIFAR-10, ten classes, with 95 % intervals over subsets; {where}."


@styled
def accuracy_by_images() -> StyledFigure:
    """Returns test accuracy by the number of training images of each class."""
    figure = StyledFigure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    for command, label in ((PHOTOS, "photos, the last layer alone"), ("sprint94", "sprint94 from scratch")):
        points = sorted((count, row["accuracies"]) for (name, count), row in found_rows().items() if name == command)
        means = [100 * statistics.fmean(accuracies) for _, accuracies in points]
        axes.plot([count for count, _ in points], means, marker="o", markersize=3, label=label)
    axes.set(xscale="log", xlabel="training images of each class", ylabel="test accuracy (%)", ylim=(0, 100))
    axes.set_title("CIFAR-10 by number of training images")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend()
    return figure


def document() -> None:
    """Writes the table and the figure of docs/tutorials/photos.md."""
    write_between(ROOT / "docs" / "tutorials" / "photos.md", "few", "\n".join(table()))
    place = ROOT / "docs" / "figures" / "accuracy_by_images"
    save(accuracy_by_images, place)
    for image in place.parent.glob(f"{place.name}*.png"):  # the page shows the SVGs
        image.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="photos, a recipe that is trained from scratch, or document")
    parser.add_argument("--most", type=int, default=max(COUNTS), help="training images of a class, at most, from scratch")
    parser.add_argument("--least", type=int, default=min(COUNTS), help="training images of a class, at least, from scratch")
    parser.add_argument("--subsets", type=int, default=OF_SCRATCH, help="subsets that are trained from scratch on")
    parser.add_argument("--threads", type=int, default=0, help="threads of a training; 0: all cores")
    arguments = parser.parse_args()
    if arguments.recipe == "document":
        document()
    elif arguments.recipe == "photos":
        photos()
    else:
        counts = [count for count in COUNTS[:-1] if arguments.least <= count <= arguments.most]
        scratch(arguments.recipe, counts, arguments.subsets, arguments.threads)
