"""A run's metrics and figures as TensorBoard event files."""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter  # type: ignore[import-untyped]

from sprintnet.runs.folder import RunFolder, read_epochs


class Events(AbstractContextManager["Events"]):
    """Writes event files into the run's tensorboard folder; older ones are deleted, since a resumed run repeats its rows."""

    def __init__(self, run: RunFolder):
        self.run = run
        self.writer: SummaryWriter | None = None
        self.epochs = 0

    def __exit__(self, *_error: object) -> None:
        if self.writer:
            self.writer.close()

    def row(self, row: Mapping[str, Any]) -> None:
        """Adds a row of results.csv: learning rate, losses and accuracies (0..1) by epoch."""
        if not self.writer:
            shutil.rmtree(self.run.tensorboard, ignore_errors=True)
            self.writer = SummaryWriter(str(self.run.tensorboard), write_to_disk=True)
        self.epochs = int(row["epoch"])
        self.writer.add_scalar("lr", float(row["lr"]), self.epochs)
        for metric in ("loss", "accuracy"):
            for part in ("train", "val"):
                self.writer.add_scalar(f"{metric}/{part}", float(row[f"{part}_{metric}"]), self.epochs)
        self.writer.flush()

    def figures(self) -> None:
        """Adds the figures of the plots folder, and the rows of a run that had finished before."""
        if not self.writer:
            for row in read_epochs(self.run):
                self.row(row)
        assert self.writer
        for path in sorted(self.run.plots.glob("*.png")):
            with Image.open(path) as image:
                self.writer.add_image(path.stem, np.asarray(image.convert("RGB")), self.epochs, dataformats="HWC")
