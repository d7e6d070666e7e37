"""The files that a user names, answered one row a file; what cannot be read is set aside."""

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from sprintnet.data.images import SUFFIXES
from sprintnet.deploy.predictor import Pixels, Predictor, in_batches
from sprintnet.errors import DataError
from sprintnet.reporting.text.names import UNLABELLED, plain

STDIN = "-"
Row = dict[str, Any]
"""file; answer, as text (None below the confidence asked for); its confidence; labels, the classes of the answer, and top, the
likeliest, as lists of (class, probability)."""


def find_files(words: Iterable[str], stdin: TextIO) -> Iterator[Path]:
    """Yields the files that words name: a file, a folder (its images, however deep), a pattern, or - (a list on stdin)."""
    for word in words:
        if word == STDIN:
            yield from (Path(line.rstrip("\n")) for line in stdin if line.strip())
        elif os.path.isdir(word):  # noqa: PTH112 (a name that is too long is none, and no error)
            yield from sorted(file for file in Path(word).rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        elif glob.has_magic(word) and (found := glob.glob(word, recursive=True)):  # noqa: PTH207 (a Path knows no pattern)
            yield from map(Path, sorted(found))
        else:
            yield Path(word)  # also what is not there, or matches nothing: reading it says so


def predict_files(
    predictor: Predictor, files: Sequence[Path], top: int, least_confidence: float, batch: int, mistakes: list[str]
) -> Iterator[Row]:
    """Yields a row a file, in order; a message for each file that cannot be read goes to `mistakes`."""

    def readable() -> Iterator[tuple[Path, Pixels]]:
        for file in files:
            try:
                yield file, predictor.read(file)
            except DataError as error:
                mistakes.append(str(error))

    for part in in_batches(readable(), batch):
        found = predictor([pixels for _, pixels in part], batch)
        columns = (found.labels, found.confidences.tolist(), found.label_sets, found.top(top))
        for (file, _), answer, confidence, labels, best in zip(part, *columns, strict=True):
            yield {
                "file": str(file),
                "answer": answer if confidence >= least_confidence else None,
                "confidence": confidence,
                "labels": labels,
                "top": best,
            }


def write_table(rows: Iterable[Row], predictor: Predictor, out: TextIO) -> None:
    """Writes aligned lines: answer (with a ? where it is below the confidence asked for), confidence, other classes, file.

    The labels of a multi-label network stand with their probabilities; the likeliest classes follow, answered or not.
    """
    several = predictor.threshold is not None
    longest = max(len(plain(name)) for name in predictor.classes)
    width = max(len("answer"), longest + 2)
    first = 2 * (longest + 10) if several else width  # most answers have no more than two labels
    for index, row in enumerate(rows):
        ranked = row["top"] if several else row["top"][1:]
        if index == 0:
            heads = [f"{'class' if several else 'or':{width}}  {'':>7}" for _ in ranked]
            print("  ".join([f"{'answer':{first}}  {'whole' if several else '':>7}", *heads, "file"]), file=out)
        labels = [f"{plain(label)} {share:.2%}" if several else plain(label) for label, share in row["labels"]]
        answer = (" | ".join(labels) or UNLABELLED) + (" ?" if row["answer"] is None else "")
        others = [f"{plain(label):{width}}  {probability:7.2%}" for label, probability in ranked]
        cells = [f"{answer:{first}}  {row['confidence']:7.2%}", *others, plain(row["file"])]
        print("  ".join(cells), file=out)


def write_csv(rows: Iterable[Row], top: int, out: TextIO) -> None:
    """Writes a header, then a line a file; the answer is empty below the confidence asked for."""
    writer = csv.writer(out, lineterminator="\n")
    ranks = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class", "probability")]
    writer.writerow(["file", "answer", "confidence", *ranks])
    for row in rows:
        flat = [cell for label, probability in row["top"] for cell in (label, f"{probability:.6f}")]
        writer.writerow([row["file"], row["answer"] or "", f"{row['confidence']:.6f}", *flat])


def write_json(rows: Iterable[Row], out: TextIO) -> None:
    """Writes a list of objects, one a file."""
    separator = "[\n"
    for row in rows:
        lists = {
            key: [{"class": label, "probability": probability} for label, probability in row[key]] for key in ("labels", "top")
        }
        print(separator + json.dumps({**row, **lists}), end="", file=out)
        separator = ",\n"
    print("[]" if separator == "[\n" else "\n]", file=out)
