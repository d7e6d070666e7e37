"""Pictures of one's own beside a named set: how fast they are decoded, opened again and trained on, in small and large numbers.

    python benchmarks/own_data.py WORK [--images 1000000] [--only decode|steps|memory|million]
    python benchmarks/own_data.py WORK --only limited --cgroup GROUP    # a memory control group whose limit the pixels exceed

WORK is a folder with 7 GB free, in which pictures, archive and cache are made (and found again). Run it beside nothing else.
Rows go to benchmarks/results/own_data.jsonl. Files come from the system's cache, as they do for who has just copied them.
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
from PIL import Image

from sprintnet import runtime
from sprintnet.config import load_config
from sprintnet.data.builtin.cache import load
from sprintnet.data.custom.load import load_custom
from sprintnet.data.dataset import ImageDataset, digest
from sprintnet.data.load import load_splits
from sprintnet.data.settings import DataSettings
from sprintnet.runs.io import append_row
from sprintnet.runtime import Runtime
from sprintnet.training.setup import build_step, whiten

RESULTS = Path(__file__).parent / "results" / "own_data.jsonl"
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


def written_out(folder: Path) -> Path:
    """Returns a folder that holds CIFAR-10 as 60,000 PNG files, train/<class>/* and test/<class>/*."""
    if not (folder / ".complete").exists():
        for part, images in zip(("train", "test"), load("cifar10"), strict=True):
            for name in images.classes:
                (folder / part / name).mkdir(parents=True, exist_ok=True)
            for index, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
                Image.fromarray(image).save(folder / part / images.classes[label] / f"{index:05}.png")
        (folder / ".complete").touch()
    return folder


def decode(folder: Path, pictures: Path) -> dict[str, object]:
    """Returns files a second of the first decoding, and seconds to open the decoded pictures in a fresh process."""
    rates, seconds = [], []
    for _ in range(DECODED):
        shutil.rmtree(pictures, ignore_errors=True)
        began = time.perf_counter()
        count = len(load_custom(DataSettings(str(folder))).images)
        rates.append(count / (time.perf_counter() - began))
    for _ in range(STARTED):
        done = subprocess.run([sys.executable, "-c", START, folder], capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))
    return {
        "what": "decode", "files": count, "files_per_second": rates, "second_start_seconds": seconds,
        "clock": "first: listing, headers, decoding into the cache; second: imports, listing, mapping, in a fresh process",
    }  # fmt: skip


class Lane:
    """Training steps of the default recipe on a data set."""

    def __init__(self, images: ImageDataset, context: Runtime):
        self.config = load_config("sprint94")
        self.step, self.loader = build_step(self.config, images, context)
        whiten(self.step.model, self.loader, self.config)
        self.epochs = itertools.count()

    def images_per_second(self) -> float:
        """Returns the rate of STEPS steps at full size, augmentation and reading included, after a few to warm up."""
        batches = self.loader.epoch(0, next(self.epochs), self.config.augment)
        count, began = 0, 0.0
        for number, (images, labels) in enumerate(itertools.islice(batches, WARM_UP + STEPS)):
            if number == WARM_UP:
                began = time.perf_counter()
            self.step(images, labels)
            count += len(labels) * (number >= WARM_UP)
        self.step.read()
        return count / (time.perf_counter() - began)


def in_turn(lanes: dict[str, ImageDataset]) -> dict[str, object]:
    """Returns the images a second of data sets, measured in turn, and the median ratio of the second to the first."""
    context = runtime.start("auto", "auto", 0, 0)
    ready = {name: Lane(images, context) for name, images in lanes.items()}
    rates: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(ROUNDS):
        for name, lane in ready.items():
            rates[name].append(lane.images_per_second())
            print(f"{name}: {rates[name][-1]:,.0f} images/s", flush=True)
    first, second = rates.values()
    ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
    return {**context.describe(), "n": ROUNDS, "images_per_second": rates, "ratio": ratio}


def synthetic(file: Path, count: int) -> None:
    """Makes, where there is none, an archive of images of noise, 32x32 RGB, of ten classes."""
    if not file.exists():
        generator = np.random.default_rng(0)
        images = np.frombuffer(generator.bytes(count * 3072), np.uint8).reshape(count, 32, 32, 3)
        np.savez(file, images=images, labels=np.arange(count) % 10)


def memory(file: Path) -> dict[str, float]:
    """Returns the most memory (GiB) of a fresh process that converts, opens, splits, digests and trains on an archive.

    `anonymous` is its own; `mapped` are pages of files, which the system shares and takes back at will.
    """
    most = {"anonymous": 0.0, "mapped": 0.0, "together": 0.0}
    with subprocess.Popen([sys.executable, __file__, "--inside", str(file)]) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            kib = {key: int(value.split()[0]) for key, value in re.findall(r"(Rss\w+|VmRSS):\s*(\d+ kB)", status)}
            if kib:  # no zombie's
                now = {"anonymous": kib["RssAnon"], "mapped": kib["RssFile"], "together": kib["VmRSS"]}
                most = {key: max(most[key], value / 2**20) for key, value in now.items()}
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit("no memory was measured: the process failed")
    return most


def limited(file: Path, group: Path) -> dict[str, object]:
    """Returns the images a second of processes in turn: with all the memory there is, and in a control group with a limit."""
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
    """Does what a training of an archive does, some steps of it, and prints their images a second."""
    with tempfile.TemporaryDirectory() as folder:
        splits = load_splits(load_config("sprint94", [f"data.name={file}"]), kept=Path(folder) / "splits.csv")
    digest(*splits.values())
    print(Lane(splits["train"], runtime.start("auto", "auto", 0, 0)).images_per_second())


def main() -> None:
    """Measures what is asked for and appends a row each."""
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
    folder = written_out(options.work / "cifar10")
    os.environ["SPRINTNET_CACHE"] = str(options.work / "cache")
    pictures = options.work / "cache" / "pictures"
    if options.only in (None, "decode"):
        row = decode(folder, pictures)
        print(json.dumps(row), flush=True)
        append_row(RESULTS, row)
    if options.only in (None, "steps"):
        own = load_custom(DataSettings(str(folder)))
        train = own.images.take(np.flatnonzero(np.array(own.split) == "train"))
        append_row(RESULTS, {"what": "steps", **in_turn({"cifar10": cifar10, "folder": train})})
    counts = {"small": SMALL, "large": options.images}
    archives = {name: options.work / f"{name}.npz" for name in counts}
    if options.only != "decode":
        for name, count in counts.items():
            synthetic(archives[name], count)
    if options.only in (None, "memory"):
        shutil.rmtree(pictures, ignore_errors=True)
        row = {"what": "memory", "images": counts, "gib": {name: memory(file) for name, file in archives.items()}}
        print(json.dumps(row), flush=True)
        append_row(RESULTS, row)
    if options.only == "limited":
        append_row(RESULTS, {"images": options.images, **limited(archives["large"], options.cgroup)})
    if options.only in (None, "million"):
        sets = {name: load_custom(DataSettings(str(file))).images for name, file in archives.items()}
        append_row(RESULTS, {"what": "million", "images": counts, **in_turn(sets)})


if __name__ == "__main__":
    main()
