"""Size, accuracy and speed of a run's exported files beside PyTorch, and the time of `sprintnet predict` for one image.

    python benchmarks/shipping.py runs/train/sprint94

Run nothing else on the machine. Appends a row to benchmarks/results/shipping.jsonl.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from sprintnet.deploy.export.export import export
from sprintnet.reporting.text.export import parity_lines
from sprintnet.runs.folder import RunFolder
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "shipping.jsonl"
STARTS = 10


def main() -> None:
    """Exports in fp32, fp16 and int8, times the command, prints the results and appends the row."""
    run = RunFolder(Path(sys.argv[1]))
    table = export(run.path, ("int8", "fp16"))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grey.png"
        Image.new("RGB", (32, 32), "grey").save(file)
        for _ in range(STARTS):
            started = time.perf_counter()
            subprocess.run(["sprintnet", "predict", run.export / "model.onnx", file], stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - started)
    start = {"n": STARTS, "median_seconds": statistics.median(seconds), "longest_seconds": max(seconds)}
    print(*parity_lines(table), sep="\n")
    print(f"`sprintnet predict` of one image: median {start['median_seconds']:.2f} s, at most {max(seconds):.2f} s")
    append_row(RESULTS, {"run": run.path.name, **table, "start_to_first_answer": start})


if __name__ == "__main__":
    main()
