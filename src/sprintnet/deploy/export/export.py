"""A finished run becomes a folder to ship: ONNX files that were proved to answer as the network, weights, a model card."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image

from sprintnet.config import load_config
from sprintnet.data.dataset import ImageDataset, Images, digest
from sprintnet.data.load import load_splits
from sprintnet.data.splits import Splits
from sprintnet.deploy.export.card import model_card
from sprintnet.deploy.export.graph import Answering, add_metadata, build_graph
from sprintnet.deploy.export.parity import answered, check_parity, parity, predict_all, throughput
from sprintnet.deploy.export.resizing import RESIZE
from sprintnet.deploy.export.variants import to_fp16, to_int8
from sprintnet.deploy.predictor import OUTPUTS, Predictor
from sprintnet.errors import SettingsError
from sprintnet.evaluation.metrics import Floats
from sprintnet.evaluation.task import Task
from sprintnet.evaluation.trained_model import TrainedModel, load_run
from sprintnet.runs.folder import (
    SPLIT_TITLES,
    RunFolder,
    evaluation_split,
    open_run,
    read_arrays,
    read_json,
    require_consistent,
)
from sprintnet.runs.io import write_atomic, write_json
from sprintnet.runtime import multiplies_bf16

EXACT = "model.onnx"
SAMPLES = 8
REDUCED = {"fp16": "model-fp16.onnx", "int8": "model-int8.onnx"}
FIGURES = (
    "images",
    "accuracy",
    "accuracy_interval",
    "top5_accuracy",
    "mean_average_precision",
    "micro_f1",
    "macro_f1",
    "hamming_loss",
    "cross_entropy",
)
"""What the metadata hold of a run's figures, as far as its task has them: on the images by which it is judged, as trained and
over one view."""


def export(
    path: str | Path, reduced: Sequence[str] = (), outputs: Sequence[str] = OUTPUTS, license: str = "unknown"
) -> dict[str, Any]:
    """Returns the table of the exported files (parity.json) of a run, which are written into its folder `export`.

    model.onnx, and model-fp16.onnx or model-int8.onnx as `reduced` asks; model.safetensors; README.md, the model card;
    parity.json; samples, a few images. Raises ParityError where a file does not answer as the network: nothing of this
    export is left behind, an earlier one stays. Raises SettingsError where the run or its data are not what they were.
    """
    if "probabilities" not in outputs or not set(outputs) <= set(OUTPUTS) or len(set(outputs)) < len(outputs):
        raise SettingsError(f"--outputs {','.join(outputs)}: must name probabilities, and may name logits, maps, each once")
    run = open_run(path)
    trained, config = load_run(path, ["device=cpu", "precision=fp32", "threads=0"])
    splits = load_splits(config.data, run=run if run.splits.exists() else None)
    record = read_json(run.environment)
    with require_consistent(run):
        if digest(*splits.values()) != record["data_sha256"]:
            raise SettingsError(f"{path}: the data are not those of the run, on which its files are proved; restore them")
        facts = _facts(trained, run, license)
        run_logits = read_arrays(run.predictions)[f"{evaluation_split(splits)}_logits"]
    work = run.path / ".export"  # what is there takes the old folder's place when all of it is proved
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        table = _fill(work, trained, splits, facts, run_logits, reduced, outputs)
        write_atomic(work / "model.safetensors", run.weights.read_bytes())
        shutil.rmtree(run.export, ignore_errors=True)
        work.replace(run.export)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return table


def _fill(
    folder: Path,
    trained: TrainedModel,
    splits: Splits,
    facts: dict[str, str],
    run_logits: Floats,
    reduced: Sequence[str],
    outputs: Sequence[str],
) -> dict[str, Any]:
    """Returns the table of the files that it writes; `run_logits` holds the run's own logits for the images that judge it."""
    judged = splits[evaluation_split(splits)]
    logits, as_run = trained.predict_logits(judged.images, "PyTorch"), answered(trained, run_logits)
    model = build_graph(trained, outputs)
    makers: dict[str, Callable[[], onnx.ModelProto]] = {
        EXACT: lambda: model,
        REDUCED["fp16"]: partial(to_fp16, model),
        REDUCED["int8"]: partial(to_int8, model, splits["train"]),
    }
    rows = {}
    for name in (EXACT, *(REDUCED[precision] for precision in reduced)):
        made, file = makers[name](), folder / name
        add_metadata(made, facts)
        file.write_bytes(made.SerializeToString())
        answers = predict_all(Predictor(file), judged.images, name)
        row = parity(trained, answers, logits, judged.labels)
        row["agreement_with_run"] = float((answers.answered == as_run).all(axis=1).mean())
        check_parity(name, row, is_exact=name == EXACT)
        add_metadata(made, {"parity": json.dumps(row)})
        file.write_bytes(made.SerializeToString())
        rows[name] = {"bytes": file.stat().st_size, **row}
    speeds = throughput({**_eager(trained), **{name: Predictor(folder / name) for name in rows}}, judged.images)
    table = {
        "files": {name: {**row, **speeds[name]} for name, row in rows.items()},
        "pytorch": {name: speed for name, speed in speeds.items() if name not in rows},
    }
    write_json(folder / "parity.json", table)
    write_atomic(folder / "README.md", model_card(facts, table))
    _write_samples(trained.task, judged, folder / "samples")
    return table


