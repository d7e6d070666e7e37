"""The long form of the fault tests, `make soak`: how it is asked for, and where its counts are kept."""

import json
import os
from pathlib import Path

IS_SOAK = bool(os.environ.get("SPRINTNET_SOAK"))
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "soak.jsonl"


def record(what: str, **counts: object) -> None:
    """Appends a row of counts, of a soak alone."""
    if IS_SOAK:
        from sprintnet.runs.io import append_row

        append_row(RESULTS, {"soak": what, **counts})
    print(what, json.dumps(counts))
