"""The training loop: `fit` yields a row an epoch and keeps checkpoints."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sprintnet.config import Config
from sprintnet.data.augment import resize
from sprintnet.data.loader import Batch, Loader
from sprintnet.errors import DivergedError, SettingsError
from sprintnet.evaluation.predict import predict
from sprintnet.progress import rough_time
from sprintnet.runs.folder import RunFolder
from sprintnet.training.adaptive_threads import AdaptiveThreads
from sprintnet.training.checkpoint import State, load_checkpoint, save_checkpoint
from sprintnet.training.forecast import Forecast
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.schedule import Schedule
from sprintnet.training.signals import Signals
from sprintnet.training.step import Step, Totals

CROWDED = "other processes keep cores busy"  # in log.txt, of a run that changed its number of threads
SHORT = 30.0  # seconds that are not worth a line between the rows of a table
Row = dict[str, Any]
Track = Callable[[Iterable[Batch], int, str, int, int], Iterable[Batch]]
"""Passes batches on and shows progress: (batches, total, label, number already done, images of a batch)."""


@dataclass
class Progress:
    """The next batch to train on, the seconds of this epoch so far, the rows of finished epochs."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


def fit(config: Config, step: Step, train: Loader, val: Loader | None, run: RunFolder, track: Track) -> Iterator[Row]:
    """Trains `step.model` and yields a row after each epoch, the rows of an interrupted run first.

    A checkpoint in the run folder is continued from its exact batch; a row is in the checkpoint before it is yielded.
    A row: epoch, lr (at its start), train_loss and val_loss (both with label smoothing; class weights in train_loss only),
    train_accuracy and val_accuracy (0..1), train_seconds, val_seconds, skipped_steps. Raises DivergedError when the loss is no
    longer finite, and Interrupted on SIGINT or SIGTERM once the state is saved.

    Of several ranks only the first, which has `val`, evaluates, writes and yields; the others end when it ends.
    """
    schedule, ranks, sizes = Schedule(config.schedule, config.epochs), step.runtime.ranks, train.batch_sizes
    progress = _restore(step, run) if ranks.share(run.checkpoint.exists()) else Progress()
    if ranks.is_first:
        yield from progress.rows
        if progress.batch or 0 < progress.epoch < config.epochs:
            run.log(f"resumed in epoch {progress.epoch + 1}, after {progress.batch} of its {len(train)} steps")

    def save() -> None:
        run.require_claim()
        _read_sound(run, step, progress)
        save_checkpoint(run.checkpoint, _state(step, progress))

    def save_while_evaluating() -> None:
        with step.evaluated():  # exchanged again: the weights that are trained
            save()

    was_crowded, is_resumed = False, bool(progress.epoch or progress.batch)
    first_epoch, has_forecast = progress.epoch, val and (is_resumed or not config.head.fit)  # that of a new head.fit was said
    forecast = Forecast(schedule, config.epochs, len(train), len(val.labels) / train.batch_size if val else 0)
    step.model.train()
    with Signals(run.path) as signals, AdaptiveThreads(step.runtime) as threads:
        while progress.epoch < config.epochs:
            label = _label(progress, config.epochs)
            saved = time.monotonic()
            started = saved - progress.seconds
            batches = train.epoch(config.seed, progress.epoch, config.augment, progress.batch)
            for images, labels in track(batches, len(train), label, progress.batch, train.batch_size):
                position = schedule.position(progress.epoch, progress.batch, len(train))
                set_learning_rates(step.optimizer, schedule.lr_factor(position), schedule.whitening_factor(position))
                step(resize(images, schedule.resolution(position)), labels, sizes[progress.batch])
                if threads.adapt() and not was_crowded:
                    was_crowded = True
                    run.log(f"{CROWDED}: training with fewer threads meanwhile (rounding may differ)")
                progress.batch += 1
                progress.seconds = time.monotonic() - started
                seconds = forecast.seconds(progress.epoch, progress.batch) if has_forecast else 0.0
                if seconds > (SHORT if progress.epoch > first_epoch else 0):
                    run.log(f"about {rough_time(seconds)} to the end of epoch {config.epochs}")
                if ranks.is_first and (signals.received or time.monotonic() - saved >= config.checkpoint_seconds):
                    save()
                    signals.raise_if_received()
                    saved = time.monotonic()
                    started = saved - progress.seconds  # the clock excludes writing the checkpoint
            totals = _read_sound(run, step, progress)
            if not totals.images and progress.epoch + 1 == config.epochs:
                raise _diverged(run, progress, "every step of the last epoch overflowed in fp16 (scaler.init_scale)")
            if val is None:
                progress = Progress(epoch=progress.epoch + 1)
                step.reset()
                continue
            trained = time.monotonic()
            progress.seconds = trained - started
            tracked = track(val.sequential(), len(val), f"{_moment(progress, config.epochs)}, evaluating", 0, val.batch_size)
            val_batches = signals.guard(tracked, save_while_evaluating)
            with step.evaluated():
                logits, truths = predict(step.model, val_batches, step.runtime)
            if not np.isfinite(logits).all():
                raise _diverged(run, progress, "predictions are no longer finite")
            row = {
                "epoch": progress.epoch + 1,
                "lr": config.peak_lr * schedule.lr_factor(progress.epoch),
                "train_loss": totals.loss / totals.images if totals.images else math.nan,
                "train_accuracy": totals.correct / totals.images if totals.images else math.nan,
                "val_loss": step.task.cross_entropy(logits, truths, step.label_smoothing),
                "val_accuracy": step.task.accuracy(logits, truths),
                "train_seconds": progress.seconds,
                "val_seconds": time.monotonic() - trained,
                "skipped_steps": totals.skipped,
            }
            progress = Progress(epoch=progress.epoch + 1, rows=[*progress.rows, row])
            step.reset()
            run.require_claim()
            save_checkpoint(run.checkpoint, _state(step, progress))
            yield row
            signals.raise_if_received()


