"""A recipe beside other projects' published scripts, full trainings in alternation: peers, recipe, peers, recipe, ...

    python benchmarks/side_by_side.py sprint94 PATH/airbench94_muon.py --rounds 2

The clocks cover whitening, data order, augmentation, training and test predictions with TTA (the recipe's: for images of low
confidence); none covers startup, loading, the evaluations between epochs, and on a GPU what compiles, chooses and records
kernels before. Each side is one process that waits while another trains; `--warm-ups` trainings of each side, on a GPU at
least one, come before the rounds and are not counted. All take the seeds `--seed`, `--seed` + 1, ..., and train on all images
(data.val=0). Run nothing else on the machine. Appends a row for each peer to benchmarks/results/side-by-side.jsonl after each
round, so that an interrupted call keeps its finished rounds; the table of results joins rows of equal code. With `--part 0.1`
each side trains a tenth of its epochs: times, without accuracies, of pairs that would take hours (side-by-side-parts.jsonl).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from sprintnet.config import load_config
from sprintnet.runs.io import append_row

HERE = Path(__file__).parent
RESULTS, PARTS = (HERE / "results" / f"{name}.jsonl" for name in ("side-by-side", "side-by-side-parts"))
CLOCK = "whitening, order, augmentation, training, predictions with TTA; warmup_seconds before them, of a GPU, are not counted"
TRAIN_ON_REQUEST = """
import contextlib, json, sys
from pathlib import Path
from sprintnet.config import load_config
from sprintnet.runs.folder import RunFolder, evaluation_split
from sprintnet.training.train import train
recipe, folder, *settings = sys.argv[1:]
for number, seed in enumerate(map(int, sys.stdin)):
    with contextlib.redirect_stdout(sys.stderr):
        metrics = train(load_config(recipe, [f"seed={seed}", *settings]), RunFolder(Path(folder) / str(number))).metrics
    tta = metrics[evaluation_split(metrics)]["tta"]
    found = {"accuracy": tta["accuracy"], "seconds": metrics["train_seconds"] + tta["seconds"]}
    print(json.dumps({**found, "warmup_seconds": metrics["warmup_seconds"]}), flush=True)
"""


class Side:
    """A process that trains once for each seed that it is given."""

    def __init__(self, name: str, command: list[str]):
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def train(self, seed: int) -> dict[str, float]:
        """Returns seed, TTA accuracy and seconds of a training; exits where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('{"accuracy"'):
                found = {"seed": seed, **json.loads(line)}
                print(self.name, found, flush=True)
                return found
        raise SystemExit(f"{self.name}: ended with exit status {self._process.wait()}; run it by itself to see why")

    def close(self) -> None:
        """Ends the process, which leaves its temporary folder only where it does not end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def main() -> None:
    """Runs all sides in alternation and appends rows after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("scripts", type=Path, nargs="+", metavar="SCRIPT", help="a peer's script, which you download")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round; the others count upwards")
    parser.add_argument("--warm-ups", type=int, default=int(torch.cuda.is_available()))
    parser.add_argument("--part", type=float, default=1.0, help="share of the epochs of each side")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--data", default="cifar10", help="another dataset, to try this script with")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", help="settings of the recipe, such as epochs=8")
    options = parser.parse_args()
    settings = ["data.val=0", f"data.name={options.data}", *options.settings]
    if options.part < 1:
        settings.append(f"epochs={round(options.part * load_config(options.recipe, settings).epochs)}")
    output = options.output or (RESULTS if options.part == 1 else PARTS)
    config = load_config(options.recipe, settings)
    if not config.tta:
        parser.error(f"{options.recipe} has no TTA (setting tta), which the peer's time and accuracy include")
    sides: list[Side] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for script in options.scripts:
                words = [str(script), "--on-request", "--data", options.data, "--part", str(options.part)]
                sides.append(Side(script.stem, [str(HERE / "peer.py"), *words]))
            sides.append(Side(options.recipe, ["-c", TRAIN_ON_REQUEST, options.recipe, folder, *settings]))
            for _ in range(options.warm_ups):
                for side in sides:
                    side.train(options.seed)
            for seed in range(options.seed, options.seed + options.rounds):
                *peers, recipe = [side.train(seed) for side in sides]
                for side, peer in zip(sides, peers, strict=False):
                    found = row(side.name, options.recipe, config.to_toml(), options.warm_ups, peer, recipe)
                    append_row(output, {**found, "part": options.part})
        finally:
            for side in sides:
                side.close()


def row(
    peer_name: str, recipe: str, settings: str, warm_ups: int, peer: dict[str, float], trained: dict[str, float]
) -> dict[str, Any]:
    """Returns the row of a round."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "gpu": gpu,
        "peer": peer_name,
        "recipe": recipe,
        "settings": settings,
        "n": 1,
        "warm_ups": warm_ups,
        "peer_runs": [peer],
        "recipe_runs": [trained],
        "ratio_of_median_seconds": peer["seconds"] / trained["seconds"],
        "clock": CLOCK,
    }


if __name__ == "__main__":
    main()
