"""One run, start to end: data, network, training, evaluation; everything is left in the run folder."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from filelock import Timeout

from sprintnet.autoconfig import DatasetFacts, resolve
from sprintnet.config import Config, parse_config, resumed
from sprintnet.data.dataset import ImageDataset, digest, images_at_a_time
from sprintnet.data.load import load_splits
from sprintnet.data.loader import Loader
from sprintnet.data.preprocessing import Preprocessing
from sprintnet.data.splits import Splits, write_splits
from sprintnet.errors import SettingsError, SprintNetError, did_you_mean, is_out_of_memory
from sprintnet.evaluation.trained_model import EVALUATION_BATCH, TrainedModel, load_run
from sprintnet.kernels import build
from sprintnet.models.transfer import Pretrained, load_pretrained
from sprintnet.progress import rough_time, track
from sprintnet.ranks import joined
from sprintnet.reporting.text.training_table import RULE, TABLE_HEAD, table_row, training_header
from sprintnet.runs import checksums
from sprintnet.runs.environment import environment_record, own_rank
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import remove_temporary, write_atomic, write_json, write_rows
from sprintnet.runs.lease import acquire
from sprintnet.runtime import PeakMemory, Runtime, select_runtime
from sprintnet.training.distill import teacher_sha256
from sprintnet.training.finish import close, evaluate_and_save
from sprintnet.training.head_fit import fit_head
from sprintnet.training.loop import Row, fit
from sprintnet.training.lr_search import RECOMMENDED, find_peak_lr
from sprintnet.training.setup import build_step, whiten
from sprintnet.training.warm_up import step_seconds, warm_up

RESUMED_ELSEWHERE = "resuming with different"  # in log.txt, of a run whose parts may differ in their last bits


@dataclass(frozen=True)
class TrainingResult:
    """A finished run: the trained model and the contents of metrics.json."""

    model: TrainedModel
    metrics: dict[str, Any]


def train(
    config: Config,
    run: RunFolder,
    *,
    resume: bool = False,
    on_epoch: Callable[[Row], object] = lambda row: None,
    splits: Splits | None = None,
    is_replay: bool = False,
) -> TrainingResult:
    """Trains and evaluates; returns the model and its metrics. Each row of results.csv is passed to `on_epoch`.

    A replay computes what other runs have left in the cache. `splits` replace the data that the settings name. With `resume`
    an interrupted run of the same settings and data continues from its last checkpoint; a finished one is returned. Raises
    SettingsError, DataError, DivergedError or Interrupted.
    """
    if own_rank():
        raise SettingsError("several processes train by the command only: torchrun --nproc-per-node N -m sprintnet train ...")
    run.path.mkdir(parents=True, exist_ok=True)
    run = replace(run, claim=run.claim or run.lease())
    assert run.claim is not None
    try:
        acquire(run.claim, run.log)
        with run.claim:
            remove_temporary(run.path)
            if not run.config.exists():
                _forget_start(run)  # which was killed, perhaps with other settings
                if resume:
                    others = [file.parent.name for file in run.path.parent.glob("*/config.toml")]
                    run.log(f"{run.path}: nothing to resume, starting{did_you_mean(run.path.name, others)}")
            elif not resume:
                raise SettingsError(f"{run.path}: already holds a run; choose another folder, or resume it")
            config = resumed(run.config, config)
            if run.metrics.exists():
                if splits and digest(*splits.values()) != read_json(run.environment)["data_sha256"]:
                    raise SettingsError(f"{run.path}: was trained on other images; give those, or choose another name")
                run.log(f"{run.path}: already finished, nothing to resume")
                run.checkpoint.unlink(missing_ok=True)
                with _activated(config) as runtime:
                    runtime.ranks.share(None)  # nothing is left to train
                return TrainingResult(load_run(run.path)[0], read_json(run.metrics))
            try:
                with _activated(config) as runtime:
                    return _train(config, run, runtime, on_epoch, splits, is_replay=is_replay)
            finally:
                if not run.config.exists():
                    _forget_start(run)
    except Timeout:
        raise SettingsError(f"{run.path}: another process is training here; wait for it, or choose another name") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        cause = (str(error).splitlines() or ["no cause given"])[0]
        raise SprintNetError(
            f"out of memory ({cause}); close other programs, or start another run with a smaller batch_size than "
            f"{config.batch_size} or fewer threads"
        ) from None
    finally:
        run.claim.release(force=True)
        with suppress(OSError):  # removes it where nothing was written; others are not empty
            run.path.rmdir()


def _forget_start(run: RunFolder) -> None:
    """Removes what a start that failed before the first step has written."""
    for left in (run.splits, run.data, run.lr_finder, run.head_fit, run.members, run.log_text):
        left.unlink(missing_ok=True)


def follow(config: Config) -> None:
    """Trains this process's part of every batch of a run which the first of several processes keeps (see `ranks`).

    Raises what training raises, and SettingsError where this process has other data or settings than the first.
    """
    with _activated(config) as runtime:
        ranks = runtime.ranks
        if not (path := ranks.share(None)):
            return
        run = RunFolder(path)
        splits = load_splits(config.data, lambda line: None, run)
        resolved, first = ranks.share(None)
        if first != (config.to_toml(), runtime.precision, digest(*splits.values())):
            raise SettingsError(f"rank {ranks.rank}: has other settings, precision or data than the first; give all the same")
        config = parse_config(resolved)
        images = splits["train"]
        pretrained = load_pretrained(config.init_from, config.model, images.image_shape[2])
        step, loader = build_step(config, images, runtime, pretrained)
        warm_up(step, config, loader)
        whiten(step.model, loader, config)
        for _ in fit(config, step, loader, None, run, lambda batches, *_: batches):
            pass


@contextmanager
def _activated(config: Config) -> Iterator[Runtime]:
    """Yields the runtime in force, joined with the other processes of the training, if any."""
    runtime = select_runtime(config.device, config.precision, config.threads, deterministic=config.deterministic)
    with joined(runtime.device.type) as ranks:
        runtime = replace(runtime, ranks=ranks, adapts_threads=runtime.adapts_threads and ranks.world == 1)
        with runtime.activated(config.seed):
            yield runtime


def _train(
    requested: Config,
    run: RunFolder,
    runtime: Runtime,
    on_epoch: Callable[[Row], object],
    splits: Splits | None,
    *,
    is_replay: bool,
) -> TrainingResult:
    started, memory = time.monotonic(), PeakMemory(runtime.device)
    is_resumed = run.checkpoint.exists()
    (run.path / checksums.FILE).unlink(missing_ok=True)  # of an end that was interrupted
    if splits:
        write_splits(run.splits, splits)
    else:
        splits = load_splits(requested.data, run.log, run)
    images = splits["train"]
    pretrained = load_pretrained(requested.init_from, requested.model, images.image_shape[2])
    runtime.ranks.share(str(run.path.absolute()))  # for `follow`
    config, reasons, finder_seconds = _resolve(requested, run, images, pretrained)
    data_sha256 = digest(*splits.values())
    runtime.ranks.share((config.to_toml(), (requested.to_toml(), runtime.precision, data_sha256)))
    step, loader = build_step(config, images, runtime, pretrained, run.log)
    commit = _record_environment(run, runtime, data_sha256, pretrained, teacher_sha256(config.distill), is_resumed)
    write_atomic(run.config, requested.to_toml())
    write_atomic(run.resolved, "".join(f"# {reason}\n" for reason in reasons) + config.to_toml())

    warmup_seconds = warm_up(step, config, loader)
    setup_seconds = whiten(step.model, loader, config)
    shape = step.model.working_shape(images.image_shape)
    val_images = splits["val" if "val" in splits else "test"]
    val_loader = Loader(val_images, loader.normalisation, images_at_a_time(EVALUATION_BATCH, shape), runtime.device)
    sizes = {name: len(part) for name, part in splits.items()}
    run.log(training_header(str(run.path), config, runtime.describe(), sizes, multi_label=images.multi_label))
    if runtime.device.type == "cpu" and (reason := build.unavailable_reason(runtime.precision)):
        run.log(f"not all compiled kernels are available: {reason}")
    cross_validated = None
    if config.head.fit and not is_resumed:
        cross_validated, seconds = fit_head(step.model, loader, images, config, runtime, run, track, is_replay=is_replay)
        setup_seconds += seconds
        if step.average:
            step.average.restart()
        if config.epochs:
            expected = config.epochs * len(loader) * step_seconds(step, loader)
            layers = "the last layer" if config.freeze_backbone else "all layers"
            run.log(f"next, {layers}: {config.epochs} epochs, about {rough_time(expected)} (epochs=0: not)")
    rows: list[Row] = []
    for row in fit(config, step, loader, val_loader, run, track):
        if not rows:
            run.log(TABLE_HEAD)
        rows.append(row)
        write_rows(run.results, rows)
        run.log(table_row(row))
        on_epoch(row)
    if rows:
        run.log(RULE)
    step.launch_plainly()  # the memory of its graphs is free for the evaluation
    if step.average:
        step.average.exchange()

    # the last epoch's weights are the result: nothing is chosen on test data
    flips = config.augment.flip > 0
    preprocessing = Preprocessing(
        images.classes, images.image_shape, loader.normalisation, config.data.resize, step.task.name, flips
    )
    trained = TrainedModel(step.model, preprocessing, runtime)
    # what the last layer alone predicts says nothing of a network that was trained after it
    trained, metrics = evaluate_and_save(
        trained, splits, config, run, commit, cross_validated=None if config.epochs else cross_validated
    )
    if config.head.fit and is_resumed:
        fit_of_before = read_json(run.head_fit)
        setup_seconds += fit_of_before["embedding_seconds"] + fit_of_before["fit_seconds"]
    seconds = setup_seconds + sum(row["train_seconds"] for row in rows)
    metrics |= {
        "peak_lr": config.peak_lr,
        "lr_finder_seconds": finder_seconds,
        "epochs": len(rows),
        "skipped_steps": sum(row["skipped_steps"] for row in rows),
        "train_seconds": seconds,
        "warmup_seconds": warmup_seconds,
        "images_per_second": len(rows) * len(images) / seconds if rows else None,
        "command_seconds": None if is_resumed else time.monotonic() - started,
        "peak_gib": memory.gib(),
    }
    close(run, metrics)
    return TrainingResult(replace(trained, runtime=runtime.on_idle_cores()), metrics)


def _resolve(
    requested: Config, run: RunFolder, images: ImageDataset, pretrained: Pretrained | None
) -> tuple[Config, tuple[str, ...], float | None]:
    """Returns the settings with `auto` and `lr_find` resolved, the reason of each change, and the seconds of the finder."""
    config, reasons = resolve(requested, DatasetFacts.of(images, pretrained.saved.settings if pretrained else None))
    seconds = None
    if config.lr_find:
        started, recipe_peak = time.monotonic(), config.peak_lr
        config = config.with_peak(find_peak_lr(config, run, images, pretrained))
        seconds = time.monotonic() - started
        reasons += (f"peak learning rate {config.peak_lr:.3g} instead of {recipe_peak:g}: lr_find ({RECOMMENDED})",)
    for reason in reasons:
        run.log(f"auto: {reason}")
    return config, reasons, seconds


def _record_environment(
    run: RunFolder, runtime: Runtime, data_sha256: str, pretrained: Pretrained | None, teacher: str | None, is_resumed: bool
) -> str | None:
    """Writes environment.json and returns the commit, or the commits, of the run."""
    record = environment_record(
        **runtime.describe(),
        data_sha256=data_sha256,
        init_sha256=pretrained.sha256 if pretrained else None,
        teacher_sha256=teacher,
    )
    if is_resumed:
        before = read_json(run.environment)
        _require_resumable(before, record, run)
        for key in ("commit", "code_sha256"):
            if before[key] != record[key]:
                record[key] = f"{before[key]} + {record[key]}"
    write_json(run.environment, record)
    commit: str | None = record["commit"]
    return commit


def _require_resumable(old: Mapping[str, Any], new: Mapping[str, Any], run: RunFolder) -> None:
    """Raises SettingsError where data or precision differ from the run's first part; logs what may change last bits."""
    for key, remedy in (
        ("data_sha256", "restore the data"),
        ("init_sha256", "restore the weights that init_from names"),
        ("teacher_sha256", "restore the weights that distill.teacher names"),
        ("precision", f"add precision={old['precision']}"),
    ):
        if old.get(key) != new[key]:
            raise SettingsError(
                f"{run.path}: cannot be resumed: it began with {key} {old.get(key)}, now it is {new[key]}; {remedy}"
            )
    compared = ("commit", "code_sha256", "versions", "device", "gpu", "cpu", "threads", "processes", "processor", "kernels")
    if changed := [key for key in compared if old.get(key) != new.get(key)]:
        run.log(f"{RESUMED_ELSEWHERE} {', '.join(changed)}: the result may differ in its last bits")
