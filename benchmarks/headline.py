"""Writes the README's table of measured trainings, and its picture, from benchmarks/results.

    python benchmarks/headline.py

Each file named here gives its newest row (benchmarks/record.py makes them); the table goes between the two marks in README.md.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from sprintnet.reporting.curves import accuracy_over_time
from sprintnet.reporting.style import save

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ROWS = {
    "sprint94": "`train` (sprint94)",
    "smoke": "`train smoke`",
    "davidnet-24-epochs": "`train davidnet`, 24 epochs, earlier augmentation and staircase",
    "davidnet-3-epochs-by-step": "`train davidnet epochs=3 schedule.interval=step`, earlier augmentation",
    "sprint94-gpu": "`train` (sprint94) on a GPU",
    "davidnet-24-epochs-gpu": "`train davidnet` on a GPU",
}
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
HEAD = "| command | hardware | n | accuracy, plain | with six views | training | six views | images/s |\n|" + "---|" * 8


def newest(name: str) -> dict[str, Any] | None:
    """Returns the newest row of a result file, None where there is none."""
    path = RESULTS / f"{name}.jsonl"
    row: dict[str, Any] | None = json.loads(path.read_text("utf-8").splitlines()[-1]) if path.exists() else None
    return row


def share(figures: dict[str, float] | None) -> str:
    """Returns a mean of shares with its standard deviation."""
    if not figures:
        return "-"
    spread = f" (sd {100 * figures['sd']:.2f})" if figures["sd"] is not None else ""
    return f"{figures['mean']:.2%}{spread}"


def line(command: str, row: dict[str, Any] | None) -> str:
    """Returns the table's line about a row."""
    if row is None:
        return f"| {command} | any | 0 | not measured | | | | |"
    hardware = row["gpu"] or f"{row['cores']} cores, {row['cpu']}"
    views = row.get("six_views")
    seconds = f"{views['seconds']['mean']:.0f} s" if views else "-"
    return (
        f"| {command} | {hardware}, {row['precision']} | {row['n']} | {share(row['test_accuracy'])} "
        f"| {share(views['accuracy'] if views else None)} | {row['train_seconds']['mean']:.0f} s | {seconds} "
        f"| {row['images_per_second']['mean']:,.0f} |"
    )


def main() -> None:
    """Replaces the table and the picture."""
    rows = {name: newest(name) for name in ROWS}
    table = "\n".join([HEAD, *(line(command, rows[name]) for name, command in ROWS.items())])
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    readme.write_text(f"{text[:start]}\n{table}\n{text[end:]}", "utf-8")
    curves = {}
    for name, row in rows.items():
        if row and "epoch_train_seconds" in row:  # the first seed's
            epochs = zip(row["epoch_train_seconds"][0], row["epoch_val_accuracy"][0], strict=True)
            curves[name] = [{"train_seconds": seconds, "val_accuracy": accuracy} for seconds, accuracy in epochs]
    save(partial(accuracy_over_time, curves, 0.94), ROOT / "docs" / "accuracy_over_time").unlink()  # the page shows the SVGs


if __name__ == "__main__":
    main()
