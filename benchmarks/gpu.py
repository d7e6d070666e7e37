"""Measures the GPU rows in parts, each with a time limit; a part that fails or is late loses nothing of the others.

    python benchmarks/gpu.py tests steps compile --peers FOLDER --results FILE.tar.gz
    python benchmarks/gpu.py cold study beside davidnet sprint95 --peers FOLDER --results FILE.tar.gz

Needs a GPU, CIFAR-10 in the cache, `pip install ".[study]"`, a clean commit and nothing else running. Outside of git, the
environment variable SPRINTNET_COMMIT names the commit. FOLDER holds the peers' published scripts, airbench94_muon.py and
hiverge's cifar10_speedrun.py. The archive, written again after each part, has what each part prints, its rows (append them to
the files of benchmarks/results, then `python benchmarks/headline.py`), and the small files of its runs. Not run on a GPU yet:
none was at hand. `--rehearse` runs all of it on a CPU with tiny networks.

tests     tests/test_cuda.py; where it fails, nothing else runs
steps     milliseconds of a step, by how it is launched; profiles
compile   compiles the peers in the background; later parts wait for it
cold      one training as a new user runs it
study     100 seeds of sprint94 in one process; where time ends, those that are finished
beside    sprint94 and the peers in alternation, each warmed
davidnet  three seeds of davidnet
sprint95  two seeds of sprint95
"""

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sprintnet.runs.environment import environment_record

HERE = Path(__file__).parent
WORK = Path("runs") / "gpu"  # what parts print and their rows
COMPILED = WORK / "compiled"  # is there once the peers are compiled
PEERS = ("airbench94_muon", "cifar10_speedrun")
SPRINTNET = [sys.executable, "-m", "sprintnet"]
KEPT = ("config.toml", "environment.json", "metrics.json", "results.csv", "log.txt", "study.json")
LIMITS = {
    "tests": 90, "steps": 130, "compile": 5, "cold": 40, "study": 200, "beside": 130, "davidnet": 60, "sprint95": 60,
}  # fmt: skip
"""Part -> seconds after which it is ended."""


@dataclass(frozen=True)
class Options:
    """The peers' scripts, and the sizes."""

    peers: list[Path]
    rehearses: bool

    @property
    def data(self) -> str:
        """The dataset of all trainings."""
        return str(HERE.parent / "tests" / "sample") if self.rehearses else "cifar10"

    @property
    def settings(self) -> list[str]:
        """The settings of all trainings, besides the dataset."""
        tiny = ["data.val=0.2", "epochs=1", "model.width=8", "batch_size=40", "auto=", "threads=1"]
        return tiny if self.rehearses else ["data.val=0", "device=cuda"]

    def study(self, recipe: str, seeds: int, row: str) -> Iterator[list[str]]:
        """Yields the command of a study, then of the row about the seeds that are finished."""
        name, seeds = f"gpu-{recipe}", 2 if self.rehearses else seeds
        yield [
            *SPRINTNET,
            "study",
            recipe,
            f"data={self.data}",
            *self.settings,
            "--seeds",
            str(seeds),
            "--name",
            name,
            "--resume",
        ]
        runs = [str(file.parent) for file in sorted(Path("runs", "study", name).glob("seed-*/metrics.json"))]
        yield [sys.executable, str(HERE / "record.py"), row, *runs, "--folder", str(WORK), *["--rehearse"] * self.rehearses]


