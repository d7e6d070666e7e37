"""Predictions for image files: one row per file, written as a table, CSV or JSON."""

import csv
import glob
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sprintnet.data.custom.folders import walk_images
from sprintnet.data.dataset import LABEL_SEPARATOR
from sprintnet.deploy.predictor import Pixels, Predictor, entries
from sprintnet.errors import DataError
from sprintnet.reporting.text.names import UNLABELLED, plain

STDIN = "-"
UNKNOWN = "unknown"  # shown for an image of probably none of the classes
Row = dict[str, Any]
"""file; predicted, the label as text (None below the minimum confidence or the class's threshold); confidence; labels, the
predicted classes, and top, the most probable ones, as lists of (class, probability); where asked for, set, in the same way,
unknown and embedding. Or file and error."""


class Listing(NamedTuple):
    """What a row says beside the prediction."""

    top: int
    """The number of most probable classes."""
    min_confidence: float = 0.0
    """Below this confidence there is no prediction."""
    coverage: float = 0.0
    """The share of images whose set of classes has the true one; 0: no set. `Predictions.sets` explains it and the next two."""
    method: str = "threshold"
    by_class: bool = False
    false_alarms: float = 0.0
    """The share of images of known classes that are taken for unknown; 0: none is. `Predictions.unknown` explains it."""
    embeddings: bool = False


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


def predict_files(predictor: Predictor, files: Iterable[Path], listing: Listing, batch: int) -> Iterator[Row]:
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
        columns: dict[str, Iterable[Any]] = {
            "predicted": found.labels,
            "confidence": found.confidences.tolist(),
            "labels": found.label_sets,
            "top": found.top(listing.top),
        }
        if listing.coverage:
            columns["set"] = found.sets(listing.coverage, listing.method, listing.by_class)
        if listing.false_alarms:
            columns["unknown"] = found.unknown(listing.false_alarms).tolist()
        if listing.embeddings:
            columns["embedding"] = found.embeddings if found.embeddings is not None else ()
        for unsure, *cells in zip(found.unsure, *columns.values(), strict=True):
            yield from unreadable()
            row = {**waiting.popleft(), **dict(zip(columns, cells, strict=True))}
            is_sure = row["confidence"] >= listing.min_confidence and not unsure and not row.get("unknown")
            yield row if is_sure else {**row, "predicted": None}
    yield from unreadable()


def write_table(rows: Iterable[Row], predictor: Predictor, out: TextIO) -> None:
    """Writes aligned lines: prediction (with a ? below the minimum confidence or its threshold), confidence, further classes,
    set, file. Multi-label: each predicted label has its probability; the most probable classes follow, predicted or not."""
    multi_label = predictor.threshold is not None
    longest = max(len(plain(name)) for name in predictor.classes)
    width = max(len("predicted"), longest + 2)
    set_width = 2 * longest + 3  # most sets have at most two classes
    first = 2 * (longest + 10) if multi_label else width  # most predictions have at most two labels
    for index, row in enumerate(rows):
        ranked = row["top"][0 if multi_label else 1 :]
        if index == 0:
            first += len(f"{UNKNOWN} ()") if "unknown" in row else 0
            heads = [f"{f'class {rank}':{width}}  {'':7}" for rank, _ in enumerate(ranked, 1 if multi_label else 2)]
            sets = [f"{'set':{set_width}}"] if "set" in row else []
            print("  ".join([f"{'predicted':{first}}  confidence", *heads, *sets, "file"]), file=out)
        labels = [f"{plain(label)} {probability:.2%}" if multi_label else plain(label) for label, probability in row["labels"]]
        predicted = (" | ".join(labels) or UNLABELLED) + (" ?" if row["predicted"] is None else "")
        if row.get("unknown"):
            predicted = f"{UNKNOWN} ({predicted.removesuffix(' ?')})"
        others = [f"{plain(label):{width}}  {probability:7.2%}" for label, probability in ranked]
        sets = [f"{set_text(row['set']):{set_width}}"] if "set" in row else []
        print("  ".join([f"{predicted:{first}}  {row['confidence']:10.2%}", *others, *sets, plain(row["file"])]), file=out)


def csv_columns(listing: Listing) -> list[str]:
    """Returns the columns of `write_csv`."""
    ranks = [f"{name}_{rank}" for rank in range(1, listing.top + 1) for name in ("class", "probability")]
    optional = {"unknown": listing.false_alarms, "set": listing.coverage}
    asked = [name for name, value in optional.items() if value]
    return ["file", "predicted", "confidence", *asked, *ranks, "error"]


def write_csv(rows: Iterable[Row], listing: Listing, out: TextIO) -> None:
    """Writes a header, then a line per file.

    `predicted` and `confidence` are the prediction, empty below the minimum confidence or its threshold, and a|b|c for several
    labels; unknown (true or false) and set (a|b|c), where asked for; class_1, probability_1, ... are the most probable classes,
    predicted or not; error is the message about a file that cannot be read.
    """
    writer = csv.DictWriter(out, csv_columns(listing), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if "error" in row:
            writer.writerow(row)
            continue
        cells = {"file": row["file"], "predicted": row["predicted"] or "", "confidence": f"{row['confidence']:.6f}"}
        if listing.false_alarms:
            cells["unknown"] = "true" if row["unknown"] else "false"
        if listing.coverage:
            cells["set"] = LABEL_SEPARATOR.join(label for label, _ in row["set"])
        for rank, (label, probability) in enumerate(row["top"], 1):
            cells |= {f"class_{rank}": label, f"probability_{rank}": f"{probability:.6f}"}
        writer.writerow(cells)


def write_json(rows: Iterable[Row], out: TextIO) -> None:
    """Writes a list of objects, one per file; of a file that cannot be read, its name and the error."""
    lists = ("labels", "top", "set")
    objects = ({key: entries(value) if key in lists else value for key, value in row.items()} for row in rows)
    print("[" + ",\n ".join(map(json.dumps, objects)) + "]", file=out)


def set_text(labels: Iterable[tuple[str, float]]) -> str:
    """Returns a set of classes as text."""
    return " | ".join(plain(label) for label, _ in labels)
