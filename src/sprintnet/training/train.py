"""One run, start to end: data, network, fit, evaluation."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from filelock import FileLock, Timeout

from sprintnet import runtime
from sprintnet.config import Config, differences, load_config
from sprintnet.data.dataset import digest
from sprintnet.data.loader import Loader
from sprintnet.data.splits import Splits, write_splits
from sprintnet.errors import SettingsError, SprintNetError
from sprintnet.evaluation.trained_model import EVALUATION_BATCH, TrainedModel
from sprintnet.kernels import build
from sprintnet.models.factory import weights_to_bytes
from sprintnet.models.transfer import pretrained_digest
from sprintnet.progress import track
from sprintnet.reporting.text.training_table import RULE, table_row, training_header
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, evaluation_split, log_test_access, read_arrays, read_json
from sprintnet.runs.io import write_arrays, write_atomic, write_json, write_rows
from sprintnet.training.artifacts import write_artifacts
from sprintnet.training.loop import Plan, fit
from sprintnet.training.lr_search import find_peak_lr
from sprintnet.training.setup import build_step, load_splits, resolve_auto, whiten

Watch = Callable[[Mapping[str, Any]], object]
"""What happens to each row of results.csv besides."""


def train(
    config: Config, run: RunFolder, *, resume: bool = False, watch: Watch = lambda row: None, splits: Splits | None = None
) -> dict[str, Any]:
    """Trains, evaluates and returns the metrics; everything is left in the run folder. Each row of results.csv goes to `watch`.

    `splits` take the place of the data that the settings name.
    With `resume` an interrupted run of the same settings and data goes on from its last step, a finished one returns its
    metrics. Raises SettingsError, DataError, DivergedError or Interrupted.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.lock, blocking=False):
            if run.config.exists():
                _refuse_others(config, run, resume)
            else:
                run.splits.unlink(missing_ok=True)  # of a start that came to nothing, perhaps with other settings
                if resume:
                    run.log(f"{run.path}: nothing to resume, starting")
            if run.metrics.exists():
                run.log(f"{run.path}: finished already, nothing to resume")
                run.checkpoint.unlink(missing_ok=True)
                return read_json(run.metrics)
            return _train(config, run, watch, splits)
    except Timeout:
        raise SettingsError(f"{run.path}: another process is training here; wait for it, or choose another --name") from None
    except torch.OutOfMemoryError:
        raise SprintNetError(
            f"batch_size={config.batch_size}: too much for the device's memory; start another run with a smaller one"
        ) from None


def _train(config: Config, run: RunFolder, watch: Watch, splits: Splits | None) -> dict[str, Any]:
    started = time.monotonic()
    is_resumed = run.checkpoint.exists()
    peak = find_peak_lr(config, run, splits)
    finder_seconds = time.monotonic() - started
    context = runtime.start(config.device, config.precision, config.threads, config.seed)
    if splits:
        write_splits(run.splits, splits)
    else:
        splits = load_splits(config, run.log, run.splits)
    images = splits["train"]
    given, (fitted, reasons) = config, resolve_auto(config, images.classes, images.image_shape, len(images))
    for reason in reasons:
        run.log(f"auto: {reason}")
    config = fitted.with_peak(peak) if peak else fitted
    step, loader = build_step(config, images, context, run.log)
    record = environment_record(
        **context.describe(), data_sha256=digest(*splits.values()), init_sha256=pretrained_digest(config.init_from)
    )
    if is_resumed:
        before = read_json(run.environment)
        _refuse_other_surroundings(before, record, run)
        if before["commit"] != record["commit"]:
            record["commit"] = f"{before['commit']} + {record['commit']}"
    write_json(run.environment, record)
    write_atomic(run.config, given.to_toml())
    if reasons:
        write_atomic(run.resolved, "".join(f"# {reason}\n" for reason in reasons) + fitted.to_toml())

    whitening_seconds = whiten(step.model, loader, config)
    plan = Plan(config.epochs, config.peak_lr, config.schedule, config.augment, config.seed, config.checkpoint_seconds)
    val_loader = Loader(splits["val" if "val" in splits else "test"], loader.normalisation, EVALUATION_BATCH, context.device)

    sizes = {name: len(part) for name, part in splits.items()}
    run.log(training_header(str(run.path), config, context.describe(), sizes, multi_label=images.multi_label))
    if context.device.type == "cpu" and context.precision == "bf16" and (reason := build.unavailable_reason()):
        run.log(f"without kernels in C, which are faster: {reason}")
    rows = []
    for row in fit(plan, step, loader, val_loader, run, track):
        rows.append(row)
        write_rows(run.results, rows)
        run.log(table_row(row))
        watch(row)
    run.log(RULE)

    # the last epoch's weights are the result: test data has chosen nothing
    mirrors = config.augment.flip > 0
    trained = TrainedModel(
        step.model,
        images.classes,
        loader.normalisation,
        context,
        None,
        images.image_shape,
        step.task,
        config.data.resize,
        mirrors,
    )
    evaluated = {name: part for name, part in splits.items() if name != "train"}
    figures, temperature = _evaluate(trained, evaluated, config.tta, run)
    facts = {
        "model": asdict(config.model),
        "classes": images.classes,
        "image_shape": images.image_shape,
        "resize": config.data.resize,
        "mean": loader.normalisation.mean,
        "std": loader.normalisation.std,
        "temperature": temperature,
        "mirrors": mirrors,
        "task": step.task.name,
        "commit": record["commit"],
    }
    write_atomic(run.weights, weights_to_bytes(step.model, facts))
    logits = read_arrays(run.predictions)[f"{evaluation_split(splits)}_logits"]
    write_artifacts(config, run, splits, step.model, loader.normalisation, logits)
    seconds = whitening_seconds + sum(row["train_seconds"] for row in rows)
    metrics = {
        **figures,
        "temperature": temperature,
        "peak_lr": config.peak_lr,
        "lr_finder_seconds": finder_seconds if config.lr_find else None,
        "epochs": len(rows),
        "parameters": sum(parameter.numel() for parameter in step.model.parameters()),
        "skipped_steps": sum(row["skipped_steps"] for row in rows),
        "train_seconds": seconds,
        "images_per_second": len(rows) * len(images) / seconds,
        "command_seconds": None if is_resumed else time.monotonic() - started,
        "peak_gib": context.peak_gib(),
    }
    write_json(run.metrics, metrics)
    run.checkpoint.unlink(missing_ok=True)
    return metrics