def commands(part: str, options: Options) -> Iterator[list[str]]:
    """Yields the commands of a part."""
    python, tiny = sys.executable, options.rehearses
    if part == "tests":
        pytest = [python, "-W", "default", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-W", "default"]
        yield [*pytest, str(HERE.parent / "tests" / "test_cuda.py")]
    elif part == "steps":
        output = ["--output", str(WORK / "gpu-steps.jsonl"), "--profiles", str(WORK)]
        small = ["--images", "80", "--steps", "1", "--precisions", "bf16", "--set", *options.settings[1:]]
        yield [python, str(HERE / "gpu_steps.py"), "sprint94", "davidnet", *output, *(small if tiny else [])]
    elif part == "cold":
        yield [*SPRINTNET, "train", "sprint94", f"data={options.data}", *options.settings, "--name", "gpu-cold", "--no-report"]
    elif part == "study":
        yield from options.study("sprint94", 100, "sprint94-gpu")
    elif part == "beside":
        more = ["--rounds", "1" if tiny else "5", "--output", str(WORK / "side-by-side.jsonl"), "--data", options.data]
        scripts = list(map(str, options.peers))
        yield [python, str(HERE / "side_by_side.py"), "sprint94", *scripts, *more, "--set", *options.settings]
    elif part == "davidnet":
        yield from options.study("davidnet", 3, "davidnet-24-epochs-gpu")
    elif part == "sprint95":
        yield from options.study("sprint95", 2, "sprint95-gpu")


def run_part(part: str, options: Options) -> bool:
    """Runs a part; returns whether all of its commands succeeded within its limit."""
    started, is_done = time.monotonic(), True
    with (WORK / f"{part}.txt").open("a", encoding="utf-8") as log:
        if part == "compile":
            compile_peers(options)
        for command in commands(part, options):
            left = max(LIMITS[part] - (time.monotonic() - started), 20)
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                is_done &= process.wait(left) == 0
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
                process.wait()
                log.write(f"ended after {left:.0f} s\n")
                is_done = False
    print(f"{part}: {'done' if is_done else 'FAILED'} after {time.monotonic() - started:.0f} s", flush=True)
    return is_done


def compile_peers(options: Options) -> None:
    """Starts a process that trains with each peer once and then writes the file that later parts wait for."""
    COMPILED.unlink(missing_ok=True)
    steps = [f"'{sys.executable}' '{HERE / 'peer.py'}' '{script}' --data '{options.data}'" for script in options.peers]
    script = "; ".join([*steps, f"touch '{COMPILED}'"])
    with (WORK / "compile.txt").open("a", encoding="utf-8") as log:
        subprocess.Popen(["sh", "-c", script], stdout=log, stderr=log, start_new_session=True)


def await_peers(seconds: float) -> None:
    """Waits until the peers are compiled, if that was started."""
    last = time.monotonic() + seconds
    while (WORK / "compile.txt").exists() and not COMPILED.exists() and time.monotonic() < last:
        time.sleep(0.5)


def write_archive(file: Path) -> None:
    """Writes all results so far, and the small files of the runs."""
    temporary = file.with_name(f".{file.name}")
    with tarfile.open(temporary, "w:gz") as archive:
        for path in sorted(Path("runs").rglob("*")):
            if path.is_file() and (path.name in KEPT or path.parent == WORK):
                archive.add(path)
    temporary.replace(file)


def main() -> None:
    """Runs the parts; exits with status 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=LIMITS, metavar="PART", help=", ".join(LIMITS))
    parser.add_argument("--peers", type=Path, required=True, help="folder of the peers' scripts")
    parser.add_argument("--results", type=Path, required=True, help="the archive to write")
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    peers = [path.absolute() for path in sorted(given.peers.glob("*.py")) if given.rehearse or path.stem in PEERS]
    if not peers:
        parser.error(f"--peers {given.peers}: has none of {', '.join(f'{name}.py' for name in PEERS)}; download them into it")
    if not given.rehearse:
        if not torch.cuda.is_available():
            parser.error("PyTorch sees no GPU with CUDA here; add --rehearse to try this on a CPU")
        if "+" in (environment_record()["commit"] or "+"):
            parser.error("rows need a clean commit; commit the changes, or outside of git set SPRINTNET_COMMIT")
    WORK.mkdir(parents=True, exist_ok=True)
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):  # what one part compiled, another finds
        os.environ.setdefault(variable, str(Path("runs", variable.lower()).absolute()))
    source = str(HERE.parent / "src")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    options, failed = Options(peers, given.rehearse), []
    for part in given.parts:
        if part not in ("tests", "steps", "compile"):
            await_peers(120)
        if not run_part(part, options):
            failed.append(part)
        write_archive(given.results.absolute())
        if failed == ["tests"]:
            break
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
