"""The end of a run: evaluation, calibration, weights, report artifacts, and the metrics that say that it is finished."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sprintnet.config import Config
from sprintnet.data.splits import Splits
from sprintnet.evaluation.task import Evaluation
from sprintnet.evaluation.trained_model import TrainedModel
from sprintnet.models.factory import SavedModel, save_model
from sprintnet.runs import checksums
from sprintnet.runs.folder import RunFolder, log_test_access
from sprintnet.runs.io import as_json, write_arrays, write_json, write_rows
from sprintnet.training.artifacts import write_artifacts


def evaluate_and_save(
    trained: TrainedModel,
    splits: Splits,
    config: Config,
    run: RunFolder,
    commit: str | None,
    command: str = "train",
    cross_validated: Evaluation | None = None,
) -> tuple[TrainedModel, dict[str, Any]]:
    """Returns the model, calibrated on the held-out images, if any, and its metrics; writes all that follows from it.

    The temperature is fitted on the `cross_validated` predictions of training images too. Logits and labels of these and of
    the evaluated images are written to predictions.npz, a row for each image to predictions.csv.
    """
    known = trained.embed_known(splits["train"])
    evaluations = {name: trained.evaluate(part, config.tta) for name, part in splits.items() if name != "train"}
    if "val" in splits:
        trained = trained.calibrated(splits["val"], evaluations["val"], config.label_smoothing, cross_validated)
        evaluations["val"] = replace(evaluations["val"], is_held_out=True)
    files = {name: part.files for name, part in splits.items()}
    if cross_validated:
        of_train, index = splits["train"].files, cross_validated.arrays["index"]
        evaluations["cross_validation"], files["cross_validation"] = cross_validated, of_train and [of_train[i] for i in index]
    metrics: dict[str, Any] = {name: found.metrics(trained.preprocessing) for name, found in evaluations.items()}
    if "test" in metrics:
        log_test_access(run, command, metrics["test"])
    arrays = {f"{name}_{key}": values for name, found in evaluations.items() for key, values in found.arrays.items()}
    write_arrays(run.predictions, **arrays)
    rows = [
        {"split": name, **row} for name, found in evaluations.items() for row in found.rows(trained.preprocessing, files[name])
    ]
    write_rows(run.predictions_csv, rows)
    save_model(run.weights, SavedModel(trained.model, config.model, trained.preprocessing, config.precision), commit=commit)
    write_artifacts(config, run, splits, trained, known)
    facts: dict[str, Any] = {
        "temperature": trained.preprocessing.temperature,
        "undone_label_smoothing": trained.preprocessing.label_smoothing,
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
    }
    return trained, metrics | facts


def close(run: RunFolder, metrics: Mapping[str, Any]) -> None:
    """Writes the checksums of a run's files and its metrics.json: the run is finished."""
    kept = [file for file in run.final_files if file.exists()]
    checksums.write_checksums(run.path, kept, {run.metrics.name: as_json(metrics)})
    write_json(run.metrics, metrics)
    run.checkpoint.unlink(missing_ok=True)
