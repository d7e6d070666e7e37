"""Near duplicates between CIFAR-10's training and test images, and the accuracy of finished runs without them.

    python benchmarks/duplicates.py runs/study/sprint94/seed-*

Appends a row to benchmarks/results/duplicates.jsonl.
"""

import statistics
import sys
from pathlib import Path

import numpy as np

from sprintnet.data.builtin.cache import load
from sprintnet.data.duplicates import find_duplicates
from sprintnet.runs.folder import open_run, read_arrays, read_json
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "duplicates.jsonl"


def main() -> None:
    """Finds the duplicates, reads the runs' predictions and appends the row."""
    train, test = load("cifar10")
    pairs = find_duplicates(train, test)
    repeated = np.zeros(len(test), bool)
    repeated[[pair.second for pair in pairs]] = True
    runs = [open_run(path) for path in sys.argv[1:]]
    accuracy: dict[str, dict[str, dict[str, float]]] = {}
    for key, label in (("test_logits", "plain"), ("test_tta_logits", "tta")):
        right = [read_arrays(run.predictions)[key].argmax(axis=1) == test.labels for run in runs]
        shares = {"all": [hits.mean() for hits in right], "not repeated": [hits[~repeated].mean() for hits in right]}
        accuracy[label] = {
            name: {"mean": statistics.fmean(values), "sd": statistics.stdev(values)} for name, values in shares.items()
        }
    row = {
        "test_images": len(test),
        "repeated_test_images": int(repeated.sum()),
        "repeating_training_images": len({pair.first for pair in pairs}),
        "equal_in_every_pixel": sum(pair.is_exact for pair in pairs),
        "same_label": float(np.mean([train.labels[pair.first] == test.labels[pair.second] for pair in pairs])),
        "n": len(runs),
        "accuracy": accuracy,
        "runs_commit": sorted({read_json(run.environment)["commit"] for run in runs}),
    }
    print(row)
    append_row(RESULTS, row)


if __name__ == "__main__":
    main()
