"""Whether a run is what its folder says: its files, settings, metrics, report, predictions and export."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sprintnet.config import LEARNING_RATES, Config, load_config
from sprintnet.data.load import load_splits, require_same_splits
from sprintnet.data.splits import Splits
from sprintnet.datasets import IN_MEMORY
from sprintnet.deploy.export.parity import broken_rules, parity, predict_all
from sprintnet.errors import DataError, SettingsError, VerificationError
from sprintnet.evaluation.task import Evaluation
from sprintnet.evaluation.trained_model import TrainedModel, load_run
from sprintnet.models.factory import load_model
from sprintnet.replay import other_conditions, repeat
from sprintnet.reporting.figures.run_figures import saved_figures
from sprintnet.reporting.html.report import unchanged_page
from sprintnet.runs import checksums
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, dotted, evaluation_split, read_arrays, read_json, read_rows, require_consistent
from sprintnet.runtime import select_runtime

SAME, CLOSE, UNCHECKED = "same", "close", "not checked"
MAX_ACCURACY_DIFFERENCE, MAX_IMAGES = 0.001, 2
"""Between predictions of the same weights on different machines: a share of the images, or so many images if that is more."""
ROUNDING = 1e-5
"""Relative difference of numbers computed from the same logits, on different machines and printed with six decimals."""


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
    checks: list[Callable[[], Iterator[Check]]] = [lambda: _settings(run), lambda: _metrics(run), lambda: _report(run)]
    config, splits = load_config(run.config), None
    try:
        if config.data.name == IN_MEMORY:
            raise DataError("the images were in memory only")
        splits = load_splits(config.data, lambda line: None, run if run.splits.exists() else None)
    except DataError as error:
        missing = str(error)
    if splits:
        parts = splits
        checks += [lambda: _data(run, parts), lambda: _predictions(run, parts), lambda: _export(run, parts)]
        checks += [lambda: _training(run, config, parts)] * replay
    for check in checks:
        try:
            with require_consistent(run):
                yield from check()
        except SettingsError as error:  # a damaged file
            raise VerificationError(str(error)) from None
    if splits is None:
        for subject in ("data", "predictions", "export", *(["training"] * replay)):
            yield Check(subject, UNCHECKED, missing)


def _files(run: RunFolder) -> Check:
    kept = [file for file in (*run.final_files, run.metrics) if file.exists()]
    if not (run.path / checksums.FILE).exists():
        return Check("files", UNCHECKED, f"{checksums.FILE} is missing")
    file = run.path / checksums.FILE
    try:
        missing = checksums.names(run.path) - {file.name for file in kept}
        for file in kept:
            checksums.require_unchanged(file)
    except ValueError as error:
        raise VerificationError(f"{file}: {error}") from None
    if missing:
        raise VerificationError(f"{run.path / min(missing)}: is missing, but listed in {checksums.FILE}")
    return Check("files", SAME, f"{len(kept)} files match {checksums.FILE}")


def _settings(run: RunFolder) -> Iterator[Check]:
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
    yield Check("settings", SAME, f"{run.config.name}, {run.resolved.name} and {run.weights.name} agree")


def _metrics(run: RunFolder) -> Iterator[Check]:
    """Computes every metric again from the logits in predictions.npz."""
    kept, arrays = read_json(run.metrics), read_arrays(run.predictions)
    preprocessing = load_model(run.weights).preprocessing
    fitted = {"temperature": preprocessing.temperature, "undone_label_smoothing": preprocessing.label_smoothing}
    for key, value in fitted.items():
        if key in kept and kept[key] != value:
            raise VerificationError(f"{run.metrics}: {key}={kept[key]}, another than in {run.weights.name}")
    count, names = 0, [name for name in ("val", "test", "cross_validation") if f"{name}_logits" in arrays]
    rows = read_rows(run.predictions_csv)
    for name in names:
        own = {key.removeprefix(f"{name}_"): values for key, values in arrays.items() if key.startswith(f"{name}_")}
        found = Evaluation(own, kept[name].get("tta", {}).get("seconds"), is_held_out=name == "val")
        count += _compare(run.metrics, kept[name], found.metrics(preprocessing), name)
        written = [row for row in rows if row["split"] == name]
        expected = [{key: str(cell) for key, cell in row.items()} for row in found.rows(preprocessing)]
        kept_rows = [{key: row[key] for key in new} for row, new in zip(written, expected, strict=True)]
        _compare(run.predictions_csv, kept_rows, expected, name)
    yield Check("metrics", SAME, f"{count:,} values of {' and '.join(names)} follow from {run.predictions.name}")


def _compare(file: Path, kept: Any, found: Any, place: str) -> int:
    """Raises VerificationError at the first of two JSON values' leaves that differs; returns how many there are."""
    before, after = dict(_leaves(kept, place)), dict(_leaves(found, place))
    for key in dict.fromkeys([*after, *before]):
        old, new = before.get(key), after.get(key)
        if old != new and not _are_close(old, new):
            raise VerificationError(f"{file}: {key}={old}, but {new} by the logits in predictions.npz")
    return len(after)


def _are_close(old: Any, new: Any) -> bool:
    """Returns whether two numbers, or texts of numbers, are equal up to rounding."""
    try:
        return math.isclose(float(old), float(new), rel_tol=ROUNDING, abs_tol=ROUNDING)
    except (TypeError, ValueError):
        return False


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{place}[{index}]")
    else:
        yield place, value


