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

FAULT_AT = [sys.executable, str(Path(__file__).with_name("fault_at.py"))]
SPRINTNET = [sys.executable, "-m", "sprintnet"]
TRAIN = ["train", "davidnet", *TINY, "--name", "R", "checkpoint_seconds=0", "precision=fp32"]
KILLS = 200 if IS_SOAK else 3
EXPORTS = 50 if IS_SOAK else 4
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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """The digest of the weights of an undisturbed training, and its seconds, report included."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finished(folder, *TRAIN)
    shutil.rmtree(folder / "runs")
    started = time.monotonic()
    finished(folder, *TRAIN)
    return digest(folder), time.monotonic() - started


def test_a_training_killed_at_any_moment_loses_nothing(undisturbed: tuple[str, float], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    moments = random.Random(0)
    again = 0
    for attempt in range(KILLS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen(
            [*SPRINTNET, *TRAIN], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0, seconds))
        process.kill()
        again += process.wait() == -9
        finished(folder, *TRAIN, "--resume")
        assert digest(folder) == expected
        assert not list((folder / "runs").rglob(".sprintnet-*"))
        shutil.rmtree(folder)
    record("training killed at random moments", tried=KILLS, killed=again, lost=0)


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_fault_at_any_file_event_loses_nothing(undisturbed: tuple[str, float], tmp_path: Path, kind: str) -> None:
    moment, tried = 0, 0
    while True:
        moment += 1 if IS_SOAK else random.Random(f"{kind} {moment}").choice([7, 13, 19])
        folder = tmp_path / str(moment)
        done = run(folder, *FAULT_AT, kind, str(moment), *TRAIN)
        if done.returncode == 0:
            break
        assert done.returncode == (-9 if kind == "kill" else 1), done.stderr
        if kind == "full":
            assert "No space left on device" in done.stderr
            assert "Traceback" not in done.stderr
        finished(folder, *TRAIN, "--resume")
        assert digest(folder) == undisturbed[0]
        shutil.rmtree(folder)
        tried += 1
    assert tried > 1
    record(
        {"kill": "training killed at file events", "full": "training on a disk that is full at a write"}[kind],
        tried=tried,
        lost=0,
    )


def test_an_export_killed_at_any_moment_leaves_the_old_one_or_the_new(copied_run: Path, tmp_path: Path) -> None:
    def whole() -> str:
        folder = copied_run / "export"
        done = run(tmp_path, *SPRINTNET, "predict", str(folder / "model.onnx"), str(folder / "samples"))
        assert done.returncode == 0, done.stderr
        names = {str(file.relative_to(folder)) for file in folder.rglob("*")}
        assert names >= {"README.md", "model.onnx", "model.safetensors", "parity.json", "samples"}
        return (folder / "README.md").read_text()

    command = ["export", "runs/train/R", "--license"]
    started = time.monotonic()
    finished(tmp_path, *command, "first")
    seconds = time.monotonic() - started
    texts = {"first": whole()}
    moments, counts = random.Random(0), {"old": 0, "new": 0}
    for attempt in range(EXPORTS):
        license = f"mit-{attempt}"
        if attempt % 2:  # at the file events, of which there are few
            assert run(tmp_path, *FAULT_AT, "kill", str(1 + attempt // 2), *command, license).returncode in (-9, 0)
        else:
            process = subprocess.Popen(
                [*SPRINTNET, *command, license],
                cwd=tmp_path,
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(moments.uniform(0.5, 1.05) * seconds)
            process.kill()
            process.wait()
        text = whole()
        is_new = f'license: "{license}"' in text or f"license: {license}" in text
        assert is_new or text == texts["first"]
        texts["first"] = text
        counts["new" if is_new else "old"] += 1
    finished(tmp_path, *command, "last")
    assert not list(copied_run.glob(".export-*"))
    record("export killed", tried=EXPORTS, **counts)


@pytest.mark.parametrize("verb", ["study", "decode"])
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
    moments, tries = random.Random(1), 20 if IS_SOAK else 1
    for attempt in range(tries):
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
    record(f"{verb} killed at random moments", tried=tries, lost=0)
