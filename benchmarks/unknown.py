"""How well a run's scores tell images of other kinds from the test images of CIFAR-10.

    python benchmarks/unknown.py sprint94 RUN [RUN]...

For each run and kind of image: the area under the ROC curve of novelty, of the energy of the logits and of one minus the
largest probability, and the share of these images that `--unknown 0.05` marks. Appends a row with mean, standard deviation and
the values of the runs to benchmarks/results/unknown.jsonl. The kinds: the test images of Fashion-MNIST, MNIST and digits;
crops of two photographs of scikit-learn; test images of CIFAR-10 whose patches of 8x8 are shuffled; noise; plain colours.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_sample_images

from record import described, spread
from sprintnet.data.builtin import cache
from sprintnet.data.dataset import ImageDataset, Images
from sprintnet.data.images import as_pixels
from sprintnet.evaluation.metrics import Floats, log_probabilities
from sprintnet.evaluation.ranking import ranking_scores
from sprintnet.evaluation.trained_model import TrainedModel, load_run
from sprintnet.runs.folder import open_run
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "unknown.jsonl"
COUNT, SIDE, PATCH = 2000, 32, 8
FALSE_ALARMS = 0.05


def other_images() -> dict[str, Images]:
    """Returns images uint8 (N, 32, 32, 3) by kind."""
    generator = np.random.default_rng(0)
    kinds = {name: _resized(cache.load(name)[1].images[:COUNT]) for name in ("fashion-mnist", "mnist", "digits")}
    kinds["photographs"] = _resized([crop for photo in load_sample_images().images for crop in _crops(photo, generator)])
    kinds["shuffled"] = _shuffled(cache.load("cifar10")[1].images[:COUNT], generator)
    kinds["noise"] = generator.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
    plain = generator.integers(0, 256, (COUNT, 1, 1, 3), np.uint8)
    kinds["plain colours"] = np.broadcast_to(plain, (COUNT, SIDE, SIDE, 3)).copy()
    return kinds


def measure(trained: TrainedModel, known: ImageDataset, kinds: dict[str, Images]) -> dict[str, dict[str, float]]:
    """Returns the scores' areas under the curve and the share marked, by kind."""
    found = {}
    base = trained.outputs(known, "cifar10")
    for kind, images in kinds.items():
        others = trained.outputs(ImageDataset(images, np.zeros(len(images), np.int64), known.classes), kind)
        is_other = np.repeat([0, 1], [len(known), len(images)])
        areas = {
            name: ranking_scores(np.concatenate([score(base), score(others)]), is_other)[1] for name, score in SCORES.items()
        }
        marked = trained.preprocessing.unknown(others.novelty, FALSE_ALARMS).mean()
        found[kind] = {**areas, "marked": float(marked)}
    alarms = trained.preprocessing.unknown(base.novelty, FALSE_ALARMS).mean()
    return {**found, "cifar10": {"marked": float(alarms)}}


def _resized(images: Any) -> Images:
    return np.stack([as_pixels(np.ascontiguousarray(image), 3, (SIDE, SIDE), "stretch") for image in images])


def _crops(photo: Images, generator: np.random.Generator) -> list[Images]:
    crops = []
    for _ in range(COUNT // 2):
        side = int(generator.integers(64, 256))
        row, column = (int(generator.integers(0, size - side)) for size in photo.shape[:2])
        crops.append(photo[row : row + side, column : column + side])
    return crops


def _shuffled(images: Images, generator: np.random.Generator) -> Images:
    cells = SIDE // PATCH
    patches = images.reshape(-1, cells, PATCH, cells, PATCH, 3).swapaxes(2, 3).reshape(len(images), cells**2, PATCH, PATCH, 3)
    shuffled = np.stack([own[generator.permutation(cells**2)] for own in patches])
    return shuffled.reshape(-1, cells, cells, PATCH, PATCH, 3).swapaxes(2, 3).reshape(images.shape)


def _energy(outputs: Any) -> Floats:
    return np.asarray(-np.logaddexp.reduce(outputs.logits.astype(np.float64), axis=1))


SCORES: dict[str, Callable[[Any], Floats]] = {
    "novelty": lambda outputs: outputs.novelty,
    "energy": _energy,
    "softmax": lambda outputs: -log_probabilities(outputs.logits).max(axis=1),
}


def main() -> None:
    """Measures the runs and appends the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the runs, such as sprint94")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run folders, which differ in their seed alone")
    options = parser.parse_args()
    runs = [open_run(path) for path in options.runs]
    about = described(options.recipe, runs)
    known, kinds = cache.load("cifar10")[1], other_images()
    measured = [measure(load_run(run.path)[0], known, kinds) for run in runs]
    summary = {
        kind: {name: spread([found[kind][name] for found in measured]) for name in scores}
        for kind, scores in measured[0].items()
    }
    for kind, scores in summary.items():
        print(f"{kind:15}", "  ".join(f"{name} {score['mean']:.3f}" for name, score in scores.items()))
    images = {"cifar10": len(known), **{kind: len(each) for kind, each in kinds.items()}}
    row = {**about, "images": images, "kinds": summary}
    append_row(RESULTS, row)


if __name__ == "__main__":
    main()
