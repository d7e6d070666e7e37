"""A run's scalars and figures as TensorBoard's event files."""

import shutil
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter  # type: ignore[import-untyped]

from sprintnet.runs.folder import RunFolder, read_rows


class Events:
    """Writes into a run's tensorboard folder; older events go with the first row, since a resumed run repeats its rows."""

    def __init__(self, run: RunFolder):
        self.run = run
        self.writer: SummaryWriter | None = None
        self.epochs = 0

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.writer:
            self.writer.close()

    def row(self, row: Mapping[str, Any]) -> None:
        """Adds a row of results.csv: learning rate, losses and accuracies (0..1) by epoch."""
        if not self.writer:
            shutil.rmtree(self.run.tensorboard, ignore_errors=True)
            self.writer = SummaryWriter(str(self.run.tensorboard), write_to_disk=True)
        self.epochs = int(row["epoch"])
        self.writer.add_scalar("lr", float(row["lr"]), self.epochs)
        for figure in ("loss", "accuracy"):
            for part in ("train", "val"):
                self.writer.add_scalar(f"{figure}/{part}", float(row[f"{part}_{figure}"]), self.epochs)
        self.writer.flush()

    def figures(self) -> None:
        """Adds the rows of a run that was finished before, and every figure of its plots folder."""
        if not self.writer:
            for row in read_rows(self.run.results):
                self.row(row)
        assert self.writer
        for path in sorted([*self.run.plots.glob("*.png"), *self.run.plots.glob("*.jpg")]):
            with Image.open(path) as picture:
                self.writer.add_image(path.stem, np.asarray(picture.convert("RGB")), self.epochs, dataformats="HWC")
