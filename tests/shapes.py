"""Multi-label images: each shows any of a red square, a green cross, a blue ring and a white bar."""

import csv
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from sprintnet.data.dataset import ImageDataset, label_text

CLASSES = ("bar", "cross", "ring", "square")
COLOURS = ((240, 240, 240), (40, 220, 40), (60, 60, 240), (230, 40, 40))
SHARES = (0.3, 0.4, 0.5, 0.6)
SIDE = 8


def shapes(count: int, seed: int) -> ImageDataset:
    """Returns grey noise uint8 (count, 32, 32, 3) with shapes at random positions, and labels (count, 4)."""
    generator = np.random.default_rng(seed)
    images = generator.integers(60, 120, (count, 32, 32, 3), dtype=np.uint8)
    labels = (generator.random((count, len(CLASSES))) < SHARES).astype(np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE] - 3.5
    distance = np.hypot(rows, columns)
    masks = (abs(rows) < 2, (abs(rows) < 1) | (abs(columns) < 1), abs(distance - 3) < 1, distance < 9)
    for image, present in zip(images, labels, strict=True):
        cells = generator.permutation(16)
        for index in np.flatnonzero(present):
            row, column = (SIDE * place for place in divmod(int(cells[index]), 4))
            image[row : row + SIDE, column : column + SIDE][masks[index]] = COLOURS[index]
    return ImageDataset(images, labels, CLASSES)


@cache
def splits() -> dict[str, ImageDataset]:
    """Returns 300 training, 100 validation and 100 test images."""
    return {"train": shapes(300, 0), "val": shapes(100, 1), "test": shapes(100, 2)}


def write_table(folder: Path, splits: dict[str, ImageDataset]) -> Path:
    """Writes images and a table of path, labels separated by | (| alone: none) and split; returns the table's path."""
    table = folder / "shapes.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split"])
        for split, part in splits.items():
            for number, (image, labels) in enumerate(zip(part.images, label_text(part.labels, CLASSES), strict=True)):
                Image.fromarray(image).save(folder / f"{split}-{number:03}.png")
                writer.writerow([f"{split}-{number:03}.png", labels or "|", split])
    return table
