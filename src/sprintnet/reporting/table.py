"""The article's training table, line by line."""

from collections.abc import Mapping
from typing import Any

COLUMNS = "| Epoch | LR       | Time    | TrainLoss | TrainAcc | ValLoss  | ValAcc |"
RULE = "-" * len(COLUMNS)
HEADER = f"{RULE}\n{COLUMNS}\n{RULE}"


def table_row(row: Mapping[str, Any]) -> str:
    """Returns the line of one epoch (a row of results.csv); Time covers training and evaluation."""
    minutes, seconds = divmod(round(row["train_seconds"] + row["val_seconds"]), 60)
    line = (
        f"| {row['epoch']:5d} | {row['lr']:.6f} | {minutes:02d}m {seconds:02d}s | {row['train_loss']:9.6f} "
        f"| {row['train_accuracy']:7.2%}  | {row['val_loss']:.6f} | {row['val_accuracy']:6.2%} |"
    )
    return line + (f" {row['skipped_steps']} steps skipped: fp16 overflow" if row["skipped_steps"] else "")
