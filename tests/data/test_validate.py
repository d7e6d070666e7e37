"""`sprintnet check`: the counts and all problems, each with its path; the exit code says whether the data can be used."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from conftest import SAMPLE, Command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "data"))


def test_a_sound_folder_is_counted(sprintnet: Command, folder: Path, tmp_path: Path) -> None:
    done = sprintnet("check", str(folder), "--output", "problems.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "problems.csv").read_text() == "path,kind,text,severity\n"
    assert "300 labelled images of 10 classes" in done.stdout
    assert "size: 32x32 (300)" in done.stdout
    assert re.search(r"^all +200 +100$", done.stdout, re.MULTILINE)
    assert "no problems found\n" in done.stdout


def test_problems_are_listed_with_path_by_severity(sprintnet: Command, folder: Path, tmp_path: Path) -> None:
    cats = folder / "train" / "cat"
    files = sorted(cats.iterdir())
    for file in files[5:]:
        file.unlink()
    files[0].write_bytes(files[0].read_bytes()[:-40])
    shutil.copy(files[1], folder / "test" / "dog" / "copy.png")
    Image.open(files[2]).resize((40, 40)).save(cats / "larger.png")
    Image.open(files[3]).convert("L").save(cats / "x.bmp")
    (cats / "x.bmp").rename(cats / "grey.png")
    done = sprintnet("check", str(folder), "--output", "problems.csv")
    assert done.returncode == 3
    assert done.stderr.endswith("1 problem to fix before training, listed above\n")
    with (tmp_path / "problems.csv").open() as stream:
        rows = {(row["kind"], Path(row["path"]).name): row for row in csv.DictReader(stream)}
    assert rows["unreadable", files[0].name]["severity"] == "skippable"
    assert rows["wrong suffix", "grey.png"]["text"].startswith("contains a BMP")
    assert rows["duplicate across splits", files[1].name]["text"].endswith("copy.png, under another label")
    assert rows["duplicate across splits", files[1].name]["severity"] == "warning"
    assert ("near duplicate", files[2].name) in rows
    pairs = sprintnet("check", str(folder), "--pairs", "pairs.png")
    assert "pairs of near duplicates, the least alike first: pairs.png" in pairs.stdout
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.width > 100
    assert rows["small class", "cat"]["text"] == "has 6 training images; add some: 10 are few"
    titles = "must be fixed, or skipped with data.skip_bad=true", "most likely wrong: look at these", "for information"
    assert sorted(titles, key=done.stdout.index) == list(titles)
    assert "size: 32x32 (286), 40x40 (1)" in done.stdout
    skipped = sprintnet("check", str(folder), "data.size=32")
    assert skipped.returncode == 3


def test_training_stops_for_the_same_problems_unless_they_are_skipped(sprintnet: Command, folder: Path) -> None:
    broken = next((folder / "train" / "cat").iterdir())
    broken.write_bytes(b"")
    tiny = ["model.width=4", "epochs=1", "batch_size=32", "threads=1", "--no-report"]
    done = sprintnet("train", "davidnet", "--data", str(folder), *tiny)
    assert done.returncode == 3
    assert "1 problem; nothing was started" in done.stderr
    assert f"{broken}: is empty" in done.stderr
    done = sprintnet("train", "davidnet", "--data", str(folder), "data.skip_bad=true", *tiny)
    assert done.returncode == 0
    assert "data: left out (data.skip_bad): 1" in done.stdout


def test_only_val_reads_the_test_set_and_each_access_is_recorded(sprintnet: Command, folder: Path, tmp_path: Path) -> None:
    tiny = ["model.width=4", "epochs=1", "batch_size=32", "threads=1", "--no-report", "--name", "x"]
    sprintnet("train", "davidnet", "--data", str(folder), *tiny)
    run = tmp_path / "runs" / "train" / "x"
    assert not (run / "test_access.csv").exists()
    assert "test" not in (run / "metrics.json").read_text()
    for _ in range(2):
        assert "accuracy " in sprintnet("val", str(run), "--split", "test").stdout
    with (run / "test_access.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["command"], row["images"]) for row in rows] == [("val --split test", "100")] * 2
    assert "x: val, 20 images" in sprintnet("val", str(run)).stdout
    assert len((run / "test_access.csv").read_text().splitlines()) == 3
    first, second, *_ = sorted((folder / "test" / "cat").iterdir())
    shutil.copy(first, second)
    done = sprintnet("val", str(run), "--split", "test")
    assert done.returncode == 2
    assert "--split test: these are not the splits that" in done.stderr
    assert len((run / "test_access.csv").read_text().splitlines()) == 3
    assert "is a folder; name a file in it" in sprintnet("check", str(folder), "--output", str(tmp_path)).stderr


def test_a_run_without_a_test_set_says_what_it_has(sprintnet: Command, folder: Path) -> None:
    tiny = ["model.width=4", "epochs=1", "batch_size=32", "threads=1", "--no-report", "--name", "y"]
    sprintnet("train", "davidnet", "--data", str(folder / "train"), "data.test=0", *tiny)
    done = sprintnet("val", "runs/train/y", "--split", "test")
    assert done.returncode == 2
    assert "--split test: this run has train, val" in done.stderr


def test_an_unknown_dataset_gives_a_message(sprintnet: Command) -> None:
    done = sprintnet("check", "nowhere")
    assert (done.returncode, done.stdout) == (3, "")
    assert "data.name=nowhere: no built-in dataset (cifar10" in done.stderr
