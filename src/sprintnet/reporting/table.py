"""The article's training table, line by line."""

from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = "| Epoch | LR       | Time    | TrainLoss | TrainAcc | ValLoss  | ValAcc |"
RULE = "-" * len(COLUMNS)


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


def table_row(row: Mapping[str, Any]) -> str:
    """Returns the line of one epoch (a row of results.csv); Time covers training and evaluation."""
    minutes, seconds = divmod(round(row["train_seconds"] + row["val_seconds"]), 60)
    line = (
        f"| {row['epoch']:5d} | {row['lr']:.6f} | {minutes:02d}m {seconds:02d}s | {row['train_loss']:9.6f} "
        f"| {row['train_accuracy']:8.2%} | {row['val_loss']:.6f} | {row['val_accuracy']:6.2%} |"
    )
    return line + (f" {row['skipped_steps']} steps skipped: fp16 overflow" if row["skipped_steps"] else "")


def class_lines(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields the table of classes (metrics.json's): support, then precision, recall and F1 with their 95 % intervals."""
    width = max(len("class"), *map(len, classes))
    figures = ("precision", "recall", "f1")
    yield f"{'class':{width}}  {'support':>7}" + "".join(f"  {figure:>9}  {'95 % interval':16}" for figure in figures)
    for name, row in classes.items():
        cells = [
            f"  {row[figure]:9.2%}  {row[f'{figure}_interval'][0]:.2%} to {row[f'{figure}_interval'][1]:.2%}"
            if row[figure] is not None
            else f"  {'no answer' if row['support'] else 'no support':>9}{'':18}"
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
            if tta := figures.get("tta"):
                yield (
                    f"{split}, six views for the {tta['asked_again']:.0%} least sure: {tta['accuracy']:.2%} right, "
                    f"all answers in {tta['seconds']:.1f} s"
                )
    yield f"trained in {metrics['train_seconds']:.1f} s, {metrics['images_per_second']:.0f} images/s; kept in {place}"


def evaluation_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields the figures of one split (metrics.json's): the whole, then each class."""
    low, high = figures["accuracy_interval"]
    yield f"top-1 accuracy  {figures['accuracy']:8.2%}  95 % interval {low:.2%} to {high:.2%}"
    yield f"top-5 accuracy  {figures['top5_accuracy']:8.2%}"
    yield f"cross-entropy   {figures['cross_entropy']:8.4f}"
    yield from class_lines(figures["classes"])
