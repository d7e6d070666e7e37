"""The Slurm page: its script, run by a stand-in for sbatch as Slurm runs the tasks of an array."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import TINY, Command
from processes import weights

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "clusters.md"
TASKS = 2


def script() -> str:
    """Returns the page's script, on the sample: three runs, for two tasks."""
    found = re.search(r"```sh\n(#!/bin/bash\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found
    text = found[1].replace("study sprint94", "study davidnet").replace("--seeds 100", "--seeds 3")
    settings = " ".join(f"'{word}'" for word in [*TINY, "epochs=20", "checkpoint_seconds=0"] if not word.startswith("threads"))
    return text.rstrip() + f" {settings}\n"


def sbatch(folder: Path, task: int) -> "subprocess.Popen[bytes]":
    """Starts a task of the array as Slurm does: a copy of the script, its numbers in the environment."""
    file = folder / "study.sbatch"
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", file.read_text("utf-8"), re.MULTILINE))
    assert options["array"] == "1-20"
    assert options["signal"].startswith("B:TERM@")
    variables = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(TASKS), "SLURM_CPUS_PER_TASK": "1"}
    environment = {**os.environ, **variables, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    with (folder / f"slurm-1_{task}.out").open("a") as output:
        return subprocess.Popen(["bash", file], cwd=folder, env=environment, stdout=output, stderr=output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_array_whose_task_is_ended_and_requeued_ends_in_the_bits_of_one_command(
    sprintnet: Command, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "study.sbatch").write_text(script(), "utf-8")
    command = tmp_path / "bin" / "sprintnet"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sprintnet "$@"\n')
    command.chmod(0o755)
    study = tmp_path / "runs" / "study" / "big"
    tasks = [sbatch(tmp_path, task) for task in range(1, TASKS + 1)]
    while not (study / "seed-0" / "checkpoint.safetensors").exists():
        assert tasks[0].poll() is None
        time.sleep(0.02)
    tasks[0].send_signal(number)  # the node fails, or the time limit is near
    assert tasks[0].wait(60) == (143 if number == signal.SIGTERM else -9)
    again = sbatch(tmp_path, 1)
    assert [task.wait(120) for task in (again, tasks[1])] == [0, 0], (tmp_path / "slurm-1_1.out").read_text()
    output = (tmp_path / "slurm-1_2.out").read_text("utf-8")
    assert "starting: part 2 of 2 of 3 seeds of davidnet" in output
    assert "these are part 2 of 2 of 3 seeds; once all are finished, the same command without the shard shows all" in output
    words = ["study", "davidnet", *TINY, "epochs=20", "checkpoint_seconds=0", "--seeds", "3"]
    whole = sprintnet(*words, "--name", "big", "--resume")
    assert whole.returncode == 0, whole.stderr
    assert "runs/study/big: 3 runs\n" in whole.stdout
    undisturbed = sprintnet(*words, "--name", "undisturbed")
    assert undisturbed.returncode == 0
    assert weights(study) == weights(study.with_name("undisturbed"))


def test_a_shard_is_part_k_of_n(sprintnet: Command) -> None:
    for shard in ("17/16", "0/3", "1-3"):
        failed = sprintnet("study", "davidnet", *TINY, "--shard", shard)
        assert failed.returncode == 2
        assert failed.stderr == f"sprintnet: --shard {shard}: must be K/N with K from 1 to N, such as 3/16\n"
