"""A study over two Ray nodes on this machine, one of them killed half-way, against the same study in one process.

    python benchmarks/cluster_study.py smoke --seeds 10

All runs have one thread. Appends a row with the number of runs whose weights are equal bit for bit, and the seconds of both
studies, to benchmarks/results/cluster-study.jsonl. Ends with exit code 1 where a run differs.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results" / "cluster-study.jsonl"


def begin(recipe: str, seeds: int, folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Returns the command of a study, whose runs will lie in FOLDER/runs/study/RECIPE."""
    folder.mkdir()
    words = ["study", recipe, "--seeds", str(seeds), "threads=1", "checkpoint_seconds=5", *options]
    return subprocess.Popen([sys.executable, "-m", "sprintnet", *words], cwd=folder)


def finished(study: Path) -> set[str]:
    """Returns the names of the runs that are complete."""
    return {file.parent.name for file in study.glob("seed-*/metrics.json")}


def unfinished(study: Path) -> set[str]:
    """Returns the names of the runs that have a checkpoint and are not complete."""
    return {file.parent.name for file in study.glob("seed-*/checkpoint.safetensors")} - finished(study)


def digests(study: Path) -> dict[str, str]:
    """Returns the SHA-256 of the weights of each run."""
    files = sorted(study.glob("seed-*/weights.safetensors"))
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def kill_half_way(process: "subprocess.Popen[bytes]", cluster: Cluster, study: Path, seeds: int) -> int:
    """Kills a node once half of the runs are complete and each node is in one, adds another; returns how many are complete."""
    while len(finished(study)) < seeds // 2 or len(unfinished(study)) < 2:
        if process.poll() is not None:
            sys.exit(f"the study ended with exit code {process.returncode} before a node was killed")
        time.sleep(0.1)
    complete = len(finished(study))
    cluster.remove_node(next(node for node in cluster.list_all_nodes() if node is not cluster.head_node), allow_graceful=False)
    cluster.add_node(num_cpus=1)
    print(f"killed a node, and added another, after {complete} of {seeds} runs", flush=True)
    return complete


def main() -> None:
    """Runs both studies and appends the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        alone, spread = (Path(place, name, "runs", "study", options.recipe) for name in ("alone", "spread"))
        started = time.monotonic()
        if code := begin(options.recipe, options.seeds, Path(place, "alone")).wait():
            sys.exit(f"the study in one process ended with exit code {code}")
        seconds = [time.monotonic() - started]

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        started = time.monotonic()
        process = begin(options.recipe, options.seeds, Path(place, "spread"), "--on", f"ray:{cluster.address}")
        complete = kill_half_way(process, cluster, spread, options.seeds)
        if code := process.wait():
            sys.exit(f"the study on the cluster ended with exit code {code}")
        seconds.append(time.monotonic() - started)
        cluster.shutdown()

        expected, found = digests(alone), digests(spread)
    equal = sum(found.get(name) == digest for name, digest in expected.items())
    print(f"{equal} of {options.seeds} runs have equal weights; {seconds[0]:.0f} s alone, {seconds[1]:.0f} s on two nodes")
    counts = {"equal": equal, "complete_when_a_node_was_killed": complete}
    times = {"one_process": seconds[0], "two_nodes": seconds[1]}
    append_row(options.output, {"recipe": options.recipe, "seeds": options.seeds, **counts, "seconds": times})
    if equal < options.seeds:
        sys.exit(1)


if __name__ == "__main__":
    main()
