"""One run, start to end: data, network, fit, evaluation; and a finished run, opened again."""

import io
import time
from collections.abc import Callable
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
from sprintnet.data.loader import Loader, Normalisation
from sprintnet.errors import SettingsError
from sprintnet.evaluation.metrics import Floats, Ints, summarise
from sprintnet.evaluation.predict import predict
from sprintnet.models.build import build_model, load_weights, weights_to_bytes
from sprintnet.reporting.progress import track
from sprintnet.reporting.table import RULE, table_row, training_header
from sprintnet.run import RunFolder, environment, open_run, read_json, write_atomic, write_json, write_rows
from sprintnet.runtime import Runtime
from sprintnet.training.loop import Plan, fit
from sprintnet.training.optim import build_optimizer
from sprintnet.training.step import Step

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Splits:
    """The data of a run; `val` is None where nothing is held out."""

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset

    def named(self) -> dict[str, ImageDataset]:
        """Returns the splits that exist, by name."""
        return {name: part for name, part in vars(self).items() if part is not None}


@dataclass(frozen=True)
class TrainedModel:
    """A finished run, opened again: its network on the device with what is needed to feed it."""

    model: nn.Module
    normalisation: Normalisation
    splits: Splits
    context: Runtime

    def evaluate(self, split: str) -> tuple[Floats, Ints, dict[str, Any]]:
        """Returns logits (N, K), labels (N,) and the figures of a split: train, val or test."""
        dataset = self.splits.named()[split]
        loader = Loader(dataset, self.normalisation, EVALUATION_BATCH, self.context.device)
        batches = track(loader.in_order(), len(loader), f"evaluating {split}")
        logits, labels = predict(self.model, batches, self.context)
        return logits, labels, summarise(logits, labels, dataset.classes)


def train(config: Config, run: RunFolder, *, resume: bool = False) -> dict[str, Any]:
    """Trains, evaluates and returns the metrics; everything is left in the run folder.

    With `resume` an interrupted run of the same settings goes on from its last step, and a finished one returns its metrics.
    Raises SettingsError, DataError, DivergedError or Interrupted.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.lock, blocking=False):
            if resume:
                _refuse_changes(config, run)
                if run.metrics.exists():
                    run.log(f"{run.path}: finished already, nothing to resume")
                    return read_json(run.metrics)
            return _train(config, run)
    except Timeout:
        raise SettingsError(f"{run.path}: another process is training here; wait for it, or choose another --name") from None


def load_run(path: str | Path) -> TrainedModel:
    """Returns the trained network of a run folder with its data; raises SettingsError where files are missing or damaged."""
    run = open_run(path)
    config = load_config(run.config)
    context = runtime.start(config.device, config.precision, config.threads, config.seed)
    splits = load_splits(config, print)
    model = _build(config, splits, context)
    facts = load_weights(model, run.weights)
    return TrainedModel(model, Normalisation(tuple(facts["mean"]), tuple(facts["std"])), splits, context)


def load_splits(config: Config, log: Callable[[str], None]) -> Splits:
    """Returns the data of these settings; raises DataError where it cannot be had."""
    train, test = sources.load(config.data.name, config.data.source, log)
    if not config.data.val:
        return Splits(train, None, test)
    kept, held_out = hold_out(train, config.data.val, config.seed)
    return Splits(kept, held_out, test)


def _train(config: Config, run: RunFolder) -> dict[str, Any]:
    started = time.monotonic()
    is_resumed = run.checkpoint.exists()
    context = runtime.start(config.device, config.precision, config.threads, config.seed)
    splits = load_splits(config, run.log)
    facts = environment(**context.describe(), data_sha256=digest(*splits.named().values()))
    write_atomic(run.config, config.to_toml())
    write_json(run.environment, facts)

    normalisation = Normalisation(*channel_statistics(splits.train.images))
    model = _build(config, splits, context)
    step = Step(model, build_optimizer(model, config.optim), context, config.label_smoothing, config.l1)
    plan = Plan(config.epochs, config.optim.max_lr, config.schedule, config.augment, config.seed, config.checkpoint_seconds)
    loader = Loader(splits.train, normalisation, config.batch_size, context.device)
    val_loader = Loader(splits.val or splits.test, normalisation, EVALUATION_BATCH, context.device)

    run.log(training_header(config, context.describe(), {name: len(part) for name, part in splits.named().items()}))
    rows = []
    for row in fit(plan, step, loader, val_loader, run, track):
        rows.append(row)
        write_rows(run.results, rows)
        run.log(table_row(row))
    run.log(RULE)

    # the last epoch's weights are the result: test data has chosen nothing
    metadata = {
        "classes": splits.train.classes,
        "image_shape": splits.train.image_shape,
        "mean": normalisation.mean,
        "std": normalisation.std,
        "config": asdict(config),
        "commit": facts["commit"],
    }
    write_atomic(run.weights, weights_to_bytes(model, metadata))
    seconds = sum(row["train_seconds"] for row in rows)
    metrics = {
        **_evaluate(TrainedModel(model, normalisation, splits, context), run),
        "epochs": len(rows),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "skipped_steps": sum(row["skipped_steps"] for row in rows),
        "train_seconds": seconds,
        "images_per_second": len(rows) * len(splits.train) / seconds,
        "command_seconds": None if is_resumed else time.monotonic() - started,
    }
    write_json(run.metrics, metrics)
    run.checkpoint.unlink(missing_ok=True)
    return metrics


def _evaluate(trained: TrainedModel, run: RunFolder) -> dict[str, Any]:
    """Returns the figures of the test set, and of the held-out part if there is one; their logits go to predictions.npz."""
    arrays: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for split in [name for name in trained.splits.named() if name != "train"]:
        logits, labels, figures[split] = trained.evaluate(split)
        arrays |= {f"{split}_logits": logits, f"{split}_labels": labels}
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    write_atomic(run.predictions, archive.getvalue())
    return figures


def _build(config: Config, splits: Splits, context: Runtime) -> nn.Module:
    model = build_model(config.model, len(splits.train.classes), splits.train.image_shape)
    return model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _refuse_changes(config: Config, run: RunFolder) -> None:
    changed = differences(load_config(run.config), config) if run.config.exists() else []
    if changed:
        raise SettingsError(
            f"--resume: the settings of {run.path} were others:\n  " + "\n  ".join(changed) + "\n"
            "resume with the settings of that run, or start another run without --resume"
        )
