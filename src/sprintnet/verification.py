"""Whether a run is what its folder says: its files, figures, predictions and export, and its training, repeated."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from sprintnet.config import LEARNING_RATES, Config, load_config
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.load import load_splits, require_same_splits
from sprintnet.data.splits import Splits
from sprintnet.datasets import IN_MEMORY
from sprintnet.deploy.export.parity import check_parity, parity, predict_all
from sprintnet.deploy.predictor import NO_PREPROCESSING, Predictor
from sprintnet.errors import DataError, SettingsError, VerificationError
from sprintnet.evaluation.metrics import NORMAL_95
from sprintnet.evaluation.task import TASKS, Evaluation
from sprintnet.evaluation.trained_model import TrainedModel, load_run
from sprintnet.experiments.compare import finished_runs, prediction_interval
from sprintnet.models.factory import load_model
from sprintnet.models.tensor_file import read_tensors
from sprintnet.reporting.figures.run_figures import saved_figures
from sprintnet.reporting.html.report import unchanged_page
from sprintnet.runs import checksums
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, dotted, evaluation_split, read_arrays, read_json, read_rows, require_consistent
from sprintnet.runtime import select_runtime
from sprintnet.training.loop import CROWDED
from sprintnet.training.train import train

SAME, CLOSE, UNCHECKED = "same", "close", "not checked"
BITS = ("code_sha256", "versions", "device", "gpu", "cpu", "processor", "threads", "precision", "kernels")
"""What two trainings must have in common, besides settings and data, to give the same bits."""
MAX_ACCURACY_DIFFERENCE = 0.001
"""Between the predictions of the same weights on different machines."""


class Check(NamedTuple):
    """What was compared, whether it is the same, close or not checked, and the details."""

    subject: str
    outcome: str
    detail: str


def verify(run: RunFolder, replay: bool = True) -> Iterator[Check]:
    """Yields the checks of a finished run, one after the other; raises VerificationError at the first difference.

    The files are compared with checksums.txt; settings with each other; every metric with predictions.npz, and the report with
    the files; predictions with what the weights predict here; exported files with the network; with `replay` the weights with
    those of the same training, repeated. What cannot be compared here is named. The run folder is left as it is.
    """
    yield _files(run)
    try:
        record, config = read_json(run.environment), load_config(run.config)
        here = select_runtime(config.device, "auto", 0)
        like_run = [f"precision={record['precision']}", f"threads={record['threads']}"]
        trained, _ = load_run(run.path, like_run if here.device.type == record["device"] else [])
        yield _settings(run, config)
        yield _metrics(run, trained)
        yield _report(run)
    except SettingsError as error:  # a file that is damaged
        raise VerificationError(str(error)) from None
    try:
        if config.data.name == IN_MEMORY:
            raise DataError("the images were in memory only")
        splits = load_splits(config.data, lambda line: None, run if run.splits.exists() else None)
        require_same_splits(splits, run, "data")
    except DataError as error:
        yield Check("data", UNCHECKED, f"{error}; predictions, export and training need it")
        return
    except SettingsError as error:
        raise VerificationError(str(error)) from None
    yield Check("data", SAME, f"SHA-256 {read_json(run.environment)['data_sha256'][:12]}...")
    yield _predictions(run, trained, splits)
    yield from _export(run, splits)
    if replay:
        yield _training(run, config, splits)


def _files(run: RunFolder) -> Check:
    kept = [file for file in (*run.final_files, run.metrics) if file.exists()]
    if not (run.path / checksums.FILE).exists():
        return Check("files", UNCHECKED, f"{checksums.FILE} is missing")
    try:
        missing = checksums.names(run.path) - {file.name for file in kept}
        for file in kept:
            checksums.require_unchanged(file)
    except ValueError as error:
        raise VerificationError(f"{file}: {error}") from None
    if missing:
        raise VerificationError(f"{run.path / min(missing)}: is missing, but listed in {checksums.FILE}")
    return Check("files", SAME, f"{len(kept)} files match {checksums.FILE}")


def _settings(run: RunFolder, config: Config) -> Check:
    """Compares the settings as requested, as resolved, and as the weights file has them."""
    requested, resolved = load_config(run.config), load_config(run.resolved)
    free = {"auto", "lr_find", "batch_size", *requested.auto, *(LEARNING_RATES if requested.lr_find else ())}
    before, after = (dotted(asdict(each)) for each in (requested, resolved))
    if changed := [key for key in before if before[key] != after[key] and key not in free]:
        key = changed[0]
        raise VerificationError(f"{run.resolved}: {key}={after[key]}, but {run.config.name} has {key}={before[key]}")
    saved = load_model(run.weights)
    if saved.settings != resolved.model or saved.preprocessing.label_smoothing not in (0, resolved.label_smoothing):
        raise VerificationError(f"{run.weights}: was trained with other settings than those of {run.resolved.name}")
    return Check("settings", SAME, f"{run.config.name}, {run.resolved.name} and {run.weights.name} agree")


def _metrics(run: RunFolder, trained: TrainedModel) -> Check:
    """Computes every metric again from the logits in predictions.npz."""
    kept, arrays, count = read_json(run.metrics), read_arrays(run.predictions), 0
    names = [name for name in ("val", "test") if name in kept]
    with require_consistent(run):
        for name in names:
            own = {key.removeprefix(f"{name}_"): values for key, values in arrays.items() if key.startswith(f"{name}_")}
            found = Evaluation(own, kept[name].get("tta", {}).get("seconds")).metrics(trained.preprocessing)
            if difference := _difference(kept[name], found, name):
                raise VerificationError(f"{run.metrics}: {difference} from {run.predictions.name}")
            count += _numbers(found)
            rows = Evaluation(own).rows(trained.preprocessing)
            written = [row for row in read_rows(run.predictions_csv) if row["split"] == name]
            if wrong := [
                f"{key}={old[key]}, {new[key]}"
                for old, new in zip(written, rows, strict=True)
                for key in new
                if old[key] != str(new[key])
            ]:
                raise VerificationError(f"{run.predictions_csv}: {wrong[0]} from {run.predictions.name}")
    if kept["temperature"] != trained.preprocessing.temperature:
        raise VerificationError(f"{run.metrics}: temperature={kept['temperature']}, another than in {run.weights.name}")
    return Check("metrics", SAME, f"{count:,} numbers of {' and '.join(names)} follow from {run.predictions.name}")


def _report(run: RunFolder) -> Check:
    if not run.report.exists():
        return Check("report", UNCHECKED, f"there is none: sprintnet report {run.path}")
    newer = [file for file in (run.explanations, run.label_errors) if file.exists() and _is_newer(file, run.report)]
    lost = [file.name for file in saved_figures(run) if not file.exists()]
    if newer or lost:
        cause = f"it is older than {newer[0].name}" if newer else f"its figure {lost[0]} is missing"
        return Check("report", UNCHECKED, f"{cause}; write it again: sprintnet report {run.path}")
    if not unchanged_page(run):
        raise VerificationError(f"{run.report}: is not what the run's files give; write it again: sprintnet report {run.path}")
    return Check("report", SAME, f"{run.report.name} shows what the files hold")


def _predictions(run: RunFolder, trained: TrainedModel, splits: Splits) -> Check:
    """Compares the kept logits with those that the weights give on this machine."""
    split = evaluation_split(splits)
    images, expected = splits[split], read_arrays(run.predictions)[f"{split}_logits"]
    logits = trained.predict(images)[0]
    if np.array_equal(logits, expected):
        return Check("predictions", SAME, f"{run.weights.name} gives the logits of {len(images):,} {split} images, bit for bit")
    before, after = (trained.task.accuracy(values, images.labels) for values in (expected, logits))
    detail = f"{split} accuracy {after:.2%} from {run.weights.name}, {before:.2%} from {run.predictions.name}"
    if (other := _other_conditions(run, trained.runtime.describe())) and abs(after - before) <= MAX_ACCURACY_DIFFERENCE:
        return Check("predictions", CLOSE, f"{detail}; other {other}")
    raise VerificationError(f"{run.path}: {detail}")


def _export(run: RunFolder, splits: Splits) -> Iterator[Check]:
    """Compares each exported file with the network, as the export did, and its metadata with parity.json."""
    if not run.export.is_dir():
        yield Check("export", UNCHECKED, f"there is none: sprintnet export {run.path}")
        return
    try:
        table = read_json(run.export / "parity.json")["files"]
        if (run.export / "model.safetensors").read_bytes() != run.weights.read_bytes():
            raise VerificationError(f"{run.export / 'model.safetensors'}: is another than {run.weights}; export again")
        for name, row in table.items():
            yield _exported_file(run, run.export / name, row, splits[evaluation_split(splits)])
    except (OSError, SettingsError, KeyError, TypeError) as error:
        if NO_PREPROCESSING not in str(error):
            raise VerificationError(f"{run.export}: {error}; export again") from None
        yield Check("export", UNCHECKED, f"{error}: another version made it")


def _exported_file(run: RunFolder, file: Path, kept: Mapping[str, Any], images: ImageDataset) -> Check:
    predictor = Predictor(file)
    if any(predictor.metadata["parity"][key] != kept[key] for key in predictor.metadata["parity"]):
        raise VerificationError(f"{file}: its parity is another than in parity.json")
    trained = load_run(run.path, ["device=cpu", "precision=fp32", "threads=0"])[0]
    tta = None if predictor.metadata["tta"] == "none" else predictor.metadata["tta"]
    trained = replace(trained, preprocessing=trained.preprocessing.with_tta(tta))
    if predictor.preprocessing != trained.preprocessing:
        raise VerificationError(f"{file}: its preprocessing is another than that of {run.weights}")
    logits = trained.predict_logits(images.images, "PyTorch", tta)
    row = parity(trained, predict_all(predictor, images.images, file.name), logits, images.labels)
    check_parity(file.name, row, is_exact=file.name == "model.onnx")
    detail = f"accuracy {row['accuracy']:.2%}, predictions as the network's {row['agreement']:.2%}"
    if row["accuracy"] == kept["accuracy"]:
        return Check(file.name, SAME, detail)
    if abs(row["accuracy"] - kept["accuracy"]) > MAX_ACCURACY_DIFFERENCE:
        raise VerificationError(f"{file}: {detail}; parity.json says {kept['accuracy']:.2%}")
    return Check(file.name, CLOSE, f"{detail}; {kept['accuracy']:.2%} where it was exported")


def _training(run: RunFolder, config: Config, splits: Splits) -> Check:
    """Repeats the training in a temporary folder; equal conditions must give equal weights."""
    record = read_json(run.environment)
    same_device = {key: record[key] for key in ("device", "precision", "threads")}
    with TemporaryDirectory(prefix="sprintnet-verify-") as folder:
        again = RunFolder(Path(folder) / run.path.resolve().name)
        try:
            train(replace(config, **same_device), again, splits=splits)
        except SettingsError as error:  # such as a GPU that this machine lacks, or weights to start from
            return Check("training", UNCHECKED, str(error))
        if difference := _first_different_tensor(run.weights, again.weights):
            return _close_training(run, again, difference)
    return Check("training", SAME, "repeated: all weights bit for bit")


def _close_training(run: RunFolder, again: RunFolder, difference: str) -> Check:
    """Compares two trainings with different weights: under other conditions their accuracy must be alike."""
    reasons = _other_conditions(run, read_json(again.environment))
    if any(CROWDED in each.log_text.read_text("utf-8") for each in (run, again)):
        reasons = ", ".join(filter(None, [reasons, "threads while other processes kept cores busy"]))
    if not reasons:
        raise VerificationError(f"{run.weights}: repeated, the training gives other weights: {difference}")
    split = evaluation_split(read_json(run.metrics))
    before, after = (read_json(each.metrics)[split]["accuracy"] for each in (run, again))
    low, high, rule = _interval(run, again, split)
    detail = f"repeated: {split} accuracy {after:.2%}, {before:.2%} in the run; other {reasons}"
    if not low <= after <= high:
        raise VerificationError(f"{run.path}: {detail}; {rule} is {low:.2%} to {high:.2%}")
    return Check("training", CLOSE, f"{detail}; within {rule}, {low:.2%} to {high:.2%}")


def _interval(run: RunFolder, again: RunFolder, split: str) -> tuple[float, float, str]:
    """Returns bounds for the accuracy of a repeated training, and what they are."""
    try:
        others = [metrics[split]["accuracy"] for metrics in finished_runs(run.path.parent)]
    except (SettingsError, KeyError):
        others = []
    if len(others) > 2 and run.path.parent.joinpath("study.json").exists():
        return *prediction_interval(others), f"the 95% prediction interval of the {len(others)} runs of its study"
    first, second = (
        TASKS[load_model(each.weights).preprocessing.task].correct_mask(arrays[f"{split}_logits"], arrays[f"{split}_labels"])
        for each in (run, again)
        for arrays in [read_arrays(each.predictions)]
    )
    margin = NORMAL_95 * math.sqrt((first != second).sum()) / len(first)
    return first.mean() - margin, first.mean() + margin, "the 95% interval of a paired comparison on the same images"


def _other_conditions(run: RunFolder, here: Mapping[str, Any]) -> str:
    """Returns the names of what differs between the machine and code of a run and those here."""
    then, now = read_json(run.environment), environment_record(**here)
    return ", ".join(key for key in BITS if then.get(key) != now.get(key))


def _first_different_tensor(a: Path, b: Path) -> str:
    first, second = (read_tensors(path)[0] for path in (a, b))
    for name, tensor in first.items():
        if name not in second or second[name].shape != tensor.shape:
            return f"{name} has another shape"
        if not torch.equal(tensor, second[name]):
            return f"{name} differs by up to {float((tensor.double() - second[name].double()).abs().max()):.3g}"
    return ""


def _difference(kept: Any, found: Any, place: str) -> str:
    """Returns the first value that differs between two JSON values, or nothing."""
    if isinstance(found, Mapping) and isinstance(kept, Mapping):
        pairs: Sequence[Any] = [(key, kept.get(key), found.get(key)) for key in dict.fromkeys([*found, *kept])]
        return next(filter(None, (_difference(old, new, f"{place}.{key}") for key, old, new in pairs)), "")
    if isinstance(found, list | tuple) and isinstance(kept, list) and len(found) == len(kept):
        lines = (_difference(old, new, f"{place}[{index}]") for index, (old, new) in enumerate(zip(kept, found, strict=True)))
        return next(filter(None, lines), "")
    is_number = isinstance(kept, int | float) and isinstance(found, int | float)
    if kept == found or (is_number and math.isclose(kept, found, rel_tol=1e-9, abs_tol=1e-12)):
        return ""
    return f"{place}={kept}, {found}"


def _numbers(found: Any) -> int:
    """Returns how many numbers a JSON value holds."""
    if isinstance(found, Mapping):
        return sum(map(_numbers, found.values()))
    return sum(map(_numbers, found)) if isinstance(found, list | tuple) else int(isinstance(found, int | float))


def _is_newer(a: Path, b: Path) -> bool:
    return a.stat().st_mtime > b.stat().st_mtime
