"""Predictions for image files: one row per file, written as a table, CSV or JSON."""

import csv
import glob
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from sprintnet.data.custom.folders import walk_images
from sprintnet.deploy.predictor import Pixels, Predictor, entries
from sprintnet.errors import DataError
from sprintnet.reporting.text.names import UNLABELLED, plain

STDIN = "-"
Row = dict[str, Any]
"""file; predicted, the label as text (None below the minimum confidence); confidence; labels, the predicted classes, and top,
the most probable ones, as lists of (class, probability). Or file and error."""


def find_files(words: Iterable[str], stdin: TextIO) -> Iterator[Path]:
    """Yields the files that words name: a file, a folder (what training would read, in the folders inside it too), a glob
    pattern, or - (a list on stdin). A name comes before a pattern."""
    for word in words:
        if word == STDIN:
            yield from (Path(line.removeprefix("\ufeff").rstrip("\r\n")) for line in stdin if line.strip())
        elif os.path.isdir(word):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
            yield from walk_images(Path(word))
        elif not os.path.exists(word) and (found := glob.glob(word, recursive=True)):  # noqa: PTH110, PTH207 (as above)
            yield from map(Path, sorted(found))
        else:
            yield Path(word)  # a missing file too: reading it gives the message


def predict_files(predictor: Predictor, files: Iterable[Path], top: int, min_confidence: float, batch: int) -> Iterator[Row]:
    """Yields a row per file, in order; that of a file that cannot be read has nothing but `file` and `error`, the message."""
    waiting: deque[Row] = deque()

    def readable() -> Iterator[Pixels]:
        for file in files:
            try:
                pixels = predictor.read(file)
            except DataError as error:
                waiting.append({"file": str(file), "error": str(error)})
                continue
            waiting.append({"file": str(file)})
            yield pixels

    def unreadable() -> Iterator[Row]:
        while waiting and "error" in waiting[0]:
            yield waiting.popleft()

    for found in predictor.stream(readable(), batch):
        columns = (found.labels, found.confidences.tolist(), found.label_sets, found.top(top))
        for label, confidence, labels, best in zip(*columns, strict=True):
            yield from unreadable()
            yield {
                **waiting.popleft(),
                "predicted": label if confidence >= min_confidence else None,
                "confidence": confidence,
                "labels": labels,
                "top": best,
            }
    yield from unreadable()


def write_table(rows: Iterable[Row], predictor: Predictor, out: TextIO) -> None:
    """Writes aligned lines: prediction (with a ? below the minimum confidence), confidence, further classes, file.
    Multi-label: each predicted label has its probability; the most probable classes follow, predicted or not."""
    multi_label = predictor.threshold is not None
    longest = max(len(plain(name)) for name in predictor.classes)
    width = max(len("predicted"), longest + 2)
    first = 2 * (longest + 10) if multi_label else width  # most predictions have at most two labels
    for index, row in enumerate(rows):
        ranked = row["top"][0 if multi_label else 1 :]
        if index == 0:
            heads = [f"{f'class {rank}':{width}}  {'':7}" for rank, _ in enumerate(ranked, 1 if multi_label else 2)]
            print("  ".join([f"{'predicted':{first}}  confidence", *heads, "file"]), file=out)
        labels = [f"{plain(label)} {probability:.2%}" if multi_label else plain(label) for label, probability in row["labels"]]
        predicted = (" | ".join(labels) or UNLABELLED) + (" ?" if row["predicted"] is None else "")
        others = [f"{plain(label):{width}}  {probability:7.2%}" for label, probability in ranked]
        print("  ".join([f"{predicted:{first}}  {row['confidence']:10.2%}", *others, plain(row["file"])]), file=out)


def write_csv(rows: Iterable[Row], top: int, out: TextIO, *, with_errors: bool = False) -> None:
    """Writes a header, then a line per file: `predicted` and `confidence` are the prediction, empty below the minimum
    confidence and a|b|c for several labels; class_1, probability_1, ... are the most probable classes, predicted or not;
    `with_errors`: error, the message about a file that cannot be read."""
    writer = csv.writer(out, lineterminator="\n")
    ranks = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class", "probability")]
    last = [""] if with_errors else []
    writer.writerow(["file", "predicted", "confidence", *ranks, *(["error"] if with_errors else [])])
    for row in rows:
        if "error" in row:
            writer.writerow([row["file"], "", "", *[""] * len(ranks), row["error"]])
            continue
        flat = [cell for label, probability in row["top"] for cell in (label, f"{probability:.6f}")]
        writer.writerow([row["file"], row["predicted"] or "", f"{row['confidence']:.6f}", *flat, *last])


def write_json(rows: Iterable[Row], out: TextIO) -> None:
    """Writes a list of objects, one per file."""
    objects = (json.dumps({**row, "labels": entries(row["labels"]), "top": entries(row["top"])}) for row in rows)
    print("[" + ",\n ".join(objects) + "]", file=out)