def _evaluate(trained: TrainedModel, splits: Splits, tta: float, run: RunFolder) -> tuple[dict[str, Any], float | None]:
    """Returns the figures of each split, and the temperature fitted on the held-out part (None without one).

    Logits and labels go to predictions.npz, a row an image to predictions.csv.
    """
    task = trained.task
    assessed = {"val": trained.evaluate_with_tta(splits["val"], tta)} if "val" in splits else {}
    if "val" in splits:
        held_out, figures = assessed["val"]
        temperature = task.fit_temperature(held_out["logits"], held_out["labels"])
        figures["calibration_at_temperature"] = task.calibration(held_out["logits"], held_out["labels"], temperature)
        trained = replace(trained, temperature=temperature)
    if "test" in splits:
        assessed["test"] = trained.evaluate_with_tta(splits["test"], tta)
        log_test_access(run, "train", assessed["test"][1])
    arrays = {f"{name}_{key}": values for name, (found, _) in assessed.items() for key, values in found.items()}
    write_arrays(run.predictions, **arrays)
    rows = [
        {"split": name, **row}
        for name, (found, _) in assessed.items()
        for row in task.prediction_rows(found["logits"], found["labels"], trained.classes, splits[name].files)
    ]
    write_rows(run.predictions_csv, rows)
    return {name: figures for name, (_, figures) in assessed.items()}, trained.temperature


def _refuse_others(config: Config, run: RunFolder, resume: bool) -> None:
    """Raises SettingsError where the folder holds a run that is not to be resumed, or one of other settings."""
    if not resume:
        raise SettingsError(f"{run.path}: holds a run already; choose another folder, or resume it")
    if changed := differences(load_config(run.config), config):
        raise SettingsError(
            f"--resume: the settings of {run.path} were others:\n  " + "\n  ".join(changed) + "\n"
            "resume with the settings of that run, or start another run without --resume"
        )


def _refuse_other_surroundings(old: Mapping[str, Any], new: Mapping[str, Any], run: RunFolder) -> None:
    """Raises SettingsError where data or precision are not those of the run's first part; logs what may change last bits."""
    for key, remedy in (
        ("data_sha256", "restore the data"),
        ("init_sha256", "restore the run that init names"),
        ("precision", f"add precision={old['precision']}"),
    ):
        if old.get(key) != new[key]:
            raise SettingsError(f"--resume: {run.path} began with {key} {old.get(key)}, now it is {new[key]}; {remedy}")
    moved = [
        key for key in ("commit", "versions", "device", "gpu", "cpu", "threads", "kernels") if old.get(key) != new.get(key)
    ]
    if moved:
        run.log(f"resuming by other code or on another machine ({', '.join(moved)}): the result may differ in its last bits")
