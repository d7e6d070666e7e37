"""Measures the GPU rows in parts, each with a time limit; a part that fails or is late loses nothing of the others.

    python benchmarks/gpu.py tests steps compile --peers FOLDER --results DIR
    python benchmarks/gpu.py cold study beside davidnet sprint95 --peers FOLDER --results DIR

Needs a GPU, CIFAR-10 in the cache, `pip install ".[study]"` and nothing else running. FOLDER holds the peers' published
scripts, airbench94_muon.py and hiverge's cifar10_speedrun.py. DIR gets what each part prints, its rows (append them to the
files of benchmarks/results, then `python benchmarks/headline.py`), and the small files of its runs. All parts together take
about ten minutes on an H200, by estimate: not run yet, since no GPU was at hand. `--rehearse` runs all of it on a CPU with
tiny networks.
tests     tests/test_cuda.py: go on only where it passes
steps     milliseconds of a step, by how it is launched; profiles
compile   compiles the peers in the background, so that `beside` need not wait for it
cold      one training as a new user runs it
study     100 seeds of sprint94 in one process
beside    sprint94 and the peers in alternation, each warmed
davidnet  three seeds of davidnet
sprint95  two seeds of sprint95
"""

import argparse
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SPRINTNET = [sys.executable, "-m", "sprintnet"]
KEPT = ("config.toml", "environment.json", "metrics.json", "results.csv", "log.txt", "study.json")
LIMITS = {
    "tests": 90, "steps": 150, "compile": 5, "cold": 60, "study": 220, "beside": 150, "davidnet": 75, "sprint95": 90,
}  # fmt: skip
"""Part -> seconds after which it is ended."""


@dataclass(frozen=True)
class Options:
    """Where results go and peers are, and the sizes."""

    results: Path
    peers: list[Path]
    rehearses: bool

    def study(self, recipe: str, seeds: int, row: str) -> Iterator[list[str]]:
        """Yields the commands of a study and its row."""
        settings = self.settings()
        seeds = 2 if self.rehearses else seeds
        yield [*SPRINTNET, "study", recipe, *settings, "--seeds", str(seeds), "--name", f"gpu-{recipe}", "--resume"]
        runs = [f"runs/study/gpu-{recipe}/seed-{seed}" for seed in range(seeds)]
        rehearse = ["--rehearse"] if self.rehearses else []
        yield [sys.executable, str(HERE / "record.py"), row, *runs, "--folder", str(self.results), *rehearse]

    def settings(self) -> list[str]:
        """Returns the settings of all trainings."""
        if not self.rehearses:
            return ["data.val=0"]
        sample = HERE.parent / "tests" / "sample"
        return [f"data.name={sample}", "data.val=0.2", "epochs=1", "model.width=8", "batch_size=40", "auto=", "threads=1"]


def commands(part: str, options: Options) -> Iterator[list[str]]:
    """Yields the commands of a part."""
    results, python = options.results, sys.executable
    if part == "tests":
        yield [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(HERE.parent / "tests" / "test_cuda.py")]
    elif part == "steps":
        tiny = ["--images", "80", "--steps", "1", "--precisions", "bf16", "--set", *options.settings()[2:]]
        output = ["--output", str(results / "gpu-steps.jsonl"), "--profiles", str(results)]
        yield [python, str(HERE / "gpu_steps.py"), "sprint94", "davidnet", *output, *(tiny if options.rehearses else [])]
    elif part == "cold":
        yield [*SPRINTNET, "train", "sprint94", *options.settings(), "--name", "gpu-cold", "--no-report"]
    elif part == "study":
        yield from options.study("sprint94", 100, "sprint94-gpu")
    elif part == "beside":
        data = ["--data", options.settings()[0].partition("=")[2], "--set", *options.settings()[1:]]
        more = ["--rounds", "1" if options.rehearses else "8", "--output", str(results / "side-by-side.jsonl")]
        scripts = list(map(str, options.peers))
        yield [python, str(HERE / "side_by_side.py"), "sprint94", *scripts, *more, *(data if options.rehearses else [])]
    elif part == "davidnet":
        yield from options.study("davidnet", 3, "davidnet-24-epochs-gpu")
    elif part == "sprint95":
        yield from options.study("sprint95", 2, "sprint95-gpu")


def run_part(part: str, options: Options) -> bool:
    """Runs a part; returns whether all of its commands succeeded within its limit."""
    started, is_done = time.monotonic(), True
    with (options.results / f"{part}.txt").open("a", encoding="utf-8") as log:
        if part == "compile":
            for script in options.peers:
                command = [sys.executable, str(HERE / "peer.py"), str(script), "--seeds", "0"]
                subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for command in commands(part, options):
            left = LIMITS[part] - (time.monotonic() - started)
            try:
                subprocess.run(command, stdout=log, stderr=log, timeout=max(left, 1), check=True)
            except subprocess.SubprocessError as error:
                log.write(f"{error}\n")
                is_done = False
                break
    keep_runs(options.results / f"runs-{part}.tar.gz")
    print(f"{part}: {'done' if is_done else 'FAILED'} after {time.monotonic() - started:.0f} s", flush=True)
    return is_done


def keep_runs(file: Path) -> None:
    """Writes the small files of all runs so far to an archive."""
    with tarfile.open(file, "w:gz") as archive:
        for path in sorted(Path("runs").rglob("*")):
            if path.name in KEPT:
                archive.add(path)


def main() -> None:
    """Runs the parts; exits with status 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=LIMITS, metavar="PART", help=", ".join(LIMITS))
    parser.add_argument("--peers", type=Path, required=True, help="folder of the peers' scripts")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    peers = sorted(path.absolute() for path in options.peers.glob("*.py"))
    if not peers:
        parser.error(f"--peers {options.peers}: holds no script; download airbench94_muon.py and cifar10_speedrun.py into it")
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):  # what one part compiled, another finds
        os.environ.setdefault(variable, str(Path("runs").absolute() / variable.lower()))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    done = [run_part(part, Options(options.results.absolute(), peers, options.rehearse)) for part in options.parts]
    raise SystemExit(0 if all(done) else 1)


if __name__ == "__main__":
    main()
