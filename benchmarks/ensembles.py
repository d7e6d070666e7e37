"""Appends a row about an ensemble, and networks trained towards its predictions, to benchmarks/results/ensembles.jsonl.

    sprintnet study sprint94 --seeds 5
    sprintnet ensemble sprint94
    sprintnet study sprint94 --seeds 5 --name students distill.teacher=sprint94-ensemble
    python benchmarks/ensembles.py sprint94 runs/train/sprint94-ensemble --students runs/study/students/seed-*

A student is compared with the member of its seed (paired t-test).
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from record import SHARED, of_one_recipe, spread
from sprintnet.config import load_config
from sprintnet.experiments.compare import compare
from sprintnet.runs.folder import RunFolder, evaluation_split, open_run, read_json
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "ensembles.jsonl"


def students(runs: Sequence[RunFolder], members: dict[str, list[float]]) -> dict[str, Any]:
    """Returns accuracy and calibration of students, and by how much they differ from the members with their seeds."""
    metrics = [read_json(run.metrics) for run in runs]
    evaluated = [each[evaluation_split(each)] for each in metrics]
    values = {"accuracy": [each["accuracy"] for each in evaluated]}
    if "tta_accuracy" in members:
        values["tta_accuracy"] = [each["tta"]["accuracy"] for each in evaluated]
    found: dict[str, Any] = {}
    for key, of_students in values.items():
        against = asdict(compare(members[key], of_students, is_paired=True))
        found[key] = spread(of_students) | {name: against[name] for name in ("difference", "low", "high", "p")}
    return found | {"ece_calibrated": spread([each["calibrated"]["ece"] for each in evaluated])}


def main() -> None:
    """Appends the row: accuracy of the members and of the ensemble, calibration, students, and the machine and the code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the members, such as sprint94")
    parser.add_argument("run", help="the folder of the ensemble")
    parser.add_argument("--students", nargs="+", metavar="RUN", default=(), help="one of the name of each member")
    options = parser.parse_args()
    run = open_run(options.run)
    metrics, record = read_json(run.metrics), read_json(run.environment)
    evaluated, gains = metrics[evaluation_split(metrics)], metrics["ensemble"]
    scores = {key: evaluated[key] for key in ("images", "accuracy", "accuracy_interval", "tta") if key in evaluated}
    row = {
        **{key: record[key] for key in SHARED},
        "recipe": options.recipe,
        "settings": load_config(run.config).to_toml(),
        "split": evaluation_split(metrics),
        **scores,
        "ece_calibrated": evaluated["calibrated"]["ece"],
        "gain": {key: gains[key] for key in ("accuracy", "tta_accuracy") if key in gains},
        "parameters": metrics["parameters"],
    }
    if options.students:
        members = {key: gain["members"] for key, gain in row["gain"].items()}
        runs = {run.path.name: run for run in map(open_run, options.students)}
        of_one_recipe(list(runs.values()))
        if set(runs) != {member["run"] for member in gains["members"]}:
            raise SystemExit("the students must have the names of the members")
        row["students"] = students([runs[member["run"]] for member in gains["members"]], members)
    append_row(RESULTS, row)
    print(row)


if __name__ == "__main__":
    main()
