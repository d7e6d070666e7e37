"""Accuracy and calibration of finished runs and of their exports, with and without TTA.

    sprintnet study sprint94 --seeds 3
    python benchmarks/calibration.py sprint94 runs/study/sprint94/seed-*

Exports a copy of each run without TTA and with TTA, and appends a row for each run to benchmarks/results/calibration.jsonl:
accuracy and expected calibration error (ECE, 15 bins) of the network as trained and calibrated, and of each file, on the
evaluation split. The table of results joins rows of equal code and settings. With `--tta flip` no file averages all views:
each export sends all views of all images through both networks, which takes long for davidnet.
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
from sprintnet.deploy.export.export import export
from sprintnet.evaluation.task import Evaluation
from sprintnet.evaluation.trained_model import load_run
from sprintnet.runs.folder import RunFolder, evaluation_split, open_run, read_arrays, read_json
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "calibration.jsonl"
TTA = ("flip", "all")


def measure(run: RunFolder, with_tta: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns accuracy and ECE of a run, by what predicts: the network, its exported file, and files with TTA."""
    trained, config = load_run(run.path, ["device=cpu", "precision=fp32"])
    split = evaluation_split(read_json(run.metrics))
    arrays = {key.removeprefix(f"{split}_"): values for key, values in read_arrays(run.predictions).items() if split in key}
    found = Evaluation(arrays, is_held_out=split == "val").metrics(trained.preprocessing)
    rows = {
        "as trained": {"accuracy": found["accuracy"], "ece": found["calibration"]["ece"]},
        "calibrated": {"accuracy": found["accuracy"], "ece": found["calibrated"]["ece"]},
    }
    if "tta" in found:
        at_all = trained.preprocessing.with_tta("all").calibrated(arrays["tta_logits"])
        ece = trained.task.calibration(at_all, arrays["labels"])["ece"]
        rows[f"TTA where the confidence is at most {config.tta:g}"] = {"accuracy": found["tta"]["accuracy"], "ece": ece}
    with tempfile.TemporaryDirectory() as folder:
        copy = RunFolder(shutil.copytree(run.path, Path(folder) / "run"))
        for tta in (None, *with_tta):
            scores = export(copy.path, tta=tta)["files"]["model.onnx"]["metrics"]
            rows[f"exported with --tta {tta}" if tta else "exported"] = {key: scores[key] for key in ("accuracy", "ece")}
    return rows


def main() -> None:
    """Measures the runs and appends a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the runs, such as sprint94")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run folders")
    parser.add_argument("--tta", action="append", choices=TTA, help="one of the exports with TTA (default: both)")
    options = parser.parse_args()
    for run in map(open_run, options.runs):
        record, config, split = read_json(run.environment), load_config(run.config), evaluation_split(read_json(run.metrics))
        row: dict[str, Any] = {
            **{key: record[key] for key in SHARED},
            "recipe": options.recipe,
            "settings": without_location(replace(config, seed=0)).to_toml(),
            "seed": config.seed,
            "split": split,
            "images": read_json(run.metrics)[split]["images"],
            "temperature": read_json(run.metrics)["temperature"],
            "found": measure(run, options.tta or TTA),
        }
        append_row(RESULTS, row)
        print(json.dumps({"seed": config.seed, **row["found"]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
