"""The verbs of the command line: what each does, the words that follow it, and its options."""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from sprintnet.cli import data, deploy, evaluate, experiments, train, tune
from sprintnet.errors import SettingsError, did_you_mean

Option = tuple[str, dict[str, Any]]  # the name of an option, and the keyword arguments of argparse's add_argument
Verb = tuple[Callable[[argparse.Namespace], None], str, list[Option]]
"""What a verb does, the words that follow it, and its options."""


def _option(name: str, help: str, default: Any = "", rule: Sequence[Any] = (), metavar: str = "") -> Option:
    """Returns an option of the default's type; `rule` is the smallest and largest number, or the words to choose from."""
    if default is False:
        return name, {"action": "store_true", "help": help}
    is_number = isinstance(default, int | float)

    def read(word: str) -> Any:
        with contextlib.suppress(ValueError):
            value = type(default)(word) if is_number else word
            if not rule or (rule[0] <= value <= rule[1] if is_number else value in rule):
                return value
        if not is_number:
            raise SettingsError(f"{name} {word}: must be one of {', '.join(rule)}{did_you_mean(word, rule)}")
        kind = "a whole number" if isinstance(default, int) else "a number"
        example = f", such as {default}" if default else ""
        raise SettingsError(f"{name} {word}: must be {kind} from {rule[0]:,} to {rule[1]:,}{example}")

    details = {"type": read, "metavar": metavar or ("N" if is_number else "|".join(rule)), "default": default, "help": help}
    if default == []:
        return name, {**details, "action": "append", "help": f"{help}; may be repeated"}
    return name, {**details, "help": f"{help} (default: {default})"} if default not in ("", None, 0) else details


