"""Damaged files of a run: whichever file has changed, it is named, and nothing is shown from it."""

import random
import shutil
from pathlib import Path

import pytest

from conftest import TINY, Command, call
from sprintnet.runs.folder import RunFolder

READERS = {  # each file of a finished run, and a command that reads it
    "config.toml": ("val", "R"),
    "resolved.toml": ("report", "R"),
    "environment.json": ("report", "R"),
    "data.json": ("val", "R", "--split", "test"),
    "splits.csv": ("val", "R"),
    "results.csv": ("report", "R"),
    "predictions.csv": ("report", "R"),
    "artifacts.npz": ("report", "R"),
    "network.json": ("report", "R"),
    "metrics.json": ("report", "R"),
    "weights.safetensors": ("val", "R"),
    "predictions.npz": ("report", "R"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose test set has been looked at."""
    folder = tmp_path_factory.mktemp("finished")
    for words in (["train", "davidnet", *TINY, "epochs=1", "--name", "R"], ["val", "runs/train/R", "--split", "test"]):
        done = call(folder, *words)
        assert done.returncode == 0, done.stderr
    return RunFolder(folder / "runs" / "train" / "R")


def test_the_files_of_a_run_match_its_checksums(finished: RunFolder, tmp_path: Path) -> None:
    lines = (finished.path / "checksums.txt").read_text().splitlines()
    listed = {line.split("  ")[1] for line in lines[:-1]}
    kept = {path.name for path in finished.path.iterdir() if path.is_file() and not path.name.startswith(".")}
    written_again = {"checksums.txt", "report.html", "log.txt", "explanations.npz", "test_access.csv"}
    assert listed == kept - written_again
    assert listed == READERS.keys()


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_named(finished: RunFolder, sprintnet: Command, tmp_path: Path, name: str) -> None:
    run = tmp_path / "runs" / "train" / "R"
    shutil.copytree(finished.path, run)
    content, generator = (run / name).read_bytes(), random.Random(name)
    for damage in ("bit", "bit", "cut", "empty"):
        changed = bytearray(content)
        if damage == "bit":
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        (run / name).write_bytes({"bit": changed, "cut": content[: len(content) // 2], "empty": b""}[damage])
        done = sprintnet(*READERS[name])
        assert done.returncode == 2, (damage, done.stdout)
        assert name in done.stderr
        assert "damaged" in done.stderr or "not a weights file" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["config.toml", "weights.safetensors"])
def test_a_finished_run_that_lacks_a_file_cannot_be_resumed(
    finished: RunFolder, sprintnet: Command, tmp_path: Path, name: str
) -> None:
    run = Path(shutil.copytree(finished.path, tmp_path / "runs" / "train" / "R"))
    (run / name).unlink()
    done = sprintnet("val", "R")
    assert done.returncode == 2
    assert f"{name} missing; the run is damaged: restore it from a copy, or train again under another --name" in done.stderr


def test_a_file_that_was_changed_on_purpose_is_used_without_checksums(
    finished: RunFolder, sprintnet: Command, tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "R")))
    run.config.write_text(run.config.read_text() + "# moved\n")
    done = sprintnet("val", str(run.path))
    assert "its content does not match checksums.txt, which can be removed if the change was meant" in done.stderr
    (run.path / "checksums.txt").unlink()
    assert sprintnet("val", str(run.path)).returncode == 0


@pytest.mark.parametrize("damage", ["bit", "cut", "empty"])
def test_damaged_checksums_are_named(finished: RunFolder, sprintnet: Command, tmp_path: Path, damage: str) -> None:
    run = Path(shutil.copytree(finished.path, tmp_path / "runs" / "train" / "R"))
    content = bytearray((run / "checksums.txt").read_bytes())
    content[3] ^= 1
    changed = {"bit": bytes(content), "cut": bytes(content[:200]), "empty": b""}[damage]
    (run / "checksums.txt").write_bytes(changed)
    done = sprintnet("report", "R")
    assert done.returncode == 2
    assert "cannot be checked: checksums.txt was changed (its last line says so); remove it to go without" in done.stderr