def _report(run: RunFolder) -> Iterator[Check]:
    again = f"write it again: sprintnet report {run.path}"
    if not run.report.exists():
        yield Check("report", UNCHECKED, f"there is none; {again}")
    elif lost := [file.name for file in saved_figures(run) if not file.exists()]:
        yield Check("report", UNCHECKED, f"its figure {lost[0]} is missing; {again}")
    elif unchanged_page(run):
        yield Check("report", SAME, f"{run.report.name} shows what the files hold")
    elif newer := [file.name for file in (run.explanations, run.label_errors) if _is_newer(file, run.report)]:
        yield Check("report", UNCHECKED, f"it is older than {newer[0]}; {again}")
    elif read_json(run.environment)["code_sha256"] != environment_record()["code_sha256"]:
        yield Check("report", UNCHECKED, f"other code wrote it; {again}")
    else:
        which = "it was changed, or one of them"
        raise VerificationError(f"{run.report}: is not what the run's files give: {which}; if they are right, {again}")


def _is_newer(a: Path, b: Path) -> bool:
    return a.exists() and a.stat().st_mtime > b.stat().st_mtime


def _data(run: RunFolder, splits: Splits) -> Iterator[Check]:
    require_same_splits(splits, run, "data")
    yield Check("data", SAME, f"SHA-256 {read_json(run.environment)['data_sha256'][:12]}...")


def _predictions(run: RunFolder, splits: Splits) -> Iterator[Check]:
    """Compares the kept logits with those that the weights give on this machine."""
    trained, split = _model(run), evaluation_split(splits)
    images, expected = splits[split], read_arrays(run.predictions)[f"{split}_logits"]
    logits = trained.predict(images)[0]
    if np.array_equal(logits, expected):
        yield Check("predictions", SAME, f"{run.weights.name} gives the logits of {len(images):,} {split} images, bit for bit")
        return
    before, after = (trained.task.accuracy(values, images.labels) for values in (expected, logits))
    detail = f"{split} accuracy {after:.2%} from {run.weights.name}, {before:.2%} from {run.predictions.name}"
    other = other_conditions(run, environment_record(**trained.runtime.describe()))
    if not other or not _is_close(before, after, len(images)):
        raise VerificationError(f"{run.path}: {detail}")
    yield Check("predictions", CLOSE, f"{detail}; other {other}")


def _model(run: RunFolder) -> TrainedModel:
    """Returns the run's model, with the precision and the threads of its training where its device is here."""
    record, config = read_json(run.environment), load_config(run.config)
    try:
        here = select_runtime(config.device, "auto", 0).device.type
    except SettingsError:
        here = "cpu"
    like_run = [f"precision={record['precision']}", f"threads={record['threads']}"] if here == record["device"] else []
    return load_run(run.path, [f"device={here}", *like_run])[0]


def _is_close(before: float, after: float, images: int) -> bool:
    return abs(after - before) <= max(MAX_ACCURACY_DIFFERENCE, MAX_IMAGES / images)


def _export(run: RunFolder, splits: Splits) -> Iterator[Check]:
    """Compares each exported file with the network, as the export did, and its metadata with parity.json."""
    from sprintnet.deploy.predictor import Predictor  # needs ONNX Runtime

    if not run.export.is_dir():
        yield Check("export", UNCHECKED, f"there is none: sprintnet export {run.path}")
        return
    again = f"export again: sprintnet export {run.path}"
    try:
        table = read_json(run.export / "parity.json")["files"]
        copy = (run.export / "model.safetensors").read_bytes()
        predictors = {name: Predictor(run.export / name) for name in table}
    except OSError as error:
        raise VerificationError(f"{error}; {again}") from None
    except SettingsError as error:  # which has its own remedy
        raise VerificationError(str(error)) from None
    if copy != run.weights.read_bytes():
        raise VerificationError(f"{run.export / 'model.safetensors'}: is another than {run.weights}; {again}")
    trained, images = load_run(run.path, ["device=cpu", "precision=fp32", "threads=0"])[0], splits[evaluation_split(splits)]
    tta = next(iter(predictors.values())).preprocessing.tta
    trained = replace(trained, preprocessing=trained.preprocessing.with_tta(tta))
    expected = trained.predict_outputs(images.images, "PyTorch")
    for name, predictor in predictors.items():
        own = predictor.metadata["parity"]
        ours = replace(trained.preprocessing, thresholds=predictor.preprocessing.thresholds)  # which only exported files have
        if predictor.preprocessing != ours or any(own[key] != table[name][key] for key in own):
            raise VerificationError(f"{predictor.path}: its metadata are not those of {run.weights} and parity.json; {again}")
        row = parity(trained, predict_all(predictor, images.images, name), expected, images.labels)
        if broken := broken_rules(row, is_exact=name == "model.onnx"):
            raise VerificationError(f"{predictor.path}: does not match the trained model: {broken}; {again}")
        detail = f"accuracy {row['accuracy']:.2%}, predictions as the network's {row['agreement']:.2%}"
        if row["accuracy"] == table[name]["accuracy"]:
            yield Check(name, SAME, detail)
        elif _is_close(row["accuracy"], table[name]["accuracy"], len(images)):
            yield Check(name, CLOSE, f"{detail}; accuracy {table[name]['accuracy']:.2%} where it was exported")
        else:
            raise VerificationError(f"{predictor.path}: {detail}; parity.json says {table[name]['accuracy']:.2%}; {again}")


def _training(run: RunFolder, config: Config, splits: Splits) -> Iterator[Check]:
    if run.members.exists():
        names = ", ".join(one["run"] for one in read_json(run.members)["runs"])
        yield Check("training", UNCHECKED, f"an ensemble is not trained; verify its runs: {names}")
        return
    is_equal, detail = repeat(run, config, splits)
    yield Check("training", UNCHECKED if is_equal is None else SAME if is_equal else CLOSE, detail)
