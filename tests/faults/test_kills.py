"""Kills and full disks: whatever was interrupted is resumed, and ends as if nothing had happened."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import TINY
from faults.soak import IS_SOAK, record
from sprintnet.runs.io import TEMPORARY

FAULT_AT = [sys.executable, str(Path(__file__).with_name("fault_at.py"))]
SPRINTNET = [sys.executable, "-m", "sprintnet"]
TRAIN = ["train", "davidnet", *TINY, "--name", "R", "checkpoint_seconds=0", "precision=fp32"]
WITHOUT_REPORT = [*TRAIN, "--no-report"]
KILLS, PARTS, OTHERS = (50, 4, 20) if IS_SOAK else (1, 1, 1)  # kills in each part; parts run side by side
MOMENTS = None if IS_SOAK else 2  # file events at which a fault is tried; None: all
EXCHANGE = 20  # the file event after the folders have been exchanged
EXPORT_MOMENTS = [*range(1, EXCHANGE + 1), *(0.5 + 0.5 * number for number in range(30))] if IS_SOAK else [EXCHANGE]
"""File events, and seconds."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


def finished(folder: Path, *words: str) -> None:
    done = run(folder, *SPRINTNET, *words)
    assert done.returncode == 0, done.stderr


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "runs" / "train" / "R" / "weights.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float, int]:
    """The digest of the weights of an undisturbed training, its seconds and its file events, without a report."""
    finished(tmp_path_factory.mktemp("first"), *WITHOUT_REPORT)  # decodes the images, with file events of its own
    folder = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    done = run(folder, *FAULT_AT, "kill", "0", *WITHOUT_REPORT)
    assert done.returncode == 0, done.stderr
    return digest(folder), time.monotonic() - started, int(done.stderr.rpartition("events: ")[2])


