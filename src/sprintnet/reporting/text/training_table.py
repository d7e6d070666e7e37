"""The training table, in the form of the article's."""

from collections.abc import Mapping
from typing import Any

from sprintnet.reporting.text.times import seconds_text

HEADS = ("Epoch", "LR", "Time", "TrainLoss", "TrainAcc", "ValLoss", "ValAcc")
WIDTHS = (5, 8, 7, 9, 8, 8, 6)
COLUMNS = f"| {' | '.join(head.ljust(width) for head, width in zip(HEADS, WIDTHS, strict=True))} |"
OF_EPOCHS = (
    "Optimizer",
    "Dropout",
    "Dropout Ratio",
    "Lr",
    "Max Lr",
    "Batch Size",
    "Momentum",
    "Weight Decay",
    "Use L1",
    "L1 Lambda",
    "Val Columns",
)
"""Facts that a run of no epochs does not have."""
RULE = "-" * len(COLUMNS)
TABLE_HEAD = f"{RULE}\n{COLUMNS}\n{RULE}"


def training_header(
    run_folder: str, settings: Any, machine: Mapping[str, Any], images: Mapping[str, int], *, multi_label: bool = False
) -> str:
    """Returns the settings, in the article's words.

    `settings` is a Config, `machine` the runtime's description, `images` the size of each split.
    """
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] != 1)
    if machine["processes"] > 1:
        threads += f" in each of {machine['processes']} processes"
    optim, schedule, model = settings.optim, settings.schedule, settings.model
    max_lr = f"{settings.peak_lr:g}"
    if settings.muon.max_lr:
        max_lr += f" (filters, Muon), {optim.scaled_to(settings.batch_size).max_lr:g} (rest, SGD)"
    facts = {
        "Run Folder": run_folder,
        "Using Device": f"{machine['gpu'] or machine['device']}, {machine['precision']}, {threads}",
        "Network": model.title,
        "Data": f"{settings.data.name}: " + ", ".join(f"{count:,} {split}" for split, count in images.items()),
        "Seed": settings.seed,
        "Optimizer": "Muon for the filters, SGD for the rest" if settings.muon.max_lr else "SGD",
        "Epochs": settings.epochs or "0, only the last layer is fitted",
        "Lr": f"{settings.peak_lr * schedule.factors[0]:g}",
        "Max Lr": f"{max_lr}, moving every {schedule.interval}",
        "Batch Size": settings.batch_size,
        "Label Smoothing": f"{settings.label_smoothing:g}",
        "Dropout": model.dropout > 0,
        "Dropout Ratio": f"{model.dropout:g}",
        "Momentum": f"{settings.filter_momentum:g}",
        "Weight Decay": f"{optim.weight_decay:g}",
        "Use L1": settings.l1 > 0,
        "L1 Lambda": f"{settings.l1:g}",
        "Val Columns": "held-out part of the training set" if "val" in images else "test set",
    }
    if not settings.epochs:
        facts = {name: value for name, value in facts.items() if name not in OF_EPOCHS}
    if multi_label:
        facts["Accuracy Columns"] = "exact match: share of images with every label right"
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def table_cells(row: Mapping[str, Any]) -> list[str]:
    """Returns the cells of an epoch (a row of results.csv, numbers or text).

    Time covers training and evaluation; below a second, which a GPU takes, it has three digits instead of the article's form.
    """
    taken = float(row["train_seconds"]) + float(row["val_seconds"])
    minutes, seconds = divmod(round(taken), 60)
    losses = {part: f"{float(row[f'{part}_loss']):.6f}" for part in ("train", "val")}
    accuracies = {part: f"{float(row[f'{part}_accuracy']):.2%}" for part in ("train", "val")}
    time = f"{minutes:02d}m {seconds:02d}s" if taken >= 1 else seconds_text(taken)
    results = [losses["train"], accuracies["train"], losses["val"], accuracies["val"]]
    return [str(int(row["epoch"])), f"{float(row['lr']):.6f}", time, *results]


def table_row(row: Mapping[str, Any]) -> str:
    """Returns the line of an epoch (a row of results.csv)."""
    cells = [cell.rjust(width) for cell, width in zip(table_cells(row), WIDTHS, strict=True)]
    skipped = f" {row['skipped_steps']} steps skipped: fp16 overflow" if row["skipped_steps"] else ""
    return f"| {' | '.join(cells)} |{skipped}"
