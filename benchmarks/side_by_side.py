"""A recipe beside another project's published script, full trainings in alternation: peer, recipe, peer, recipe, ...

    python benchmarks/side_by_side.py PATH/airbench94_muon.py sprint94 --rounds 2

Both clocks cover whitening, data order, augmentation, training and test predictions with TTA (the recipe's: for images of low
confidence); neither covers startup, loading and the evaluations between epochs. Each training runs in a new process; with
`--warm-ups 1` the process trains once before (on a GPU, where compiling and loading kernels take longer than training). Both
take the seeds `--seed`, `--seed` + 1, ..., and train on all images (data.val=0). Run nothing else on the machine. Appends a row
to benchmarks/results/side-by-side.jsonl after each round, so that an interrupted call keeps its finished rounds; the README's
table joins rows of equal code.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from sprintnet.config import load_config
from sprintnet.runs.environment import cpu_name
from sprintnet.runs.folder import read_json
from sprintnet.runs.io import append_row

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "side-by-side.jsonl"
TRAINING = """
import sys
from pathlib import Path
from sprintnet.config import load_config
from sprintnet.runs.folder import RunFolder
from sprintnet.training.train import train
recipe, folder, *seeds = sys.argv[1:]
for seed in seeds:
    train(load_config(recipe, [f"seed={seed}", "data.val=0"]), RunFolder(Path(folder) / seed))
"""


def train_peer(script: Path, seed: int, warm_ups: int) -> dict[str, float]:
    """Returns TTA accuracy and seconds of the last training of a process that runs the peer's script."""
    command = [sys.executable, str(HERE / "peer.py"), str(script), "--runs", str(warm_ups + 1), "--seed", str(seed)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {"seed": seed, **json.loads(printed.splitlines()[-1])["runs"][-1]}


def train_recipe(recipe: str, seed: int, warm_ups: int) -> tuple[dict[str, float], str | None]:
    """Returns TTA accuracy and seconds of the last training of a process that trains the recipe, and the GPU, if any."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TRAINING, recipe, folder, *map(str, range(seed, seed + warm_ups + 1))]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        run = Path(folder) / str(seed + warm_ups)
        metrics, environment = read_json(run / "metrics.json"), read_json(run / "environment.json")
    tta = metrics["test"]["tta"]
    seconds = metrics["train_seconds"] + tta["seconds"]
    return {"seed": seed + warm_ups, "accuracy": tta["accuracy"], "seconds": seconds}, environment["gpu"]


def main() -> None:
    """Runs both in alternation and appends a row after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path, help="the peer's script, which you download")
    parser.add_argument("recipe")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round; the others count upwards")
    parser.add_argument("--warm-ups", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not load_config(options.recipe).tta:
        parser.error(f"{options.recipe} has no TTA (setting tta), which the peer's time and accuracy include")
    for seed in range(options.seed, options.seed + options.rounds):
        peer = train_peer(options.script, seed, options.warm_ups)
        print(options.script.stem, peer, flush=True)
        recipe, gpu = train_recipe(options.recipe, seed, options.warm_ups)
        print(options.recipe, recipe, flush=True)
        ratio = peer["seconds"] / recipe["seconds"]
        append_row(
            options.output,
            {
                "peer": options.script.stem,
                "recipe": options.recipe,
                "settings": load_config(options.recipe).to_toml(),
                "gpu": gpu,
                "n": 1,
                "warm_ups": options.warm_ups,
                "peer_runs": [peer],
                "recipe_runs": [recipe],
                "ratio_of_median_seconds": ratio,
                "clock": "whitening, order, augmentation, training, predictions with TTA",
            },
        )
        print(f"{options.recipe} takes 1/{ratio:.2f} of the time of {options.script.stem} on {gpu or cpu_name()}", flush=True)


if __name__ == "__main__":
    main()
