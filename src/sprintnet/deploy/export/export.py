"""Exports a finished run: ONNX files that match the trained model, weights, a model card and sample images."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from filelock import FileLock, Timeout
from PIL import Image

from sprintnet.config import load_config
from sprintnet.data.dataset import ImageDataset, Images, first_of_each_class
from sprintnet.data.load import load_splits, require_same_splits
from sprintnet.data.splits import Splits
from sprintnet.deploy.export.card import model_card
from sprintnet.deploy.export.graph import InferenceModel, add_metadata, build_graph, to_bytes
from sprintnet.deploy.export.parity import check_parity, file_metrics, parity, predict_all, throughput
from sprintnet.deploy.export.variants import to_fp16, to_int8
from sprintnet.deploy.predictions import OUTPUTS
from sprintnet.deploy.predictor import Predictor
from sprintnet.errors import ArgumentError, SettingsError
from sprintnet.evaluation.thresholds import ThresholdRule
from sprintnet.evaluation.trained_model import TrainedModel, load_run
from sprintnet.runs.cores import available_cores, cpu_time, usable_threads
from sprintnet.runs.environment import cpu_name
from sprintnet.runs.folder import (
    SPLIT_TITLES,
    RunFolder,
    evaluation_split,
    log_test_access,
    open_run,
    read_json,
    require_consistent,
)
from sprintnet.runs.io import replace_folder, restore_folder, write_atomic, write_json
from sprintnet.runtime import has_fast_bf16

FP32_FILE = "model.onnx"
MAX_SAMPLES = 8
NO_RULE = ThresholdRule()
WORK = ".export-"  # with what the names of unfinished exports begin


def export(
    path: str | Path,
    quantize: Sequence[str] = (),
    outputs: Sequence[str] = OUTPUTS,
    license: str = "unknown",
    tta: str | None = None,
    splits: Splits | None = None,
    rule: ThresholdRule = NO_RULE,
) -> dict[str, Any]:
    """Exports a run into its folder `export` and returns the table of the files (parity.json).

    Writes model.onnx (fp32), model-fp16.onnx or model-int8.onnx as `quantize` says, model.safetensors, README.md (the model
    card), parity.json and a few sample images. With `tta`, flip or all, the graph averages the mirrored image, or all
    augmented images, too (test-time augmentation). With a `rule`, the files have a threshold for each class, from the images
    that the run held out. `splits` replace the data that the run's settings name. Raises ParityError if a file does not match
    the trained model: an earlier export stays as it was. Raises SettingsError if the run or its data are missing or have
    changed.
    """
    if "probabilities" not in outputs or not set(outputs) <= set(OUTPUTS) or len(set(outputs)) < len(outputs):
        allowed = f"must include probabilities, and may include {', '.join(OUTPUTS[1:])}, each once"
        raise ArgumentError("outputs", ",".join(outputs), allowed)
    run = open_run(path)
    trained, config = load_run(path, ["device=cpu", "precision=fp32", "threads=0"])
    trained = replace(trained, preprocessing=trained.preprocessing.with_tta(tta))
    splits = splits or load_splits(config.data, run=run if run.splits.exists() else None)
    with require_consistent(run):
        require_same_splits(splits, run, str(path))
        if rule:
            trained = _with_thresholds(trained, splits, rule)
        metadata = _metadata(trained, run, license)
    evaluated = splits[evaluation_split(splits)]
    with _replace_when_complete(run) as folder:
        rows = _write_models(folder, trained, splits, metadata, quantize, outputs, rule)
        table = _add_speed(rows, folder, trained, evaluated.images)
        write_json(folder / "parity.json", table)
        write_atomic(folder / "README.md", model_card(trained.preprocessing, metadata, table))
        write_atomic(folder / "model.safetensors", run.weights.read_bytes())
        _write_samples(evaluated, folder / "samples")
    if evaluation_split(splits) == "test":
        log_test_access(run, "export", {"images": len(evaluated), "accuracy": table["files"]["model.onnx"]["accuracy"]})
    return table


def _with_thresholds(trained: TrainedModel, splits: Splits, rule: ThresholdRule) -> TrainedModel:
    """Returns the model with thresholds of its classes; raises ArgumentError for a rule that does not suit it."""
    preprocessing, is_multi_label = trained.preprocessing, trained.preprocessing.threshold is not None
    rule.check(trained.classes, is_multi_label=is_multi_label)
    if "val" not in splits or preprocessing.temperature is None:
        given = ("cost", next(iter(rule.costs.values()))) if rule.costs else ("min_precision", rule.min_precision)
        raise ArgumentError(*given, "needs held-out images, on which probabilities are calibrated; train with data.val")
    held_out = splits["val"]
    probabilities = preprocessing.probabilities(trained.predict_logits(held_out.images, "thresholds"))
    membership = trained.task.membership(held_out.labels, len(trained.classes))
    found = rule.thresholds(probabilities, membership, trained.classes, is_multi_label=is_multi_label)
    return replace(trained, preprocessing=replace(preprocessing, thresholds=tuple(found)))


@contextlib.contextmanager
def _replace_when_complete(run: RunFolder) -> Iterator[Path]:
    """Provides an empty folder that replaces the run's export if the block succeeds; a kill leaves the old one or the new."""
    try:
        with FileLock(run.export_lock, blocking=False):
            restore_folder(run.export)
            for left in run.path.glob(f"{WORK}*"):  # by a process that was killed
                shutil.rmtree(left)
            work = Path(tempfile.mkdtemp(prefix=WORK, dir=run.path))
            try:
                work.chmod(run.path.stat().st_mode)  # mkdtemp's is for this user alone
                yield work
                replace_folder(run.export, work)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise SettingsError(f"{run.path}: another process is exporting this run; wait for it") from None