def _write_samples(task: Task, judged: ImageDataset, folder: Path) -> None:
    """Writes one image of each of the first classes, to try the model on."""
    folder.mkdir()
    members = task.membership(judged.labels, len(judged.classes))
    first = np.unique(members[:, members.any(axis=0)].argmax(axis=0)[:SAMPLES])  # one image may show several classes
    for number, image in enumerate(judged.take(first).images, 1):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{number}.png")


def _facts(trained: TrainedModel, run: RunFolder, license: str) -> dict[str, str]:
    """Returns the metadata of every file: text, or JSON of lists and objects; a folder of data is named without its place."""
    recipe = load_config(run.config)
    recipe = replace(recipe, data=replace(recipe.data, name=Path(recipe.data.name).name, source=""))
    record, metrics = read_json(run.environment), read_json(run.metrics)
    split = evaluation_split(metrics)
    figures = {key: metrics[split][key] for key in FIGURES if key in metrics[split]}
    preprocessing = {
        "image_shape": trained.preprocessing.image_shape,
        "resize": RESIZE[trained.preprocessing.resize],
        "mean": trained.preprocessing.normalisation.mean,
        "std": trained.preprocessing.normalisation.std,
        "temperature": trained.preprocessing.temperature,
    }
    return {
        "made_by": f"sprintnet {version('sprintnet')}",
        "classes": json.dumps(trained.classes),
        "task": trained.task.name,
        **({"threshold": str(trained.task.threshold)} if trained.task.threshold else {}),
        "preprocessing": json.dumps(preprocessing),
        "recipe": recipe.to_toml(),
        "metrics": json.dumps({"split": SPLIT_TITLES[split], **figures}),
        "data": recipe.data.name,
        "data_sha256": record["data_sha256"],
        "commit": record["commit"] or "unknown",
        "license": license,
    }


def _eager(trained: TrainedModel) -> dict[str, Callable[[Images], object]]:
    """Returns what a user of PyTorch would run, in fp32 and, where the processor is quick at it, in bf16."""
    answering = Answering(trained, ("probabilities",)).eval()

    def answer(images: Images, in_bf16: bool) -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            return answering(torch.from_numpy(images).permute(0, 3, 1, 2))

    kinds = {"PyTorch fp32": False, **({"PyTorch bf16": True} if multiplies_bf16("cpu") else {})}
    return {name: partial(answer, in_bf16=in_bf16) for name, in_bf16 in kinds.items()}
