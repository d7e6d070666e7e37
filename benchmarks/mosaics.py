"""CIFAR-10 as small files, for a machine without a network: one lossless WebP mosaic for each of its six files.

    python benchmarks/mosaics.py pack FOLDER      from the cache: 103 MB instead of 184
    python benchmarks/mosaics.py unpack FOLDER... into the cache, verified by SHA-256

A mosaic has 100 x 100 images; the labels, a byte each, are in the file of the same name ending in .labels.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from sprintnet.data.builtin import cache
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.runs.io import cache_folder, write_atomic

SIDE, TILE = 100, 32


def pack(content: bytes, file: Path) -> None:
    """Writes the images of a file of CIFAR-10 as a mosaic, and its labels."""
    records = np.frombuffer(content, np.uint8).reshape(SIDE, SIDE, 1 + 3 * TILE * TILE)
    tiles = records[:, :, 1:].reshape(SIDE, SIDE, 3, TILE, TILE)
    mosaic = tiles.transpose(0, 3, 1, 4, 2).reshape(SIDE * TILE, SIDE * TILE, 3)
    Image.fromarray(mosaic).save(file.with_suffix(".webp"), lossless=True, quality=100, method=4)
    file.with_suffix(".labels").write_bytes(records[:, :, 0].tobytes())


def unpack(mosaic: Path) -> bytes:
    """Returns the file of CIFAR-10 that a mosaic was made from."""
    with Image.open(mosaic) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(SIDE, TILE, SIDE, TILE, 3)
    records = np.empty((SIDE * SIDE, 1 + 3 * TILE * TILE), np.uint8)
    records[:, 0] = np.frombuffer(mosaic.with_suffix(".labels").read_bytes(), np.uint8)
    records[:, 1:] = pixels.transpose(0, 2, 4, 1, 3).reshape(SIDE * SIDE, -1)
    return records.tobytes()


def main() -> None:
    """Packs or unpacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    options = parser.parse_args()
    files = {file.name: file for file in BUILTIN_DATASETS["cifar10"].files}
    if options.action == "pack":
        options.folders[0].mkdir(parents=True, exist_ok=True)
        for name, content in cache.fetch("cifar10").items():
            pack(content, options.folders[0] / name)
        return
    (cache_folder() / "cifar10").mkdir(parents=True, exist_ok=True)
    for mosaic in sorted(path for folder in options.folders for path in folder.glob("*.webp")):
        name = mosaic.with_suffix(".bin").name
        write_atomic(cache_folder() / "cifar10" / name, files[name].verify(unpack(mosaic)))
        print(f"{name}: verified by SHA-256")


if __name__ == "__main__":
    main()
