"""Appends a row about an ensemble to benchmarks/results/ensembles.jsonl.

sprintnet study sprint94 --seeds 5
sprintnet ensemble sprint94
python benchmarks/ensembles.py runs/train/sprint94-ensemble
"""

import argparse
from pathlib import Path

from record import SHARED
from sprintnet.config import load_config
from sprintnet.runs.folder import evaluation_split, read_json
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "ensembles.jsonl"


def main() -> None:
    """Appends the row: accuracy of the members and of the ensemble, calibration, and the machine and the code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    metrics, record = read_json(run / "metrics.json"), read_json(run / "environment.json")
    split = evaluation_split(metrics)
    evaluated, found = metrics[split], metrics["ensemble"]
    scores = {key: evaluated[key] for key in ("images", "accuracy", "accuracy_interval", "tta") if key in evaluated}
    row = {
        **{key: record[key] for key in SHARED},
        "recipe": load_config(run / "resolved.toml").to_toml(),
        "split": split,
        **scores,
        "ece_calibrated": evaluated["calibrated"]["ece"],
        "gain": {key: found[key] for key in ("accuracy", "tta_accuracy") if key in found},
        "parameters": metrics["parameters"],
    }
    append_row(RESULTS, row)
    print(row)


if __name__ == "__main__":
    main()
