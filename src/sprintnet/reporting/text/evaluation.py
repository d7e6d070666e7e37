"""Metrics of a run, as lines for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sprintnet.reporting.text import task_scores as scores
from sprintnet.reporting.text.held_out import HEADS, set_rows, set_text, unknown_text
from sprintnet.reporting.text.names import UNLABELLED, plain
from sprintnet.reporting.text.table import table_lines
from sprintnet.reporting.text.times import seconds_text
from sprintnet.runs.folder import evaluation_split

MAX_MATRIX_CLASSES = 12  # classes whose confusion matrix fits a terminal
MAX_CONFUSED_PAIRS = 5


def result_lines(metrics: Mapping[str, Any], run_folder: str) -> Iterator[str]:
    """Yields the results of a training (metrics.json)."""
    for split in ("val", "test"):
        if found := metrics.get(split):
            parts = [
                f"{split} {scores.accuracy_name(found)} {scores.accuracy_with_interval(found)} on {found['images']:,} images",
                *(f"{name} {text}" for name, text in scores.overall_scores(found).items()),
                f"cross-entropy {found['cross_entropy']:.4f}",
            ]
            yield ", ".join(parts)
            yield from chance_lines(found)
            if "tta" in found:
                yield f"{split} TTA accuracy {_tta(found['tta'])}"
    if found := metrics.get("cross_validation"):
        shown = f"{scores.accuracy_name(metrics[evaluation_split(metrics)])} {scores.accuracy_with_interval(found)}"
        yield f"in cross-validation: {shown} on {found['images']:,} training images, by which the penalty was chosen"
    yield calibration_text(metrics)
    if "ensemble" in metrics:
        yield from gain_lines(metrics["ensemble"])
    seconds, speed = metrics["train_seconds"], metrics["images_per_second"]
    at = f" ({speed:,.0f} images/s)" if speed else ""
    yield f"trained in {seconds_text(seconds)}{at}; run folder: {run_folder}"


def head_fit_text(fit: Mapping[str, Any]) -> str:
    """Returns how the last layer of a pretrained network was fitted (head_fit.json)."""
    accuracy = fit["accuracies"][fit["strengths"].index(fit["strength"])]
    views = "images and their mirror images" if fit["mirrored"] else "images"
    return (
        f"The last layer was fitted to the pretrained network's embeddings of the training {views}: logistic regression, "
        f"with a penalty of {fit['strength']:.2g} ({accuracy:.2%} in cross-validation)."
    )


def gain_lines(ensemble: Mapping[str, Any]) -> Iterator[str]:
    """Yields by how much an ensemble (`ensemble` of metrics.json) is more accurate than its members."""
    for key, name in (("accuracy", "accuracy"), ("tta_accuracy", "TTA accuracy")):
        if found := ensemble.get(key):
            low, high = found["gain_interval"]
            yield (
                f"{name} of the {len(found['members'])} networks {found['mean']:.2%} (sd {100 * found['sd']:.2f}); "
                f"of the ensemble {100 * found['gain']:+.2f} points (95% CI {100 * low:.2f} to {100 * high:.2f}, over images)"
            )


def chance_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yields a caution where the accuracy of a split may be that of always predicting its largest class."""
    if "hamming_loss" in metrics:  # with several labels an image, chance has no one level
        return
    largest = max(metrics["classes"], key=lambda name: metrics["classes"][name]["support"])
    chance = metrics["classes"][largest]["support"] / metrics["images"]
    if metrics["accuracy_interval"][0] <= chance:
        yield f"not clearly better than chance: always predicting {plain(largest)} is right for {chance:.2%} of these images"


def calibration_text(metrics: Mapping[str, Any]) -> str:
    """Returns how the probabilities of a training (metrics.json) were calibrated, and how far they can be trusted."""
    split = evaluation_split(metrics)
    is_measured = metrics[split]["images"] >= scores.FEW_IMAGES
    trained = f"{metrics[split]['calibration']['ece']:.2%}"
    if metrics["temperature"] is None:
        why = "with data.val=0 no images are held out for it; leave it at auto"
        return f"probabilities are not calibrated{f' ({split} ECE {trained})' * is_measured}: {why}"
    calibrated = f"{metrics[split]['calibrated']['ece']:.2%}"
    images = metrics["val"]["images"]
    few = " (the same images: an optimistic estimate)" if split == "val" else ""
    if found := metrics.get("cross_validation"):
        few += f" and, in cross-validation, on {found['images']:,} training images"
    elif images < scores.FEW_IMAGES:
        few += "; these are few: more validation images give a better temperature"
    undone = metrics["undone_label_smoothing"]
    first = f"label smoothing of {undone:g} is undone, and " if undone else ""
    fitted = f"a temperature of {metrics['temperature']:.3f} was fitted on the {images:,} val images{few}"
    if not is_measured:
        return f"calibrated probabilities: {first}{fitted}; {metrics[split]['images']} images are too few to measure how well"
    return f"calibrated probabilities: {split} ECE {calibrated} (before: {trained}); {first}{fitted}"


