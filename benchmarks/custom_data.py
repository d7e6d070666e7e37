"""Custom datasets, small and large, beside the built-in CIFAR-10: decoding, later starts, training steps, memory.

    python benchmarks/custom_data.py WORK [--images 1000000] [--only decode|steps|memory|million]
    python benchmarks/custom_data.py WORK --only limited --cgroup GROUP    # a cgroup with less memory than pixels

WORK is a folder with 7 GB free, which keeps the image files, the archives and the cache for the next call. Run nothing else on
the machine. Appends rows to benchmarks/results/custom_data.jsonl. Files are read from the system's page cache.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from image_folder import write_image_files
from sprintnet.config import load_config
from sprintnet.data.builtin.cache import load
from sprintnet.data.custom.load import load_custom
from sprintnet.data.dataset import ImageDataset, digest
from sprintnet.data.load import load_splits
from sprintnet.data.settings import DataSettings
from sprintnet.runs.folder import RunFolder
from sprintnet.runs.io import append_row
from sprintnet.runtime import Runtime, select_runtime
from sprintnet.training.setup import build_step, whiten

RESULTS = Path(__file__).parent / "results" / "custom_data.jsonl"
SMALL = 60_000
DECODED, STARTED, LIMITED, ROUNDS, WARM_UP, STEPS = 3, 5, 3, 5, 3, 20
START = """
import sys, time
began = time.perf_counter()
from sprintnet.data.custom.load import load_custom
from sprintnet.data.settings import DataSettings
load_custom(DataSettings(sys.argv[1]))
print(time.perf_counter() - began)
"""


def decode(folder: Path, decoded: Path) -> dict[str, object]:
    """Returns the files/s of the first decoding, and the seconds of opening the decoded images in a new process."""
    rates, seconds = [], []
    for _ in range(DECODED):
        shutil.rmtree(decoded, ignore_errors=True)
        began = time.perf_counter()
        count = len(load_custom(DataSettings(str(folder))).images)
        rates.append(count / (time.perf_counter() - began))
    for _ in range(STARTED):
        done = subprocess.run([sys.executable, "-c", START, folder], capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))
    return {
        "what": "decode", "files": count, "files_per_second": rates, "second_start_seconds": seconds,
        "clock": "first: manifest, headers, decoding into the cache; second: imports, manifest, mapping, in a new process",
    }  # fmt: skip


class Steps:
    """Training steps of the default recipe on a dataset."""

    def __init__(self, images: ImageDataset, context: Runtime):
        self.config = load_config("sprint94")
        self.step, self.loader = build_step(self.config, images, context)
        whiten(self.step.model, self.loader, self.config)
        self.epochs = itertools.count()

    def images_per_second(self) -> float:
        """Returns the images/s of STEPS steps at full resolution, with loading and augmentation, after WARM_UP others."""
        batches = self.loader.epoch(0, next(self.epochs), self.config.augment)
        count, began = 0, 0.0
        for number, (images, labels) in enumerate(itertools.islice(batches, WARM_UP + STEPS)):
            if number == WARM_UP:
                began = time.perf_counter()
            self.step(images, labels)
            count += len(labels) * (number >= WARM_UP)
        self.step.read()
        return count / (time.perf_counter() - began)


def alternate(datasets: dict[str, ImageDataset]) -> dict[str, object]:
    """Returns the images/s of two datasets, measured in alternation, and the median ratio of the second to the first."""
    context = select_runtime("auto", "auto", 0)
    rates: dict[str, list[float]] = {name: [] for name in datasets}
    with context.activated(0):
        ready = {name: Steps(images, context) for name, images in datasets.items()}
        for _ in range(ROUNDS):
            for name, steps in ready.items():
                rates[name].append(steps.images_per_second())
                print(f"{name}: {rates[name][-1]:,.0f} images/s", flush=True)
    first, second = rates.values()
    ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
    return {**context.describe(), "n": ROUNDS, "images_per_second": rates, "ratio": ratio}


def write_synthetic(file: Path, count: int) -> None:
    """Writes, where missing, an archive of random 32x32 RGB images of ten classes."""
    if not file.exists():
        generator = np.random.default_rng(0)
        images = np.frombuffer(generator.bytes(count * 3072), np.uint8).reshape(count, 32, 32, 3)
        np.savez(file, images=images, labels=np.arange(count) % 10)


def memory(file: Path) -> dict[str, float]:
    """Returns the peak memory in GiB of a new process that decodes, splits and trains on an archive.

    `anonymous` is the process's own memory; `mapped` are pages of files, which the system can reclaim.
    """
    most = {"anonymous": 0.0, "mapped": 0.0, "together": 0.0}
    with subprocess.Popen([sys.executable, __file__, "--inside", str(file)]) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            kib = {key: int(value.split()[0]) for key, value in re.findall(r"(Rss\w+|VmRSS):\s*(\d+ kB)", status)}
            if kib:  # empty for a zombie
                now = {"anonymous": kib["RssAnon"], "mapped": kib["RssFile"], "together": kib["VmRSS"]}
                most = {key: max(most[key], value / 2**20) for key, value in now.items()}
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit("the measured process failed")
    return most


def limited(file: Path, group: Path) -> dict[str, object]:
    """Returns the images/s of processes in alternation: without a memory limit, and in a cgroup with one."""
    rates: dict[str, list[float]] = {"free": [], "limited": []}
    for _ in range(LIMITED):
        for name, found in rates.items():
            (group.parent if name == "free" else group).joinpath("cgroup.procs").write_text(str(os.getpid()))
            done = subprocess.run(
                [sys.executable, __file__, "--inside", str(file)], stdout=subprocess.PIPE, text=True, check=True
            )
            found.append(float(done.stdout.splitlines()[-1]))
            print(f"{name}: {found[-1]:,.0f} images/s", flush=True)
    limit = next(int(kept.read_text()) for name in ("memory.max", "memory.limit_in_bytes") if (kept := group / name).exists())
    ratio = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
    return {"what": "limited", "limit_gib": limit / 2**30, "n": LIMITED, "images_per_second": rates, "ratio": ratio}


def inside(file: Path) -> None:
    """Loads an archive as training does, runs some steps and prints their images/s."""
    with tempfile.TemporaryDirectory() as folder:
        splits = load_splits(DataSettings(name=str(file)), run=RunFolder(Path(folder)))
    digest(*splits.values())
    context = select_runtime("auto", "auto", 0)
    with context.activated(0):
        print(Steps(splits["train"], context).images_per_second())


def main() -> None:
    """Runs the chosen measurements and appends a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("decode", "steps", "memory", "million", "limited"))
    parser.add_argument("--cgroup", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.work)
        return
    cifar10, _ = load("cifar10")
    folder = write_image_files(options.work / "cifar10", *load("cifar10"))
    os.environ["SPRINTNET_CACHE"] = str(options.work / "cache")
    decoded = options.work / "cache" / "decoded"
    if options.only in (None, "decode"):
        row = decode(folder, decoded)
        print(json.dumps(row), flush=True)
        append_row(RESULTS, row)
    if options.only in (None, "steps"):
        custom = load_custom(DataSettings(str(folder)))
        train = custom.images.take(np.flatnonzero(np.array(custom.split) == "train"))
        append_row(RESULTS, {"what": "steps", **alternate({"cifar10": cifar10, "folder": train})})
    counts = {"small": SMALL, "large": options.images}
    archives = {name: options.work / f"{name}.npz" for name in counts}
    if options.only != "decode":
        for name, count in counts.items():
            write_synthetic(archives[name], count)
    if options.only in (None, "memory"):
        shutil.rmtree(decoded, ignore_errors=True)
        row = {"what": "memory", "images": counts, "gib": {name: memory(file) for name, file in archives.items()}}
        print(json.dumps(row), flush=True)
        append_row(RESULTS, row)
    if options.only == "limited":
        append_row(RESULTS, {"images": options.images, **limited(archives["large"], options.cgroup)})
    if options.only in (None, "million"):
        sets = {name: load_custom(DataSettings(str(file))).images for name, file in archives.items()}
        append_row(RESULTS, {"what": "million", "images": counts, **alternate(sets)})


if __name__ == "__main__":
    main()
