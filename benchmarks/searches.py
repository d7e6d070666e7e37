"""Appends a row about a finished search to benchmarks/results/searches.jsonl.

sprintnet tune smoke data.val=0.5 --space space.toml --trials 9 --jobs 2
python benchmarks/searches.py runs/tune/smoke
"""

import argparse
from pathlib import Path

from record import SHARED
from sprintnet.config import load_config
from sprintnet.runs.folder import read_json
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "searches.jsonl"


def main() -> None:
    """Appends the row: the space, the result, and the machine and the code of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    result, journal = read_json(options.folder / "tune.json"), read_json(options.folder / "journal.json")
    records = [read_json(file) for file in sorted(options.folder.glob("*/environment.json"))]
    shared = [key for key in SHARED if key != "data_sha256"]  # the last test has other images
    if different := [key for key in shared if any(record[key] != records[0][key] for record in records[1:])]:
        raise SystemExit(f"{options.folder}: runs differ in {', '.join(different)}")
    settings = load_config(options.folder / "config.toml").to_toml()
    machine = {key: records[0][key] for key in shared}
    append_row(RESULTS, {**machine, "recipe": settings, "space": journal["space"], **result})


if __name__ == "__main__":
    main()
