"""The training table in the article's form."""

from pathlib import Path

from sprintnet.config import load_config
from sprintnet.reporting.text.training_table import COLUMNS, RULE, table_row, training_header

ARTICLE = (Path(__file__).parents[1] / "reference" / "article_training.txt").read_text().splitlines()


def row(line: str) -> dict[str, float]:
    """Reads a line of the article back into a row of results.csv."""
    epoch, lr, _, train_loss, train_accuracy, val_loss, val_accuracy = [cell.strip() for cell in line.strip("|").split("|")]
    return {
        "epoch": int(epoch),
        "lr": float(lr),
        "train_loss": float(train_loss),
        "train_accuracy": float(train_accuracy.strip("% ")) / 100,
        "val_loss": float(val_loss),
        "val_accuracy": float(val_accuracy.strip("% ")) / 100,
        "train_seconds": 5.2,
        "val_seconds": 0.6,
        "skipped_steps": 0,
    }


def test_the_articles_rows_keep_their_figures_and_columns() -> None:
    for line in ARTICLE:
        printed = table_row(row(line))
        assert len(printed) == len(line) == len(COLUMNS) == len(RULE)
        assert [position for position, letter in enumerate(printed) if letter == "|"] == [
            position for position, letter in enumerate(line) if letter == "|"
        ]
        # the article pads "65.82  %" and drops zeros ("79.9"); the figures are the same
        assert row(printed) == row(line)


def test_minutes_and_skipped_steps_are_shown() -> None:
    slow = row(ARTICLE[0]) | {"train_seconds": 200.0, "val_seconds": 20.2, "skipped_steps": 3}
    assert "| 03m 40s |" in table_row(slow)
    assert table_row(slow).endswith("| 3 steps skipped: fp16 overflow")


def test_the_header_states_the_articles_settings() -> None:
    machine = {"gpu": None, "device": "cpu", "precision": "bf16", "threads": 2, "processes": 1}
    lines = training_header("runs/train/x", load_config("davidnet"), machine, {"train": 50_000, "test": 10_000}).splitlines()
    for line in (
        "Epochs: 24",
        "Lr: 0.045",
        "Batch Size: 512",
        "Momentum: 0.9",
        "Max Lr: 0.45, moving every step",
        "Weight Decay: 0.0005",
        "Dropout: False",
        "Dropout Ratio: 0",
        "Use L1: False",
        "L1 Lambda: 0",
    ):
        assert line in lines
    assert "Val Columns: test set" in lines
