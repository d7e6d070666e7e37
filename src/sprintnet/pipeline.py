"""One run, start to end: data, network, fit, evaluation; and a finished run, opened again."""

import io
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from sprintnet import runtime
from sprintnet.config import Config, differences, load_config
from sprintnet.data import sources
from sprintnet.data.dataset import ImageDataset, channel_statistics, digest, hold_out
from sprintnet.data.loader import Batch, Loader, Normalisation
from sprintnet.errors import SettingsError, SprintNetError
from sprintnet.evaluation.calibration import calibration, coverage_table, fit_temperature
from sprintnet.evaluation.metrics import Floats, Ints, cross_entropy, prediction_rows, summarise, top_k_accuracy
from sprintnet.evaluation.predict import ask_again, predict
from sprintnet.models.build import build_model, check_resolution, load_model, weights_to_bytes
from sprintnet.models.sprintnet import SprintNet
from sprintnet.reporting.progress import track
from sprintnet.reporting.table import RULE, table_row, training_header
from sprintnet.run import RunFolder, environment, open_run, read_json, write_atomic, write_json, write_rows
from sprintnet.runtime import Runtime
from sprintnet.training.loop import Plan, fit
from sprintnet.training.lr_finder import sweep
from sprintnet.training.optim import build_optimizer
from sprintnet.training.step import Step

EVALUATION_BATCH = 500
WHITENING_IMAGES = 5000

Splits = dict[str, ImageDataset]
"""The data of a run: train and test, and val where a part of the training set is held out."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on its device, with what is needed to feed it."""

    model: nn.Module
    classes: tuple[str, ...]
    normalisation: Normalisation
    context: Runtime

    def evaluate(self, dataset: ImageDataset) -> tuple[Floats, Ints, dict[str, Any]]:
        """Returns logits (N, K), labels (N,) and the figures of a data set; raises SettingsError if its classes are others."""
        if dataset.classes != self.classes:
            raise SettingsError(
                f"the data has the classes {', '.join(dataset.classes)}; the network: {', '.join(self.classes)}"
            )
        logits, labels = predict(self.model, self._batches(dataset, "evaluating"), self.context)
        return logits, labels, summarise(logits, labels, dataset.classes)

    def ask_again(self, dataset: ImageDataset, logits: Floats, confidence: float) -> Floats:
        """Returns logits (N, K): the mean over six views where the probability is `confidence` or less, `logits` elsewhere."""
        return ask_again(self.model, self._batches(dataset, "six views"), self.context, logits, confidence)

    def _batches(self, dataset: ImageDataset, label: str) -> Iterable[Batch]:
        loader = Loader(dataset, self.normalisation, EVALUATION_BATCH, self.context.device)
        return track(loader.in_order(), len(loader), label)


