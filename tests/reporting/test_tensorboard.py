"""Event files as TensorBoard reads them: scalars as in results.csv, every figure an image."""

import io
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import Command
from sprintnet.runs.folder import RunFolder, read_rows


@pytest.mark.parametrize("again", [False, True])
def test_tensorboard_reads_the_rows_and_figures_of_a_run(
    sprintnet: Command, tmp_path: Path, tiny: list[str], again: bool
) -> None:
    done = sprintnet("train", "davidnet", *tiny, "--tensorboard")
    assert done.returncode == 0, done.stderr
    if again:
        done = sprintnet("train", "davidnet", *tiny, "--tensorboard", "--resume")
        assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "runs" / "train" / "davidnet")
    events = EventAccumulator(str(run.tensorboard), size_guidance={"images": 0})
    events.Reload()
    rows = read_rows(run.results)
    for tag, column in (("lr", "lr"), ("loss/train", "train_loss"), ("accuracy/val", "val_accuracy")):
        scalars = events.Scalars(tag)
        assert [entry.step for entry in scalars] == [1, 2]
        assert [entry.value for entry in scalars] == pytest.approx([float(row[column]) for row in rows], rel=1e-6)
    assert set(events.Tags()["images"]) == {path.stem for path in run.plots.iterdir() if path.suffix != ".svg"}
    first = events.Images("confusion_matrix")[0]
    with Image.open(io.BytesIO(first.encoded_image_string)) as kept, Image.open(run.plots / "confusion_matrix.png") as drawn:
        assert kept.size == drawn.size