# the words that a verb requires, and an example of them
EXAMPLES = {
    "RUN": "sprint94",
    "MODEL": "sprint94",
    "MODEL IMAGE": "sprint94 cat.png",
    "list|fetch": "list",
    "STUDY": "sprint94",
}
EXAMPLES["STUDY STUDY"] = "sprint94 sprint95"
GROUPS = {  # of `sprintnet --help`
    "Data": ("check", "data"),
    "Train": ("train", "study", "tune", "ensemble", "lr-find", "recipes", "summary"),
    "Evaluate": ("val", "report", "explain", "compare", "label-errors", "verify", "log"),
    "Ship": ("export", "predict", "serve"),
    "Measure": ("benchmark",),
}
FIRST_STEPS = {
    "train smoke": "CIFAR-10, a small network: a first try",
    "train sprint94": "CIFAR-10, 93 % of test images right",
    "check FOLDER": "what is wrong with your own pictures",
    "train photos --data FOLDER": "learns from about ten of each class",
}
OVERRIDES = "[KEY=VALUE]..."
RECIPE = f"[RECIPE] {OVERRIDES}"
SETTINGS_HELP = "a setting, such as device=cpu or --data X (data.name=X); `sprintnet train --help all` lists them"
MAX = 1_000_000
CONTINUE = "continue where the same command was interrupted"
RESUME = _option("--resume", f"{CONTINUE} (without --name: its newest)", default=False)
PLACEMENT = (
    _option(
        "--jobs", "runs that are trained at a time, each with its share of the cores (default: 1; on Ray: all)", 0, (1, MAX)
    ),
    _option(
        "--on", "where: ray or ray:ADDRESS, a Ray cluster whose nodes share this folder (default: this machine)", metavar="ray"
    ),
)
VERBS: dict[str, Verb] = {
    "train": (train.train, RECIPE, [
        _option("--name", "name of the run folder in runs/train (default: the recipe's)", metavar="NAME"),
        RESUME,
        _option("--track", "also show the run in a tracker, whose package is installed", [], evaluate.TRACKERS),
        _option("--no-report", "skip Grad-CAM, figures and report.html at the end", False)]),
    "val": (evaluate.val, f"RUN {OVERRIDES}", [
        _option("--split", "default: the evaluation split; of --data: all images", None, ("test", "val", "train")),
        _option("--output", "also write one row per image to a CSV file", metavar="FILE")]),
    "verify": (evaluate.verify, "RUN", [
        _option("--no-replay", "do not repeat the training, which takes as long as it took", False)]),
    "study": (experiments.study, RECIPE, [
        _option("--seeds", "number of runs, from the recipe's seed upwards (default: 10)", 0, (2, MAX)),
        _option("--folds", "cross-validation: train one run without each of N parts of the training images", 0, (2, MAX)),
        *PLACEMENT,
        _option("--shard", "train only part K of N of the runs, one for each of N machines", "1/1", metavar="K/N"),
        _option("--name", "name of the folder in runs/study (default: the recipe's)", metavar="NAME"),
        RESUME]),
    "tune": (tune.tune, RECIPE, [
        _option("--space", "TOML file whose table [tune.space] has the settings to change and their values", metavar="FILE"),
        _option("--trials", "number of trials, the recipe itself among them", 27, (2, 10_000)),
        _option("--minutes", "after which no bracket of trials begins; the final test still runs (0: no limit)", 0.0, (0, MAX)),
        _option("--confirm", "fresh seeds of the final test of the winner against the recipe", 5, (2, 1000)),
        *PLACEMENT,
        _option("--name", "name of the folder in runs/tune (default: the recipe's)", metavar="NAME"),
        RESUME]),
    "ensemble": (experiments.ensemble, "STUDY", [
        _option("--name", "name of the run folder in runs/train (default: the study's, and -ensemble)", metavar="NAME")]),
    "compare": (experiments.compare, "STUDY STUDY", [
        _option("--split", "the split that is compared (default: the evaluation split of both)", None, ("test", "val"))]),
    "explain": (evaluate.explain, "RUN [IMAGE]...", [
        _option("--wrong", "without IMAGE: how many errors", evaluate.ERRORS, (1, evaluate.MAX_EXPLAINED)),
        _option("--target-class", "the class of the maps: predicted, true, or a name", "predicted", metavar="CLASS"),
        _option("--layer", "one layer (default: the last feature layer, and the mean of all)", metavar="NAME")]),
    "label-errors": (experiments.label_errors, "RUN", [
        _option("--folds", "number of trainings, each without one fold of the images", 5, (2, MAX)),
        *PLACEMENT,
        _option("--resume", CONTINUE, default=False)]),
    "report": (evaluate.report, "RUN [RUN]...", [
        _option("--output", "the page (default: RUN/report.html; of several runs: comparison.html)", metavar="FILE")]),
    "log": (evaluate.log, "RUN [RUN]...", [
        _option("--to", "the tracker, whose package is installed", [], evaluate.TRACKERS)]),
    "export": (deploy.export, "RUN", [
        _option("--quantize", "also write a smaller file", [], ("int8", "fp16")),
        _option("--tta", "test-time augmentation in the file: mirrored, or all views of an image", None, ("flip", "all")),
        _option("--outputs", "outputs of the model", deploy.OUTPUTS, metavar="NAMES"),
        _option("--min-precision", "a threshold a class, above which this share of predictions is right", 0.0, (0.01, 1)),
        _option("--cost", "a threshold a class, by the cost of a wrong prediction (of none: 1)", [], metavar="[CLASS=]COST"),
        _option("--license", "licence of the weights, as the Hugging Face hub spells it", "unknown", metavar="NAME"),
        _option("--web", "also create a folder with a page that classifies in the browser", metavar="DIR")]),
    "predict": (deploy.predict, "MODEL IMAGE [IMAGE]...", [
        _option("--top", "classes to list per image", 3, (1, MAX)),
        _option("--abstain-below", "mark predictions below this confidence as unsure", 0.0, (0, 1)),
        _option("--coverage", "list a set of classes too, which has the true one for this share of images", 0.0, (0.5, 0.9999)),
        _option("--sets", "threshold: the smallest sets; adaptive: larger ones for harder images", deploy.SETS[0], deploy.SETS),
        _option("--by-class", "with --coverage: for this share of the images of each class", False),
        _option("--unknown", "mark images unlike the training images, with this share of false alarms", 0.0, (0.0001, 0.5)),
        _option("--embeddings", "also write files and embeddings to this NumPy file", metavar="FILE.npz"),
        _option("--format", "output format", "table", ("table", "csv", "json")),
        _option("--tta", "average shifted and mirrored views of each image (test-time augmentation)", False),
        _option("--output", "write a table to this file, .csv or .parquet; the same command continues it", metavar="FILE"),
        _option("--shard", "predict only part K of N of the files, such as 3/16", "1/1", metavar="K/N"),
        _option("--on", "with --output: ray or ray:ADDRESS, a cluster on which all shards are predicted", metavar="ray"),
        _option("--shards", "with --on: the number of shards", 0, (1, MAX)),
        _option("--batch", "batch size", 64, (1, MAX))]),
    "serve": (deploy.serve, "MODEL", [
        _option("--host", "address to listen at; 127.0.0.1: this machine only", "127.0.0.1", metavar="ADDRESS"),
        _option("--port", "port; 0: any free one", 8000, (0, 65535)),
        _option("--allow-host", "another name of the server for clients", [], metavar="NAME"),
        _option("--allow-origin", "a site whose pages may send requests, such as https://example.org", [], metavar="ORIGIN")]),
    "lr-find": (train.lr_find, RECIPE, [
        _option("--seeds", "number of sweeps, from the recipe's seed upwards", 1, (1, MAX)),
        _option("--lowest", "first learning rate", 1e-7, (1e-12, 1e6)),
        _option("--highest", "last learning rate", 10.0, (1e-12, 1e6)),
        _option("--rates", "steps of a sweep; it goes on while the loss still falls", 100, (25, MAX)),
        _option("--all", "also show what other rules suggest", False)]),
    "benchmark": (experiments.benchmark, RECIPE, [
        _option("--phases", "only measure single steps, without a complete training", False),
        _option("--kernels", "only measure each layer's implementations; fails where the chosen one is not the fastest", False),
        _option("--target", "accuracy for the time to accuracy", 0.94, (0.01, 1)),
        _option("--output", "file to append a row to", "benchmarks/results/benchmark.jsonl", metavar="FILE")]),
    "summary": (train.summary, RECIPE, []),
    "check": (data.check, f"[DATA] {OVERRIDES}", [
        _option("--output", "also write one row per problem to a CSV file", metavar="FILE"),
        _option("--pairs", "also draw the pairs of near duplicates, to look at them", metavar="FILE.png")]),
    "data": (data.data, "list|fetch [DATASET]", [
        _option("--source", "a local folder or archive to take the dataset from (default: the network)", metavar="PATH")]),
    "recipes": (train.recipes, "", []),
}  # fmt: skip