def _moment(progress: Progress, epochs: int) -> str:
    return f"epoch {progress.epoch + 1}/{epochs}"


def _label(progress: Progress, epochs: int) -> str:
    """Returns the label of the progress bar: the epoch, and from the second on the last accuracy and the time that is left."""
    text = _moment(progress, epochs)
    if not progress.rows:
        return text
    seconds = statistics.fmean(row["train_seconds"] + row["val_seconds"] for row in progress.rows) * (epochs - progress.epoch)
    return f"{text}, val {progress.rows[-1]['val_accuracy']:.1%}, {rough_time(seconds)} left"


def _read_sound(run: RunFolder, step: Step, progress: Progress) -> Totals:
    """Returns the totals of the epoch so far; raises DivergedError where loss, weights or loss scale are not finite."""
    totals = step.read()
    if not math.isfinite(totals.loss):
        raise _diverged(run, progress, f"the loss is {totals.loss}")
    if not totals.is_sound:
        raise _diverged(run, progress, "weights are no longer finite, or every step overflows")
    return totals


def _diverged(run: RunFolder, progress: Progress, cause: str) -> DivergedError:
    return DivergedError(
        f"{run.path}: training diverged in epoch {progress.epoch + 1}, by step {progress.batch}: {cause}; earlier checkpoints "
        "are kept; start again with a lower optim.max_lr, or with precision=fp32"
    )


def _state(step: Step, progress: Progress) -> State:
    return {"progress": vars(progress), **step.state_dict()}


def _restore(step: Step, run: RunFolder) -> Progress:
    ranks = step.runtime.ranks
    device = step.runtime.device if ranks.world == 1 else torch.device("cpu")  # from where each rank copies it
    state = ranks.share(load_checkpoint(run.checkpoint, device) if ranks.is_first else None)
    try:
        step.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError):
        rule = "was saved by another version; go on with that one, or start again under another --name"
        raise SettingsError(f"{run.checkpoint}: {rule}") from None
    return Progress(**state["progress"])
