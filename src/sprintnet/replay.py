"""The training of a run, repeated and compared."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sprintnet.config import Config
from sprintnet.data.splits import Splits
from sprintnet.errors import DivergedError, Interrupted, SettingsError, VerificationError
from sprintnet.evaluation.task import TASKS
from sprintnet.models.factory import load_model
from sprintnet.models.tensor_file import read_tensors
from sprintnet.runs.folder import RunFolder, evaluation_split, read_arrays, read_epochs, read_json
from sprintnet.training.loop import CROWDED
from sprintnet.training.train import RESUMED_ELSEWHERE, train

BITS = (
    "code_sha256",
    "versions",
    "device",
    "gpu",
    "cpu",
    "processor",
    "threads",
    "processes",
    "precision",
    "kernels",
    "init_sha256",
    "teacher_sha256",
)
"""What two trainings must have in common, besides settings and data, to give the same bits."""
LEVEL, NORMAL_999 = 0.999, 3.290526731491926
"""Of intervals: one in a thousand sound runs would fail. And the quantile of the normal distribution."""
MAX_INTERVAL_WIDTH = 0.1  # from a study: a wider one, of few runs, would accept anything
COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
FACTS = ("epochs", "parameters", "peak_lr")


def repeat(run: RunFolder, config: Config, splits: Splits) -> tuple[bool | None, str]:
    """Repeats the training of a run in a temporary folder; returns whether it gives equal bits, and the details.

    None: it cannot be repeated here. Raises VerificationError for other weights under the same conditions, or another accuracy
    than other conditions explain.
    """
    record = read_json(run.environment)
    like_run = {key: record[key] for key in ("device", "precision", "threads")}
    with TemporaryDirectory(prefix="sprintnet-verify-") as folder:
        again = RunFolder(Path(folder) / run.path.resolve().name, is_quiet=True)
        try:
            train(replace(config, **like_run), again, splits=splits, is_replay=True)
        except Interrupted as error:
            raise Interrupted("verification was interrupted; the run is as it was", error.exit_code - 128) from None
        except DivergedError as error:
            raise VerificationError(f"{run.path}: repeated, the training diverged: {error}") from None
        except SettingsError as error:  # such as a GPU that this machine lacks, or weights to start from
            return None, str(error)
        if difference := _first_different_tensor(run.weights, again.weights):
            return False, _close(run, again, difference)
        for file, what in ((run.results, _epochs), (run.metrics, _facts)):
            if what(run) != what(again):
                raise VerificationError(f"{file}: repeated, the training gives the weights, but other {what.__name__[1:]}")
    return True, "repeated: all weights bit for bit, and every epoch's loss and accuracy"


def other_conditions(run: RunFolder, now: Mapping[str, Any]) -> str:
    """Returns the names of what differs between the conditions of a run and others, of those that are recorded there."""
    then = read_json(run.environment)
    return ", ".join(key for key in BITS if key in now and then.get(key) != now[key])


def _epochs(run: RunFolder) -> list[tuple[str, ...]]:
    return [tuple(row[key] for key in COLUMNS) for row in read_epochs(run)]


def _facts(run: RunFolder) -> list[Any]:
    metrics = read_json(run.metrics)
    return [metrics[key] for key in FACTS]


def _close(run: RunFolder, again: RunFolder, difference: str) -> str:
    """Compares two trainings with different weights: under other conditions their accuracy must be alike."""
    other = [other_conditions(run, read_json(again.environment))]
    logs = "".join(each.log_text.read_text("utf-8", "replace") for each in (run, again))
    other += ["threads while other processes kept cores busy"] * (CROWDED in logs)
    other += ["conditions after a resume"] * (RESUMED_ELSEWHERE in logs)
    if not (reasons := ", ".join(filter(None, other))):
        raise VerificationError(f"{run.weights}: repeated, the training gives other weights: {difference}")
    split = evaluation_split(read_json(run.metrics))
    before, after = (read_json(each.metrics)[split]["accuracy"] for each in (run, again))
    low, high, rule = _interval(run, again, split)
    detail = f"repeated: {split} accuracy {after:.2%}, {before:.2%} in the run; other {reasons}"
    if not low <= after <= high:
        raise VerificationError(f"{run.path}: {detail}; {rule} is {low:.2%} to {high:.2%}")
    return f"{detail}; within {rule}, {low:.2%} to {high:.2%}"


def _interval(run: RunFolder, again: RunFolder, split: str) -> tuple[float, float, str]:
    """Returns bounds for the accuracy of a repeated training, and what they are."""
    if run.path.parent.joinpath("study.json").exists():
        from sprintnet.experiments.compare import prediction_interval, summarise  # need SciPy
        from sprintnet.experiments.study_runs import finished_runs

        others = [metrics[split]["accuracy"] for metrics in finished_runs(run.path.parent)]
        if len(others) > 2:
            found = summarise(others)
            low, high = prediction_interval(found.n, found.mean, found.sd, LEVEL)
            if high - low < MAX_INTERVAL_WIDTH:
                return low, high, f"the 99.9% prediction interval of the {found.n} runs of its study"
    first, second = (
        TASKS[load_model(each.weights).preprocessing.task].correct_mask(arrays[f"{split}_logits"], arrays[f"{split}_labels"])
        for each in (run, again)
        for arrays in [read_arrays(each.predictions)]
    )
    margin = NORMAL_999 * math.sqrt((first != second).sum()) / len(first)
    return first.mean() - margin, first.mean() + margin, "the 99.9% interval of a paired comparison on the same images"


def _first_different_tensor(a: Path, b: Path) -> str:
    first, second = (read_tensors(path)[0] for path in (a, b))
    for name, tensor in first.items():
        if name not in second or second[name].shape != tensor.shape:
            return f"{name} has another shape"
        if not torch.equal(tensor, second[name]):
            return f"{name} differs by up to {float((tensor.double() - second[name].double()).abs().max()):.3g}"
    return ""
