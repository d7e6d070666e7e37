"""Predictions for many small image files: one process, then as many shards at a time as there are cores.

    python benchmarks/predict_files.py MODEL.onnx FOLDER --files 1000000

FOLDER is filled with PNG files of CIFAR-10 (each of its own; files that are there are kept). Appends a row with the images a
second, from the start of the command to the end of its table, and the peak resident memory of each process, to
benchmarks/results/predict-files.jsonl. Run nothing else on the machine.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from sprintnet.data.builtin import cache
from sprintnet.progress import track
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "predict-files.jsonl"
FILES_A_FOLDER = 10_000


def create(folder: Path, count: int) -> None:
    """Fills the folder with images."""
    images = cache.load("cifar10")[0].images
    encoded = []
    for image in images[:FILES_A_FOLDER]:
        data = io.BytesIO()
        Image.fromarray(image).save(data, "png")
        encoded.append(data.getvalue())
    for part in track(range(-(-count // FILES_A_FOLDER)), -(-count // FILES_A_FOLDER), "writing", 0):
        place = folder / f"{part:04d}"
        if place.exists() and sum(1 for _ in place.iterdir()) == min(FILES_A_FOLDER, count - part * FILES_A_FOLDER):
            continue
        place.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(encoded[: count - part * FILES_A_FOLDER]):
            (place / f"{number:05d}.png").write_bytes(data)


def predict(model: Path, folder: Path, shards: int, output: Path) -> dict[str, Any]:
    """Returns seconds, peak memory and the number of rows of one or several commands at a time."""
    started, processes = time.monotonic(), []
    for shard in range(1, shards + 1):
        words = [
            "predict",
            str(model),
            str(folder),
            "--output",
            str(output / f"{shard}-of-{shards}.csv"),
            "--shard",
            f"{shard}/{shards}",
        ]
        command = ["/usr/bin/time", "-f", "%M", sys.executable, "-m", "sprintnet", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // shards))}
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    peaks = [int(process.communicate()[1].split()[-1]) / 2**10 for process in processes]
    assert all(process.returncode == 0 for process in processes)
    rows = sum(file.read_bytes().count(b"\n") - 1 for file in output.glob(f"*-of-{shards}.csv"))
    return {"shards": shards, "seconds": time.monotonic() - started, "rows": rows, "peak_mib": peaks}


def main() -> None:
    """Measures both and appends the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    create(options.folder, options.files)
    measured = []
    for shards in (1, len(os.sched_getaffinity(0))):
        with tempfile.TemporaryDirectory() as output:
            found = predict(options.model, options.folder, shards, Path(output))
        measured.append({**found, "images_per_second": found["rows"] / found["seconds"]})
        print(measured[-1], flush=True)
    append_row(options.output, {"files": options.files, "measured": measured})


if __name__ == "__main__":
    main()
