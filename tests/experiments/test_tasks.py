"""Several runs at a time, in processes of their own: the bits of one after another, killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, Command
from sprintnet import datasets, studies
from sprintnet.config import load_config, parse_config
from sprintnet.errors import ArgumentError
from sprintnet.experiments import tasks

STUDY = ["study", "davidnet", *TINY, "--seeds", "3", "checkpoint_seconds=0"]
SLOW = [*STUDY[:-1], "epochs=30", "checkpoint_seconds=1"]


def weights(study: Path) -> list[bytes]:
    return [(study / f"seed-{seed}" / "weights.safetensors").read_bytes() for seed in range(3)]


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "sprintnet", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.02)


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Returns the processes of a study's runs."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    return list(map(int, found.split()))


def is_alive(process: int) -> bool:
    """Returns whether a process runs; one that has ended and was not waited for (a zombie) does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_at_a_time_end_in_the_bits_of_one_after_another(sprintnet: Command, tmp_path: Path) -> None:
    together = sprintnet(*STUDY, "--jobs", "2", "--name", "together")
    assert together.returncode == 0, together.stderr
    assert "2 runs at a time; what each prints: runs/study/together/seed-*/log.txt\n" in together.stdout
    lines = together.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines if " of 3:" in line] == ["1 of 3", "2 of 3", "3 of 3"]
    in_turn = sprintnet(*STUDY, "--name", "in-turn")
    assert in_turn.returncode == 0, in_turn.stderr
    studies_folder = tmp_path / "runs" / "study"
    assert weights(studies_folder / "together") == weights(studies_folder / "in-turn")
    again = sprintnet(*STUDY, "--jobs", "2", "--name", "together", "--resume")
    assert again.returncode == 0
    assert again.stdout.splitlines()[-8:] == lines[-8:]


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_ended_ends_its_runs_which_go_on_later(
    sprintnet: Command, tmp_path: Path, number: signal.Signals
) -> None:
    study = tmp_path / "runs" / "study" / "davidnet"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's shell does for what it starts in the background
    process = start(tmp_path, *SLOW, "--jobs", "2")
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: all((study / f"seed-{seed}" / "checkpoint.safetensors").exists() for seed in (0, 1)))
    runs = children(process)
    assert len(runs) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert errors.count("\n") == (0 if number == signal.SIGKILL else 1), errors
    wait_until(lambda: not any(map(is_alive, runs)))
    if number == signal.SIGINT:
        resumed = sprintnet(*SLOW, "--jobs", "2", "--resume")
        assert resumed.returncode == 0, resumed.stderr
        undisturbed = sprintnet(*SLOW, "--jobs", "2", "--name", "undisturbed")
        assert undisturbed.returncode == 0, undisturbed.stderr
        assert weights(study) == weights(study.with_name("undisturbed"))


def test_a_run_that_is_killed_is_named_and_the_others_are_saved(tmp_path: Path) -> None:
    process, study = start(tmp_path, *SLOW, "--jobs", "2"), tmp_path / "runs" / "study" / "davidnet"
    wait_until(lambda: all((study / f"seed-{seed}" / "checkpoint.safetensors").exists() for seed in (0, 1)))
    runs = children(process)
    os.kill(runs[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("sprintnet: runs/study/davidnet/seed-")
    assert errors.endswith(": its process was ended by SIGKILL; repeat the command with --resume\n")
    assert not any(map(is_alive, runs))


def test_what_a_run_cannot_do_is_one_message(sprintnet: Command) -> None:
    failed = sprintnet(*STUDY, "--jobs", "2", "augment.cutout=40")
    assert failed.returncode == 2
    assert failed.stderr == "sprintnet: augment.cutout=40: larger than the images; use at most half their side\n"


def test_runs_have_the_cores_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "available_cores", lambda: 8)
    config = load_config("smoke")
    assert [tasks.divide_threads(config, jobs).threads for jobs in (1, 2, 3, 8)] == [8, 4, 2, 1]
    assert tasks.divide_threads(load_config("smoke", ["threads=2"]), 4).threads == 2
    with pytest.raises(ArgumentError, match="jobs=9: 9 runs of 1 threads each need more than the 8 cores here; use at most 8"):
        tasks.divide_threads(config, 9)


def test_images_in_memory_are_for_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8), np.arange(60) % 3
    with pytest.raises(ArgumentError, match="jobs=2: images in memory are for one process"):
        studies.study("smoke", datasets.from_arrays(images, labels), seeds=2, jobs=2)


def test_a_recipe_is_sent_as_text() -> None:
    config = load_config("sprint94", ["seed=7", "data=my folder", "threads=1"])
    assert parse_config(config.to_toml()) == config
