"""Verifies a row of the table of recipes (docs/reference/results.md): trains one of its seeds again, compares accuracies.

    python benchmarks/verify_row.py sprint94 --seed 0

Of benchmarks/results/NAME.jsonl, the newest row of this processor is taken, else the newest of all. Where code, versions,
processor and threads are those of the row, the accuracies must be equal; else each must lie within the 99.9 % prediction
interval of the row's seeds, if there are several. Exits with code 5 where they differ; the run is kept in runs/train.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import SHARED
from rows import Row, measured, newest, processor
from sprintnet.config import load_config
from sprintnet.errors import SprintNetError, VerificationError
from sprintnet.experiments.compare import prediction_interval
from sprintnet.replay import LEVEL
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import evaluation_split, new_run, read_json
from sprintnet.training.train import train


def verify(row: Row, seed: int, metrics: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Returns a line for each accuracy of a row; raises VerificationError where a repeated training has another one."""
    split, lines = evaluation_split(metrics), []
    other = [key for key in SHARED if key not in ("commit", "cores", "cuda") and row.get(key) != record.get(key)]
    of_row = {"accuracy": row[f"{split}_accuracy"], "TTA accuracy": (row["tta"] or {}).get("accuracy")}
    for name, kept in of_row.items():
        if kept is None:
            continue
        here = metrics[split]["accuracy"] if name == "accuracy" else metrics[split]["tta"]["accuracy"]
        then = kept["values"][row["seeds"].index(seed)] if "values" in kept else None  # older rows have no values a seed
        line = f"{split} {name} {here:.2%}, " + (f"in the row {then:.2%}" if then else f"the row's mean {kept['mean']:.2%}")
        if then is not None and not other:
            is_right = here == then
        elif row["n"] < 2:
            line += f"; other {', '.join(other)}, and one seed gives no interval: not compared"
            is_right = True
        else:
            low, high = prediction_interval(row["n"], kept["mean"], kept["sd"], LEVEL)
            line += f"; other {', '.join(other)}: the row's {row['n']} seeds predict {low:.2%} to {high:.2%}"
            is_right = low <= here <= high
        if not is_right:
            raise VerificationError(line)
        lines.append(line)
    return lines


def main() -> None:
    """Trains the seed and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the result file, such as sprint94")
    parser.add_argument("--seed", type=int, help="one of the row's seeds (default: the first)")
    options = parser.parse_args()
    here = environment_record()
    rows = newest(options.name)
    if not rows:
        raise SystemExit(f"{options.name}: there is no such row; see benchmarks/results")
    row = next((row for row in rows if processor(row) == here["processor"]), rows[-1])
    seed = row["seeds"][0] if options.seed is None else options.seed
    if seed not in row["seeds"]:
        raise SystemExit(f"--seed {seed}: the row has the seeds {', '.join(map(str, row['seeds']))}")
    print(f"{options.name}: row of {measured(row)}, {row['cpu']}, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "row.toml"
        recipe.write_text(row["settings"], "utf-8")
        like_row = [f"threads={row['threads']}", f"precision={row['precision']}", f"seed={seed}"]
        try:
            config = load_config(recipe, like_row)
            run = new_run(f"verify-{options.name}", exact=False, resume=False)
            metrics = train(config, run).metrics
            print(*verify(row, seed, metrics, read_json(run.environment)), "verified", sep="\n")
        except SprintNetError as error:
            print(error, file=sys.stderr)
            raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
