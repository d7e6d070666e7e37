"""The article's training table, line by line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HEADS = ("Epoch", "LR", "Time", "TrainLoss", "TrainAcc", "ValLoss", "ValAcc")
WIDTHS = (5, 8, 7, 9, 8, 8, 6)
COLUMNS = f"| {' | '.join(head.ljust(width) for head, width in zip(HEADS, WIDTHS, strict=True))} |"
RULE = "-" * len(COLUMNS)
MATRIX_CLASSES = 12
"""So many columns fit a terminal."""


def training_header(place: str, settings: Any, machine: Mapping[str, Any], images: Mapping[str, int]) -> str:
    """Returns the lines above the table and its head, in the article's words.

    `place` is the run folder, `settings` a Config, `machine` the runtime's description, `images` the size of each split.
    """
    optim, schedule, model = settings.optim, settings.schedule, settings.model
    facts = {
        "Run Folder": place,
        "Using Device": f"{machine['gpu'] or machine['device']}, {machine['precision']}, {machine['threads']} threads",
        "Network": f"{model.name}, width {model.width}",
        "Data": f"{settings.data.name}: " + ", ".join(f"{count:,} {split}" for split, count in images.items()),
        "Seed": settings.seed,
        "Optimizer": "Muon for the filters, SGD for the rest" if settings.muon.max_lr else "SGD",
        "Epochs": settings.epochs,
        "Lr": f"{settings.peak_lr * schedule.factors[0]:g}",
        "Max Lr": f"{settings.peak_lr:g}, moving every {schedule.interval}",
        "Batch Size": settings.batch_size,
        "Label Smoothing": f"{settings.label_smoothing:g}",
        "Dropout": f"{model.dropout:g}" if model.dropout else False,
        "Momentum": f"{settings.filter_momentum:g}",
        "Weight Decay": f"{optim.weight_decay:g}",
        "L1": f"{settings.l1:g}" if settings.l1 else False,
        "Val Columns": "held-out part of the training set" if "val" in images else "test set",
    }
    return "\n".join([*(f"{name}: {value}" for name, value in facts.items()), RULE, COLUMNS, RULE])


def table_cells(row: Mapping[str, Any]) -> list[str]:
    """Returns the cells of one epoch (a row of results.csv, numbers or text); Time covers training and evaluation."""
    minutes, seconds = divmod(round(float(row["train_seconds"]) + float(row["val_seconds"])), 60)
    losses = {part: f"{float(row[f'{part}_loss']):.6f}" for part in ("train", "val")}
    accuracies = {part: f"{float(row[f'{part}_accuracy']):.2%}" for part in ("train", "val")}
    time = f"{minutes:02d}m {seconds:02d}s"
    training = [losses["train"], accuracies["train"], losses["val"], accuracies["val"]]
    return [str(int(row["epoch"])), f"{float(row['lr']):.6f}", time, *training]


def table_row(row: Mapping[str, Any]) -> str:
    """Returns the line of one epoch (a row of results.csv)."""
    cells = [cell.rjust(width) for cell, width in zip(table_cells(row), WIDTHS, strict=True)]
    skipped = f" {row['skipped_steps']} steps skipped: fp16 overflow" if row["skipped_steps"] else ""
    return f"| {' | '.join(cells)} |{skipped}"


def missing_score(row: Mapping[str, Any]) -> str:
    """Returns why a class (of metrics.json) lacks a score."""
    return "no answer" if row["support"] else "no support"


def class_lines(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields the table of classes (metrics.json's): support, then precision, recall and F1 with their 95 % intervals."""
    width = max(len("class"), *map(len, classes))
    figures = ("precision", "recall", "f1")
    yield f"{'class':{width}}  {'support':>7}" + "".join(f"  {figure:>9}  {'95 % interval':16}" for figure in figures)
    for name, row in classes.items():
        cells = [
            f"  {row[figure]:9.2%}  {row[f'{figure}_interval'][0]:.2%} to {row[f'{figure}_interval'][1]:.2%}"
            if row[figure] is not None
            else f"  {missing_score(row):>9}{'':18}"
            for figure in figures
        ]
        yield f"{name:{width}}  {row['support']:7,d}{''.join(cells)}".rstrip()


def result_lines(metrics: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yields what a training came to (metrics.json), kept in the folder `place`."""
    for split in ("val", "test"):
        if split in metrics:
            figures = metrics[split]
            yield (
                f"{split}: {figures['accuracy']:.2%} of {figures['images']:,} images right, "
                f"{figures['top5_accuracy']:.2%} in the top 5, cross-entropy {figures['cross_entropy']:.4f}"
            )
            if "tta" in figures:
                yield f"{split}, {six_views(figures['tta'])}"
    yield f"trained in {metrics['train_seconds']:.1f} s, {metrics['images_per_second']:.0f} images/s; kept in {place}"


def six_views(tta: Mapping[str, float]) -> str:
    """Returns what six views came to."""
    least_sure = f"six views for the {tta['asked_again']:.0%} least sure"
    return f"{least_sure}: {tta['accuracy']:.2%} right, all answers in {tta['seconds']:.1f} s"


def evaluation_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields the figures of one split (metrics.json's): the whole, calibration, the largest confusions, each class."""
    low, high = figures["accuracy_interval"]
    yield f"top-1 accuracy  {figures['accuracy']:8.2%}  95 % interval {low:.2%} to {high:.2%}"
    yield f"top-5 accuracy  {figures['top5_accuracy']:8.2%}"
    yield f"cross-entropy   {figures['cross_entropy']:8.4f}"
    if "tta" in figures:
        yield six_views(figures["tta"])
    for key, label in (("calibration", "as trained"), ("calibration_at_temperature", "at its temperature")):
        if found := figures.get(key):
            yield (
                f"calibration {label}: ECE {found['ece']:.2%} over 15 bins of equal width, "
                f"{found['adaptive_ece']:.2%} of equal count, NLL {found['nll']:.4f}, Brier {found['brier']:.4f}"
            )
    if figures["most_confused"]:
        pairs = [f"{pair['true']} for {pair['predicted']} {pair['images']:,}" for pair in figures["most_confused"][:5]]
        yield f"most confused: {', '.join(pairs)}"
    yield from class_lines(figures["classes"])
    if len(figures["classes"]) <= MATRIX_CLASSES:
        yield from confusion_lines(figures["confusion"], list(figures["classes"]))


def confusion_lines(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Iterator[str]:
    """Yields the confusion matrix, row the true class: as images, then as % of the true class."""
    width = max(map(len, classes))
    for label in ("images", "% of the true class"):
        yield f"confusion, {label} (rows: true, columns: predicted, in the same order)"
        for name, row in zip(classes, confusion, strict=True):
            support = max(sum(row), 1)
            cells = [f"{count:7,d}" if label == "images" else f"{100 * count / support:7.1f}" for count in row]
            yield f"{name:{width}}{''.join(cells)}"