def train(config: Config, run: RunFolder, *, resume: bool = False) -> dict[str, Any]:
    """Trains, evaluates and returns the metrics; everything is left in the run folder.

    With `resume` an interrupted run of the same settings and data goes on from its last step, a finished one returns its
    metrics. Raises SettingsError, DataError, DivergedError or Interrupted.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.lock, blocking=False):
            if run.config.exists():
                _refuse_others(config, run, resume)
            elif resume:
                run.log(f"{run.path}: nothing to resume, starting")
            if run.metrics.exists():
                run.log(f"{run.path}: finished already, nothing to resume")
                run.checkpoint.unlink(missing_ok=True)
                return read_json(run.metrics)
            return _train(config, run)
    except Timeout:
        raise SettingsError(f"{run.path}: another process is training here; wait for it, or choose another --name") from None
    except torch.OutOfMemoryError:
        raise SprintNetError(
            f"batch_size={config.batch_size}: too much for the device's memory; start another run with a smaller one"
        ) from None


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> tuple[TrainedModel, Config]:
    """Returns the trained network of a run folder and the run's settings, with overrides such as `device=cpu` applied.

    Raises SettingsError where files are missing or damaged.
    """
    run = open_run(path)
    config = load_config(run.config, overrides)
    context = runtime.start(config.device, config.precision, config.threads, config.seed)
    model, facts = load_model(run.weights)
    normalisation = Normalisation(tuple(facts["mean"]), tuple(facts["std"]))
    return TrainedModel(_on_device(model, context), tuple(facts["classes"]), normalisation, context), config


def load_splits(config: Config, log: Callable[[str], None] = print) -> Splits:
    """Returns the data of these settings; raises DataError where it cannot be had, SettingsError for an empty hold-out."""
    train, test = sources.load(config.data.name, config.data.source, log)
    if not config.data.val:
        return {"train": train, "test": test}
    kept, held_out = hold_out(train, config.data.val, config.seed)
    if not len(held_out):
        raise SettingsError(f"data.val={config.data.val:g}: less than one image a class; hold out a larger share, or none (0)")
    return {"train": kept, "val": held_out, "test": test}


def prepare(config: Config, images: ImageDataset, context: Runtime) -> tuple[Step, Loader]:
    """Returns the training step of a fresh network, not whitened yet, and the loader of its training images.

    Raises SettingsError for settings that do not fit the images.
    """
    if len(images) % config.batch_size == 1:
        raise SettingsError(
            f"batch_size={config.batch_size}: leaves one of the {len(images):,} training images alone in the last batch, "
            f"too few for batch norm; use {config.batch_size + 1}"
        )
    if config.augment.cutout > min(images.image_shape[:2]):
        raise SettingsError(f"augment.cutout={config.augment.cutout}: larger than the images; use at most half their side")
    check_resolution(config.model, images.image_shape, min(config.schedule.resolution))
    model = _on_device(build_model(config.model, len(images.classes), images.image_shape), context)
    optimizer = build_optimizer(model, config.optim.scaled_to(config.batch_size), config.muon)
    loader = Loader(images, Normalisation(*channel_statistics(images.images)), config.batch_size, context.device)
    return Step(model, optimizer, context, config.label_smoothing, config.l1), loader


def find_learning_rates(
    config: Config, folder: RunFolder, seeds: int = 1, lowest: float = 1e-7, highest: float = 10.0, rates: int = 100
) -> list[dict[str, Any]]:
    """Returns, for each seed, the loss over rising peak rates of the fresh network, a batch a rate, and the rates suggested.

    The rate is the one that the training table shows; with several optimizers all keep their proportion to it. The curves are
    kept in the folder's lr_finder.json. Raises SettingsError where a curve suggests nothing, DataError.
    """
    found = []
    for seed in range(config.seed, config.seed + seeds):
        context = runtime.start(config.device, config.precision, config.threads, seed)
        step, loader = prepare(config, load_splits(config)["train"], context)
        _whiten(step.model, loader)
        batches = track(itertools.islice(loader.endless(seed, config.augment), rates), rates, f"seed {seed}")
        curve = sweep(step, batches, config.peak_lr, lowest, highest, rates)
        found.append({"seed": seed, **asdict(curve), "suggestions": curve.suggestions()})
    folder.path.mkdir(parents=True, exist_ok=True)
    write_atomic(folder.config, config.to_toml())
    write_json(folder.lr_finder, {"sweeps": found})
    return found


def _train(config: Config, run: RunFolder) -> dict[str, Any]:
    started = time.monotonic()
    is_resumed = run.checkpoint.exists()
    context = runtime.start(config.device, config.precision, config.threads, config.seed)
    splits = load_splits(config, run.log)
    images = splits["train"]
    step, loader = prepare(config, images, context)
    record = environment(**context.describe(), data_sha256=digest(*splits.values()))
    if is_resumed:
        _refuse_other_surroundings(read_json(run.environment), record, run)
    write_json(run.environment, record)
    write_atomic(run.config, config.to_toml())

    whitening_seconds = _whiten(step.model, loader)
    plan = Plan(config.epochs, config.peak_lr, config.schedule, config.augment, config.seed, config.checkpoint_seconds)
    val_loader = Loader(splits.get("val", splits["test"]), loader.normalisation, EVALUATION_BATCH, context.device)

    sizes = {name: len(part) for name, part in splits.items()}
    run.log(training_header(str(run.path), config, context.describe(), sizes))
    rows = []
    for row in fit(plan, step, loader, val_loader, run, track):
        rows.append(row)
        write_rows(run.results, rows)
        run.log(table_row(row))
    run.log(RULE)

    # the last epoch's weights are the result: test data has chosen nothing
    trained = TrainedModel(step.model, images.classes, loader.normalisation, context)
    evaluated = {name: part for name, part in splits.items() if name != "train"}
    figures, temperature = _evaluate(trained, evaluated, config.tta, run)
    facts = {
        "model": asdict(config.model),
        "classes": images.classes,
        "image_shape": images.image_shape,
        "mean": loader.normalisation.mean,
        "std": loader.normalisation.std,
        "temperature": temperature,
        "commit": record["commit"],
    }
    write_atomic(run.weights, weights_to_bytes(step.model, facts))
    seconds = whitening_seconds + sum(row["train_seconds"] for row in rows)
    metrics = {
        **figures,
        "temperature": temperature,
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


def _whiten(model: nn.Module, loader: Loader) -> float:
    """Fits a whitening layer, where the network has one, to the first training images; returns the seconds that it took."""
    started = time.monotonic()
    if isinstance(model, SprintNet):
        model.whiten_from(loader.first(WHITENING_IMAGES))
    return time.monotonic() - started


def _evaluate(trained: TrainedModel, splits: Splits, tta: float, run: RunFolder) -> tuple[dict[str, Any], float | None]:
    """Returns the figures of each split, and the temperature fitted on the held-out part (None without one).

    Logits and labels go to predictions.npz, a row an image to predictions.csv.
    """
    arrays: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for name, dataset in splits.items():
        started = time.monotonic()
        logits, labels, figures[name] = trained.evaluate(dataset)
        arrays |= {f"{name}_logits": logits, f"{name}_labels": labels}
        if tta:
            again = trained.ask_again(dataset, logits, tta)
            arrays[f"{name}_tta_logits"] = again
            figures[name]["tta"] = {
                "accuracy": top_k_accuracy(again, labels, 1),
                "cross_entropy": cross_entropy(again, labels),
                "asked_again": float((again != logits).any(axis=1).mean()),
                "seconds": time.monotonic() - started,  # from the first answers on, as the records count it
            }
    temperature = fit_temperature(arrays["val_logits"], arrays["val_labels"]) if "val" in splits else None
    rows = []
    for name in splits:
        logits, labels = arrays[f"{name}_logits"], arrays[f"{name}_labels"]
        figures[name]["calibration"] = calibration(logits, labels)
        if temperature is not None:
            figures[name]["calibration_at_temperature"] = calibration(logits, labels, temperature)
        figures[name]["coverage"] = coverage_table(logits, labels)
        rows += [{"split": name, **row} for row in prediction_rows(logits, labels, trained.classes)]
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    write_atomic(run.predictions, archive.getvalue())
    write_rows(run.prediction_table, rows)
    return figures, temperature


def _on_device(model: nn.Module, context: Runtime) -> nn.Module:
    return model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


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
    for key, remedy in (("data_sha256", "restore the data"), ("precision", f"add precision={old['precision']}")):
        if old[key] != new[key]:
            raise SettingsError(f"--resume: {run.path} began with {key} {old[key]}, now it is {new[key]}; {remedy}")
    moved = [key for key in ("versions", "device", "gpu", "cpu", "threads") if old[key] != new[key]]
    if moved:
        run.log(f"resuming on another machine or set-up ({', '.join(moved)}): the result may differ in its last bits")