@pytest.mark.parametrize("part", range(PARTS))
def test_a_training_killed_at_any_moment_loses_nothing(undisturbed: tuple[str, float, int], tmp_path: Path, part: int) -> None:
    expected, seconds, _ = undisturbed
    moments = random.Random(part)
    again = 0
    words = TRAIN if IS_SOAK else WITHOUT_REPORT
    for attempt in range(KILLS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen(
            [*SPRINTNET, *words], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0, 2 * seconds) if IS_SOAK else seconds / 2)  # the report takes as long again
        process.kill()
        again += process.wait() == -9
        finished(folder, *words, "--resume")
        assert digest(folder) == expected
        shutil.rmtree(folder)
    record("training killed at random moments, report included", tried=KILLS, killed=again)


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_fault_at_any_file_event_loses_nothing(undisturbed: tuple[str, float, int], tmp_path: Path, kind: str) -> None:
    expected, _, events = undisturbed
    moments = range(1, (events if kind == "kill" else events // 2) + 1)  # a kill has moments after a rename, too
    chosen = random.Random(kind).sample(moments, MOMENTS or len(moments))
    for moment in chosen:
        folder = tmp_path / str(moment)
        done = run(folder, *FAULT_AT, kind, str(moment), *WITHOUT_REPORT)
        assert done.returncode == (-9 if kind == "kill" else 1), done.stderr
        if kind == "full":
            assert "No space left on device" in done.stderr
            assert "Traceback" not in done.stderr
        finished(folder, *WITHOUT_REPORT, "--resume")
        assert digest(folder) == expected
        shutil.rmtree(folder)
    what = {"kill": "training killed at file events", "full": "training on a disk that is full at a write"}
    record(what[kind], tried=len(chosen), of=len(moments))


def test_an_export_killed_at_any_moment_leaves_the_old_one_or_the_new(copied_run: Path, tmp_path: Path) -> None:
    def whole() -> str:
        folder = copied_run / "export"
        done = run(tmp_path, *SPRINTNET, "predict", str(folder / "model.onnx"), str(folder / "samples"))
        assert done.returncode == 0, done.stderr
        names = {str(file.relative_to(folder)) for file in folder.rglob("*")}
        assert names >= {"README.md", "model.onnx", "model.safetensors", "parity.json", "samples"}
        return (folder / "README.md").read_text()

    command = ["export", "runs/train/R", "--license"]
    text, counts = whole(), {"old": 0, "new": 0}
    for moment in EXPORT_MOMENTS:
        license = f"mit-{moment}"
        if isinstance(moment, int):
            run(tmp_path, *FAULT_AT, "kill", str(moment), *command, license)
        else:
            process = subprocess.Popen(
                [*SPRINTNET, *command, license],
                cwd=tmp_path,
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(moment)
            process.kill()
            process.wait()
        before, text = text, whole()
        assert text == before or license in text
        counts["new" if license in text else "old"] += 1
    finished(tmp_path, *command, "last")
    assert not list(copied_run.glob(".export-*"))
    record("export killed", tried=len(EXPORT_MOMENTS), **counts)


def test_an_evaluation_killed_at_any_file_event_harms_no_other(copied_run: Path, tmp_path: Path) -> None:
    command = ["val", "runs/train/R", "--split", "test"]
    moments = range(1, 7) if IS_SOAK else [4, 5]  # after the rename, and before the folder is durable
    for moment in moments:
        assert run(tmp_path, *FAULT_AT, "kill", str(moment), *command).returncode == -9
        finished(tmp_path, *command)
    record("val killed at file events", tried=len(moments))


def test_a_fetch_killed_at_any_file_event_is_repeated(tmp_path: Path) -> None:
    def fetch(name: str, *fault: str) -> "subprocess.CompletedProcess[str]":
        environment = {**ENVIRONMENT, "SPRINTNET_CACHE": str(tmp_path / name)}
        command = [*(FAULT_AT if fault else SPRINTNET), *fault, "data", "fetch", "digits"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    undisturbed = fetch("undisturbed", "kill", "0")
    events = int(undisturbed.stderr.rpartition("events: ")[2])

    def kept(name: str) -> dict[str, bytes]:
        """Returns the files in the cache, but for what is left of a kill: a later fetch removes it once it is old."""
        files = (tmp_path / name / "digits").iterdir()
        return {file.name: file.read_bytes() for file in files if not file.name.startswith(TEMPORARY)}

    for moment in range(1, events + 1):
        assert fetch(str(moment), "kill", str(moment)).returncode == -9
        again = fetch(str(moment))
        assert again.returncode == 0, again.stderr
        assert kept(str(moment)) == kept("undisturbed")
    record("fetch killed at file events", tried=events)


@pytest.mark.parametrize("verb", ["study", "decode"] if IS_SOAK else ["decode"])
def test_other_commands_killed_at_any_moment_lose_nothing(tmp_path: Path, verb: str) -> None:
    words = ["study", "davidnet", *TINY, "--seeds", "2", "--name", "S", "checkpoint_seconds=0", "precision=fp32"]
    if verb == "decode":
        words = ["check", TINY[0]]
    environment = {**ENVIRONMENT, "SPRINTNET_CACHE": str(tmp_path / "cache")}

    def result(folder: Path) -> str:
        folder.mkdir(exist_ok=True)
        more = ["--resume"] * (verb == "study")
        done = subprocess.run(
            [*SPRINTNET, *words, *more], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        if verb == "decode":
            return done.stdout
        found = sorted(folder.glob("runs/study/S/seed-*/weights.safetensors"))
        assert len(found) == 2
        return "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in found)

    started = time.monotonic()
    expected = result(tmp_path / "undisturbed")
    seconds = time.monotonic() - started
    moments = random.Random(1)
    for attempt in range(OTHERS):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen(
            [*SPRINTNET, *words], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0.3, 1) * seconds)
        process.kill()
        process.wait()
        assert result(folder) == expected
    record(f"{verb} killed at random moments", tried=OTHERS)
