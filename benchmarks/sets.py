"""Coverage and size of the sets of classes, and false alarms of `--unknown`, on the evaluation images of finished runs.

    sprintnet study sprint94 --seeds 5
    python benchmarks/sets.py sprint94 runs/study/sprint94/seed-*

Reads metrics.json of each run and appends a row to benchmarks/results/sets.jsonl: by coverage asked for, method, and whether
each class has it, the share of sets with the true class, of all images and of the class with the lowest, and the classes in a
set; mean, standard deviation and value a seed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import described, spread
from sprintnet.runs.folder import RunFolder, evaluation_split, open_run, read_json
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "sets.jsonl"
ASKED = ("coverage", "method", "by_class")
FOUND = ("covered", "lowest_class", "mean_size")


def measure(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Returns what the runs' metrics say of their sets and of unknown images."""
    metrics = [read_json(run.metrics) for run in runs]
    evaluated = [each[evaluation_split(each)] for each in metrics]
    first = evaluated[0]
    sets = [
        {key: rows[0][key] for key in ASKED} | {key: spread([row[key] for row in rows]) for key in FOUND}
        for rows in zip(*(each["sets"]["rows"] for each in evaluated), strict=True)
    ]
    alarms = [
        {"asked": rows[0]["asked"], "found": spread([row["found"] for row in rows])}
        for rows in zip(*(each["unknown"]["rows"] for each in evaluated), strict=True)
    ]
    return {"images": first["images"], "held_out": first["sets"]["held_out"], "sets": sets, "false_alarms": alarms}


def main() -> None:
    """Appends the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the runs, such as sprint94")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run folders, which differ in their seed alone")
    options = parser.parse_args()
    runs = [open_run(path) for path in options.runs]
    row = {**described(options.recipe, runs), **measure(runs)}
    append_row(RESULTS, row)
    print(row)


if __name__ == "__main__":
    main()