def evaluation_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yields the metrics of one split (of metrics.json): overall, calibration, coverage, confusions, by class."""
    yield f"{scores.accuracy_name(metrics):14}  {scores.accuracy_with_interval(metrics)}"
    yield from chance_lines(metrics)
    if "tta" in metrics:
        yield f"{'TTA accuracy':14}  {_tta(metrics['tta'])}"
    yield from (f"{name:14}  {text}" for name, text in scores.overall_scores(metrics).items())
    yield f"{'cross-entropy':14}  {metrics['cross_entropy']:.4f}\n"
    calibrations = {"as trained": "calibration", "calibrated": "calibrated"}
    yield from table_lines(
        ["calibration", "ECE (15 bins)", "adaptive ECE", "NLL", "Brier score"],
        [
            [
                name,
                *(scores.calibration_error(found[key], metrics["images"]) for key in ("ece", "adaptive_ece")),
                *(f"{found[key]:.4f}" for key in ("nll", "brier")),
            ]
            for name, calibration in calibrations.items()
            if (found := metrics.get(calibration))
        ],
    )
    yield ""
    yield from table_lines(
        ["most confident images", "accuracy", "min. confidence"],
        [[f"{row['coverage']:.0%}", f"{row['accuracy']:.2%}", f"{row['confidence']:.3f}"] for row in metrics["coverage"]],
    )
    yield ""
    if (sets := metrics.get("sets")) and sets["rows"]:
        yield from table_lines(list(HEADS), set_rows(sets))
        yield f"{set_text(sets)}\n"
    if unknown := metrics.get("unknown"):
        yield f"{unknown_text(unknown)}\n"
    if most_confused := metrics.get("most_confused", [])[:MAX_CONFUSED_PAIRS]:
        pairs = [f"{plain(pair['true'])} -> {plain(pair['predicted'])} {pair['images']:,}" for pair in most_confused]
        yield f"most confused (true -> predicted): {', '.join(pairs)}\n"
    columns, table = scores.class_columns(metrics), metrics["classes"].items()
    cells = [[name, f"{row['support']:,}", *(scores.class_score(row, score) for score in columns)] for name, row in table]
    yield from table_lines(["class", "images", *columns.values()], cells)
    if "confusion" in metrics and len(metrics["classes"]) <= MAX_MATRIX_CLASSES:
        yield "\nconfusion matrix, in images (rows: true class, columns: predicted class, in the same order)"
        counts = zip(metrics["classes"], metrics["confusion"], strict=True)
        rows = [[name, *(f"{count:,}" for count in row)] for name, row in counts]
        yield from list(table_lines([""] * len(rows[0]), rows))[1:]


def explained_lines(predictions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields a row for each explained file (`evaluation.explain.Explanation`): prediction, and the class of its map."""
    yield from table_lines(
        ["file", "predicted", "probability", "map of class"],
        [[row["file"], row["predicted"] or UNLABELLED, f"{row['confidence']:.2%}", row["target"]] for row in predictions],
    )


def faithfulness_lines(faithfulness: Mapping[str, Mapping[str, float]], images: int) -> Iterator[str]:
    """Yields the deletion and insertion scores of class activation maps of some images, by the name of the maps."""
    yield from table_lines(
        ["class activation map", "deletion (lower is better)", "insertion (higher is better)"],
        [[name, f"{score['deletion']:.1%}", f"{score['insertion']:.1%}"] for name, score in faithfulness.items()],
    )
    yield scored_text(images)
    yield from (f"{name}: not better than maps at random" for name in not_faithful(faithfulness))


def scored_text(images: int) -> str:
    """Returns of how many images the scores of faithfulness are."""
    which = f"means over the first {images:,} images" if images > 1 else "of the first image"
    return f"{which}: of large images, few are scored"


def not_faithful(faithfulness: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the names of the maps that are worse than random ones in deletion or in insertion."""
    random = faithfulness["random"]
    return [
        name
        for name, score in faithfulness.items()
        if score["deletion"] > random["deletion"] or score["insertion"] < random["insertion"]
    ]


def _tta(tta: Mapping[str, Any]) -> str:
    return f"{scores.accuracy_with_interval(tta)}, TTA on {tta['fraction']:.0%} of the images, {tta['seconds']:.1f} s"