def _metadata(trained: TrainedModel, run: RunFolder, license: str) -> dict[str, str]:
    """Returns the metadata that all files share: text, or JSON for lists and objects; no paths of this machine."""
    recipe = load_config(run.config)
    recipe = replace(recipe, data=replace(recipe.data, name=Path(recipe.data.name).name, source=""))
    record = read_json(run.environment)
    return {
        "made_by": f"sprintnet {version('sprintnet')}",
        "preprocessing": json.dumps(trained.preprocessing.to_metadata()),
        "recipe": recipe.to_toml(),
        "data": recipe.data.name,
        "data_sha256": record["data_sha256"],
        "commit": record["commit"] or "unknown",
        "license": license,
    }


def _write_models(
    folder: Path,
    trained: TrainedModel,
    splits: Splits,
    metadata: dict[str, str],
    quantize: Sequence[str],
    outputs: Sequence[str],
    rule: ThresholdRule,
) -> dict[str, dict[str, Any]]:
    """Writes the ONNX files and returns the parity of each; raises ParityError."""
    split = evaluation_split(splits)
    evaluated = splits[split]
    expected = trained.predict_outputs(evaluated.images, "PyTorch")
    exact = build_graph(trained, outputs)
    rows: dict[str, dict[str, Any]] = {}
    for precision in ("fp32", *quantize):
        model = to_fp16(exact) if precision == "fp16" else to_int8(exact, splits["train"]) if precision == "int8" else exact
        name = FP32_FILE if model is exact else f"model-{precision}.onnx"
        file = folder / name
        onnx.checker.check_model(model, full_check=True)
        add_metadata(model, metadata)
        file.write_bytes(model.SerializeToString())
        predictions = predict_all(Predictor(file), evaluated.images, name)
        row = parity(trained, predictions, expected, evaluated.labels)
        check_parity(name, row, is_exact=model is exact)
        metrics = {"split": SPLIT_TITLES[split], **file_metrics(trained, predictions, evaluated.labels, split)}
        if rule.min_precision:
            metrics["thresholds"]["min_precision"] = rule.min_precision
        add_metadata(model, {"parity": json.dumps(row), "metrics": json.dumps(metrics)})
        file.write_bytes(to_bytes(model))
        rows[name] = {"bytes": file.stat().st_size, **row, "metrics": metrics}
    return rows


def _add_speed(rows: dict[str, dict[str, Any]], folder: Path, trained: TrainedModel, images: Images) -> dict[str, Any]:
    """Returns the table of the files with their speed, PyTorch's in fp32 and, if it is fast, bf16, and the hardware."""
    threads, inference = trained.runtime.threads, InferenceModel(trained, ("probabilities",)).eval()

    def predict(images: Images, in_bf16: bool) -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            return inference(torch.from_numpy(images).permute(0, 3, 1, 2))

    functions: dict[str, Callable[[Images], object]] = {name: Predictor(folder / name, threads) for name in rows}
    functions["PyTorch fp32"] = partial(predict, in_bf16=False)
    if has_fast_bf16("cpu"):
        functions["PyTorch bf16"] = partial(predict, in_bf16=True)
    start = cpu_time()
    with trained.runtime.activated():
        speeds = throughput(functions, images)
    is_idle = cpu_time().free_cores_since(start) >= available_cores()
    if trained.runtime.adapts_threads:  # and then too
        is_idle &= threads >= usable_threads()
    return {
        "files": {name: {**row, **speeds[name]} for name, row in rows.items()},
        "pytorch": {name: speed for name, speed in speeds.items() if name not in rows},
        "hardware": {"cpu": cpu_name(), "threads": threads, "idle": is_idle},
    }


def _write_samples(dataset: ImageDataset, folder: Path) -> None:
    """Writes one image of each of the first classes, to try the model on."""
    folder.mkdir()
    first = np.unique(first_of_each_class(dataset.labels)[:MAX_SAMPLES])  # one image may show several classes
    for number, image in enumerate(dataset.take(first).images, 1):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{number}.png")
