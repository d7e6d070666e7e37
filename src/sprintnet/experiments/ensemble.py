"""An ensemble of a study's runs: one model that answers with the mean of their probabilities, in a run folder of its own."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from sprintnet.config import Config, load_config
from sprintnet.data.load import load_splits, require_same_splits
from sprintnet.data.preprocessing import Preprocessing
from sprintnet.data.splits import Splits, write_splits
from sprintnet.errors import SettingsError
from sprintnet.evaluation.task import Task
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.experiments.compare import summarise
from sprintnet.experiments.study_runs import runs_of
from sprintnet.models.ensemble import Ensemble
from sprintnet.models.factory import SavedModel, load_model
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, evaluation_split, read_arrays, read_json
from sprintnet.runs.io import write_atomic, write_json
from sprintnet.runs.lease import acquire
from sprintnet.runtime import Runtime, select_runtime
from sprintnet.training.finish import close, evaluate_and_save
from sprintnet.training.train import TrainingResult

Members = Sequence[tuple[RunFolder, Config]]


def ensemble(study: str | Path, run: RunFolder, splits: Splits | None = None) -> TrainingResult:
    """Makes one model of a study's finished runs, writes its run folder and returns model and metrics.

    `ensemble` in the metrics has the runs with their accuracy, and the gain: the accuracy less the mean of the runs', with a
    95 % interval over images. `splits` replace the data that the settings name. Raises SettingsError for fewer than two runs,
    for folds, and for runs of other data, classes or networks.
    """
    started, members = time.monotonic(), runs_of(study)
    run.path.mkdir(parents=True, exist_ok=True)
    claim = run.claim or run.lease()
    try:
        acquire(claim, run.log)
    except Timeout:
        raise SettingsError(f"{run.path}: another process is writing here; wait for it, or choose another name") from None
    try:
        return _ensemble(study, members, run, splits, started)
    finally:
        claim.release(force=True)


def _ensemble(study: str | Path, members: Members, run: RunFolder, splits: Splits | None, started: float) -> TrainingResult:
    saved = _alike(study, members)
    folders = [one for one, _ in members]
    config, each = load_config(folders[0].resolved), [read_json(one.metrics) for one in folders]
    for left in (run.splits, run.lr_finder):  # by a training that failed
        left.unlink(missing_ok=True)
    runs = [{"run": one.path.name, "weights_sha256": _sha256(one.weights)} for one in folders]
    write_json(run.members, {"study": str(study), "runs": runs})
    if splits:
        write_splits(run.splits, splits)
    else:
        splits = load_splits(config.data, run.log, run)
    require_same_splits(splits, folders[0], str(study))
    runtime = select_runtime("auto", config.precision, 0, deterministic=config.deterministic).on_idle_cores()
    data_sha256 = read_json(folders[0].environment)["data_sha256"]
    record = environment_record(**runtime.describe(), data_sha256=data_sha256)
    write_json(run.environment, record)
    run.log(f"{run.path}: ensemble of {len(members)} runs, {', '.join(one.path.name for one in folders)}")
    with runtime.activated(config.seed):
        trained, metrics = evaluate_and_save(_joined(saved, runtime), splits, config, run, record["commit"], "ensemble")
    seconds = sum(found["train_seconds"] for found in each)
    metrics |= {
        "ensemble": {"members": runs, **_gains(trained.task, run, folders, evaluation_split(splits))},
        "peak_lr": each[0]["peak_lr"],
        "lr_finder_seconds": each[0]["lr_finder_seconds"],
        "epochs": each[0]["epochs"],
        "train_seconds": seconds,
        "images_per_second": sum(found["epochs"] for found in each) * len(splits["train"]) / seconds or None,
        "command_seconds": time.monotonic() - started,
    }
    write_atomic(run.resolved, config.to_toml())
    write_atomic(run.config, folders[0].config.read_bytes())
    close(run, metrics)
    return TrainingResult(trained, metrics)


def _alike(study: str | Path, members: Members) -> list[SavedModel]:
    """Returns the models of runs; raises SettingsError where they cannot be one."""
    if len(members) < 2:
        raise SettingsError(f"{study}: {len(members)} finished runs; an ensemble needs two or more: sprintnet study --seeds 5")
    found = [load_model(run.weights) for run, _ in members]
    first, _ = members[0]
    for (run, config), saved in zip(members, found, strict=True):
        if config.data.fold:
            rule = "was trained on a fold, whose images are no hold-out of the others; use a study of seeds"
            raise SettingsError(f"{run.path}: {rule}")
        if saved.members > 1:
            raise SettingsError(f"{run.path}: is an ensemble itself; move it away")
        ours, theirs = (
            {**_shared(each.preprocessing), **asdict(each.settings), "tta": own.tta, "label_smoothing": own.label_smoothing}
            for each, own in ((saved, config), (found[0], members[0][1]))
        )
        data = [read_json(each.environment)["data_sha256"] for each in (run, first)]
        changed = [key for key in ours if ours[key] != theirs[key]] + ["data"] * (data[0] != data[1])
        if changed:
            rule = f"differs from {first.path} in {', '.join(changed)}; they cannot be one model; move one of them away"
            raise SettingsError(f"{run.path}: {rule}")
    return found


def _shared(preprocessing: Preprocessing) -> dict[str, Any]:
    """Returns what members must have in common."""
    names = ("classes", "image_shape", "normalisation", "resize", "task", "flip_tta")
    return {name: getattr(preprocessing, name) for name in names}


def _joined(saved: Sequence[SavedModel], runtime: Runtime) -> TrainedModel:
    """Returns the ensemble, not calibrated yet."""
    preprocessing = Preprocessing(**_shared(saved[0].preprocessing))
    network = Ensemble([each.network for each in saved], is_multi_label=preprocessing.task == "multi-label")
    return TrainedModel(runtime.place(network), preprocessing, runtime)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _gains(task: Task, run: RunFolder, members: Sequence[RunFolder], split: str) -> dict[str, Any]:
    """Returns the accuracy of the members, its mean and standard deviation, and the gain of the ensemble, by images; with TTA
    too, where it was used."""
    own, theirs = read_arrays(run.predictions), [read_arrays(one.predictions) for one in members]
    labels, facts = own[f"{split}_labels"], {}
    for name in ("logits", "tta_logits"):
        if (key := f"{split}_{name}") not in own:
            continue
        right = np.stack([task.correct_mask(arrays[key], labels) for arrays in theirs])
        spread = summarise(right.mean(axis=1).tolist())
        gain = summarise((task.correct_mask(own[key], labels) - right.mean(axis=0)).tolist())
        facts[name.replace("logits", "accuracy")] = {
            "members": right.mean(axis=1).tolist(), "mean": spread.mean, "sd": spread.sd,
            "gain": gain.mean, "gain_interval": [gain.low, gain.high],
        }  # fmt: skip
    return facts
