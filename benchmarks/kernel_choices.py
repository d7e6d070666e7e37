"""Measures each layer's implementations on this kind of processor and writes their order to sprintnet/kernels/choices.csv.

    python benchmarks/kernel_choices.py

Run nothing else on the machine. Rows of other kinds of processors stay as they are.
"""

import csv

from sprintnet.experiments.kernel_benchmark import measure_layers
from sprintnet.kernels import build, dispatch
from sprintnet.runtime import select_runtime


def main() -> None:
    """Replaces the rows of this kind of processor."""
    with dispatch.TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["processor"] != build.processor()]
    with select_runtime("cpu", "bf16", 0).activated(0):
        for found in measure_layers():
            order = sorted(found.milliseconds, key=lambda name: found.milliseconds[name])
            shape = {"channels": found.channels, "out_channels": found.out_channels, "side": found.side}
            rows.append({"processor": build.processor(), "layer": found.layer, **shape, "implementations": " ".join(order)})
            print({name: round(value, 2) for name, value in found.milliseconds.items()}, rows[-1], flush=True)
    with dispatch.TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["processor"], row["layer"])))


if __name__ == "__main__":
    main()
