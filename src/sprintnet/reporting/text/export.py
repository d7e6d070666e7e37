"""The parity table of exported files, as lines for the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from sprintnet.reporting.text.names import plain
from sprintnet.reporting.text.table import table_lines
from sprintnet.reporting.text.task_scores import FEW_IMAGES, calibration_error


def parity_lines(table: Mapping[str, Any]) -> Iterator[str]:
    """Yields parity.json's table: size, accuracy, agreement with PyTorch and speed of each file, and PyTorch's speed."""
    rows, batch = [], largest_batch(table)
    for name, row in [*table["files"].items(), *table["pytorch"].items()]:
        cells = ["", "", "", "", ""]
        if "bytes" in row:
            error = calibration_error(row["metrics"]["ece"], row["images"])
            shares = [f"{row['accuracy']:.2%}", error, f"{row['agreement']:.2%}"]
            cells = [f"{row['bytes'] / 1e6:.1f}", *shares, f"{row['largest_difference']:.1e}"]
        speed = [f"{row['ms_1']:.2f}", f"{row['ms_p99_1']:.2f}", f"{row[f'images_per_second_{batch}']:,.0f}"]
        rows.append([name, *cells, *speed])
    yield from table_lines(["file", "MB", "accuracy", "ECE", "agreement", "max. diff.", "ms/image", "p99", "images/s"], rows)
    images = next(iter(table["files"].values()))["images"]
    yield (
        f"accuracy and ECE: of the file, on {images:,} images, in fp32 unless its name says otherwise; the run's are in "
        "that of its training"
    )
    if images < FEW_IMAGES:
        yield f"{images:,} images are too few to measure the ECE, or how much a smaller file's predictions differ"
    if not table["hardware"]["idle"]:
        yield "caution: other processes kept cores busy: export again on an idle machine to measure the speed"
    yield f"agreement and max. diff. (of a probability): against PyTorch; ms/image: batch size 1; images/s: batch size {batch}"


def largest_batch(table: Mapping[str, Any]) -> int:
    """Returns the number of images of the larger batch that parity.json has the speed of."""
    return int(next(iter(table["files"].values()))["largest_batch"])


def threshold_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yields how a file with thresholds (`metrics` of parity.json) predicts; nothing for another."""
    if "thresholds" not in metrics:
        return
    found = metrics["thresholds"]
    cells = [
        [
            row["class"],
            f"{row['threshold']:.3f}",
            f"{row['predictions']:,}",
            *(_share(row, score) for score in ("precision", "recall")),
        ]
        for row in found["rows"]
    ]
    yield ""
    yield from table_lines(["class", "threshold", "predictions", "precision", "recall"], cells)
    same = " (they also chose the thresholds: an optimistic estimate)" if metrics["split"] == "validation" else ""
    yield f"thresholds: on {found['images']:,} {metrics['split']} images{same}, {found['unsure']:.2%} of them unsure"
    if missed := missed_precision(found):
        yield f"{missed}; to miss fewer, ask for more, or hold more images out (data.val)"
    if never := [row["class"] for row in found["rows"] if row["threshold"] >= 1]:
        yield f"never predicted, as no threshold is high enough: {', '.join(map(plain, never))}"


def missed_precision(found: Mapping[str, Any]) -> str:
    """Returns which classes are surely less precise than was asked for; empty: none. Thresholds that few images chose often
    are: the lowest that passes on those images is taken."""
    asked = found.get("min_precision", 0.0)
    low = [row["class"] for row in found["rows"] if row["precision"] is not None and row["precision_interval"][1] < asked]
    return f"less precise than the {asked:.0%} asked for: {', '.join(map(plain, low))}" if low else ""


def _share(row: Mapping[str, Any], score: str) -> str:
    if row[score] is None:
        return "-"
    low, high = row[f"{score}_interval"]
    return f"{row[score]:.2%} ({100 * low:.1f} to {100 * high:.1f})"
