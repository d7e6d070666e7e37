"""Measures each layer's implementations on this kind of processor and writes their order to sprintnet/kernels/choices.csv.

    python benchmarks/kernel_choices.py [bf16|fp32]

Run nothing else on the machine. Rows of other kinds of processors stay as they are.
"""

import csv
import sys

from sprintnet.experiments.kernel_benchmark import measure_layers
from sprintnet.kernels import build, dispatch
from sprintnet.runs.io import write_rows
from sprintnet.runtime import DTYPES, select_runtime


def main() -> None:
    """Replaces the rows of this kind of processor."""
    runtime = select_runtime("cpu", sys.argv[1] if sys.argv[1:] else "auto", 0)
    processor = build.processor(runtime.precision)
    if processor is None:
        sys.exit(f"no kernels are made for this processor in {runtime.precision}")
    with dispatch.TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["processor"] != processor]
    with runtime.activated(0):
        for found in measure_layers(DTYPES[runtime.precision]):
            order = sorted(found.milliseconds, key=lambda name: found.milliseconds[name])
            shape = {"channels": found.channels, "out_channels": found.out_channels, "side": found.side}
            rows.append({"processor": processor, "layer": found.layer, **shape, "implementations": " ".join(order)})
            print({name: round(value, 2) for name, value in found.milliseconds.items()}, rows[-1], flush=True)
    order = list(rows[0])
    write_rows(dispatch.TABLE, sorted(rows, key=lambda row: (row["processor"], row["layer"])), order)


if __name__ == "__main__":
    main()
