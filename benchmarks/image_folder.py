"""Writes a built-in dataset as its users' own images: PNG files in train/<class>/* and test/<class>/*.

    python benchmarks/image_folder.py fashion-mnist my/fashion-mnist
    python benchmarks/image_folder.py cifar10 my/cifar10-500 --images 500

A model of some of the training images can then be judged by all test images.
"""

import argparse
from pathlib import Path

from PIL import Image

from few_images import subset
from sprintnet.data.builtin import cache
from sprintnet.data.dataset import ImageDataset


def write_image_files(folder: Path, train: ImageDataset, test: ImageDataset) -> Path:
    """Writes the files where they are missing; returns the folder."""
    if not (folder / ".complete").exists():
        for part, images in (("train", train), ("test", test)):
            classes = [folder / part / name.replace("/", "-") for name in images.classes]
            for path in classes:
                path.mkdir(parents=True, exist_ok=True)
            for index, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
                Image.fromarray(image.squeeze()).save(classes[label] / f"{index:05}.png")
        (folder / ".complete").touch()
    return folder


def main() -> None:
    """Writes a dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=0, help="training images of each class (default: all)")
    options = parser.parse_args()
    train, test = cache.load(options.dataset)
    if options.images:
        train = train.take(subset(train.labels, options.images, seed=0))
    print(f"{write_image_files(options.folder, train, test)}: {len(train):,} training images, {len(test):,} test images")


if __name__ == "__main__":
    main()
