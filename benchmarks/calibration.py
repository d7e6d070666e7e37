"""Accuracy and calibration of finished runs and of their exports, with and without TTA.

    sprintnet study sprint94 --seeds 3
    python benchmarks/calibration.py sprint94 runs/study/sprint94/seed-*

Exports a copy of each run without TTA and with TTA, and appends a row for each run to benchmarks/results/calibration.jsonl:
accuracy and expected calibration error (ECE, 15 bins) of the network as trained and calibrated, and of each file, on the
evaluation split. The table of results joins rows of equal code and settings. With `--tta flip` no file averages all views:
each export sends all views of all images through both networks, which takes long for davidnet. Of a run of your own images,
whose evaluation split has fitted the temperature, the network alone is measured, on the test images (image_folder.py).
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import SHARED, without_location
from sprintnet.config import load_config
from sprintnet.data.load import load_splits
from sprintnet.deploy.export.export import export
from sprintnet.evaluation.task import Evaluation
from sprintnet.evaluation.trained_model import load_run
from sprintnet.runs.folder import RunFolder, evaluation_split, open_run, read_arrays, read_json
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "calibration.jsonl"
TTA = ("flip", "all")


def of_network(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Returns accuracy and ECE of a network, as trained and calibrated, from a split's metrics."""
    parts = {"as trained": "calibration", "calibrated": "calibrated"}
    return {what: {"accuracy": found["accuracy"], "ece": found[part]["ece"]} for what, part in parts.items()}


def measure(run: RunFolder, with_tta: Sequence[str]) -> tuple[dict[str, dict[str, float]], int]:
    """Returns accuracy and ECE of a run, by what predicts (network, exported file, files with TTA), of how many images."""
    trained, config = load_run(run.path, ["device=cpu", "precision=fp32"])
    arrays = {key.removeprefix("test_"): values for key, values in read_arrays(run.predictions).items() if "test" in key}
    found = Evaluation(arrays).metrics(trained.preprocessing)
    rows = of_network(found)
    if "tta" in found:
        at_all = trained.preprocessing.with_tta("all").calibrated(arrays["tta_logits"])
        ece = trained.task.calibration(at_all, arrays["labels"])["ece"]
        rows[f"TTA where the confidence is at most {config.tta:g}"] = {"accuracy": found["tta"]["accuracy"], "ece": ece}
    with tempfile.TemporaryDirectory() as folder:
        copy = RunFolder(shutil.copytree(run.path, Path(folder) / "run"))
        for tta in (None, *with_tta):
            scores = export(copy.path, tta=tta)["files"]["model.onnx"]["metrics"]
            rows[f"exported with --tta {tta}" if tta else "exported"] = {key: scores[key] for key in ("accuracy", "ece")}
    return rows, len(arrays["labels"])


def measure_own(run: RunFolder) -> tuple[dict[str, dict[str, float]], int]:
    """Returns accuracy and ECE of a run's network on the test images of its user's data, of how many images."""
    trained, config = load_run(run.path)
    test = load_splits(config.data, run=run, test=True)["test"]
    return of_network(trained.evaluate(test).metrics(trained.preprocessing)), len(test)


def main() -> None:
    """Measures the runs and appends a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the runs, such as sprint94")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run folders")
    parser.add_argument("--tta", action="append", choices=TTA, help="one of the exports with TTA (default: both)")
    options = parser.parse_args()
    for run in map(open_run, options.runs):
        record, config = read_json(run.environment), load_config(run.config)
        is_own = evaluation_split(read_json(run.metrics)) == "val"
        found, images = measure_own(run) if is_own else measure(run, options.tta or TTA)
        row: dict[str, Any] = {
            **{key: record[key] for key in SHARED},
            "recipe": options.recipe,
            "settings": without_location(replace(config, seed=0)).to_toml(),
            "seed": config.seed,
            "split": "test",
            "images": images,
            "temperature": read_json(run.metrics)["temperature"],
            "found": found,
        }
        append_row(RESULTS, row)
        print(json.dumps({"seed": config.seed, **row["found"]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
