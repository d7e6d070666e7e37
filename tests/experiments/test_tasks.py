"""Several runs at a time, in processes of their own: the bits of one after another, killed and resumed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, Command
from processes import children, is_alive, wait_until, weights
from sprintnet import datasets, studies
from sprintnet.config import load_config, parse_config
from sprintnet.errors import ArgumentError
from sprintnet.experiments import placement
from sprintnet.experiments.placement import Placement

STUDY = ["study", "davidnet", *TINY, "--seeds", "3", "checkpoint_seconds=0"]
SLOW = [*STUDY[:-1], "epochs=30", "checkpoint_seconds=1"]


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "sprintnet", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_at_a_time_end_in_the_bits_of_one_after_another(sprintnet: Command, tmp_path: Path) -> None:
    together = sprintnet(*STUDY, "--jobs", "2", "--name", "together")
    assert together.returncode == 0, together.stderr
    assert "2 runs at a time; what each prints: runs/study/together/*/log.txt\n" in together.stdout
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
    monkeypatch.setattr(placement, "available_cores", lambda: 8)
    config = load_config("smoke")
    assert [Placement(jobs).fix_runtime(config).threads for jobs in (0, 1, 2, 3, 8)] == [0, 0, 4, 2, 1]
    assert Placement(4).fix_runtime(load_config("smoke", ["threads=2"])).threads == 2
    assert [Placement(100, "ray").fix_runtime(load_config("smoke", [f"threads={n}"])).threads for n in (0, 4)] == [1, 4]
    with pytest.raises(ArgumentError, match="jobs=9: 9 runs of 1 threads each need more than the 8 cores here; use at most 8"):
        Placement(9).fix_runtime(config)


def test_images_in_memory_are_for_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8), np.arange(60) % 3
    with pytest.raises(ArgumentError, match="jobs=2: images in memory are for one process"):
        studies.study("smoke", datasets.from_arrays(images, labels), seeds=2, jobs=2)


def test_a_recipe_is_sent_as_text() -> None:
    config = load_config("sprint94", ["seed=7", "data=my folder", "threads=1"])
    assert parse_config(config.to_toml()) == config
