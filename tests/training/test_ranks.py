"""Several processes that train one run: the steps of one process up to rounding, equal bits, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import TINY, Command
from processes import children, wait_until
from sprintnet.config import load_config
from sprintnet.data.load import load_splits
from sprintnet.data.settings import DataSettings
from sprintnet.errors import SettingsError
from sprintnet.ranks import ALONE, Ranks
from sprintnet.runs.folder import RunFolder, read_json, read_rows
from sprintnet.runtime import Runtime
from sprintnet.training.setup import build_step

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SLOW = ["train", "davidnet", *TINY, "epochs=20", "checkpoint_seconds=0", "--no-report"]
SCRIPT = Path(__file__).with_name("steps_of_ranks.py")


def run(*command: str | Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("world", "sizes"), [(1, [10]), (2, [5, 5]), (3, [3, 3, 4]), (4, [2, 3, 2, 3])])
def test_the_parts_of_a_batch_are_the_whole(world: int, sizes: list[int]) -> None:
    parts = [Ranks(rank, world).part(slice(20, 30)) for rank in range(world)]
    assert [part.stop - part.start for part in parts] == sizes
    assert [number for part in parts for number in range(part.start, part.stop)] == list(range(20, 30))


@pytest.mark.parametrize(
    ("recipe", "precision", "tolerance"),
    [("davidnet", "fp32", 2e-5), ("sprint94", "fp32", 0.01), ("sprint94", "bf16", 0.2)],
)
def test_two_ranks_take_the_steps_of_one_process(tmp_path: Path, recipe: str, precision: str, tolerance: float) -> None:
    settings = [TINY[0], "data.val=0.5", "model.width=16", "batch_size=33", f"precision={precision}"]  # 33: unequal parts
    for launcher in ([sys.executable], TORCHRUN):
        done = run(*launcher, SCRIPT, tmp_path, recipe, *settings, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name, expected in one.items():
        difference = (first[name].double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-9)
        assert difference <= tolerance, (name, difference)


def test_a_run_of_two_processes_is_a_run_like_any_other(sprintnet: Command, tmp_path: Path) -> None:
    folders = [tmp_path / "runs" / "train" / name for name in ("a", "b", "one")]
    for folder in folders[:2]:
        done = run(*TORCHRUN, "-m", "sprintnet", "train", "davidnet", *TINY, "--name", folder.name, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "1 thread in each of 2 processes" in done.stdout
    assert done.stdout.count("| Epoch |") == 1
    first, second = ((folder / "weights.safetensors").read_bytes() for folder in folders[:2])
    assert first == second
    assert read_json(RunFolder(folders[0]).environment)["processes"] == 2
    single = sprintnet("train", "davidnet", *TINY, "--name", "one")
    assert single.returncode == 0, single.stderr
    losses = [[float(row["train_loss"]) for row in read_rows(folder / "results.csv")] for folder in folders]
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(losses[2], rel=0.02)
    assert (folders[0] / "report.html").exists()
    verified = sprintnet("verify", "a")
    assert verified.returncode == 0, verified.stderr
    assert "processes" in verified.stdout


def ranks_of(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Returns rank -> process."""
    found = {}
    for child in children(process):
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(word[5:]): child for word in variables if word.startswith(b"RANK=")}
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_restarts_all_from_the_checkpoint(tmp_path: Path, killed: int) -> None:
    folder = tmp_path / "runs" / "train" / "davidnet"
    command = [*TORCHRUN, "--max-restarts", "2", "-m", "sprintnet", *SLOW, "--name", "davidnet"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: (folder / "checkpoint.safetensors").exists(), 120)
    os.kill(ranks_of(process)[killed], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    undisturbed = run(*TORCHRUN, "-m", "sprintnet", *SLOW, "--name", "undisturbed", folder=tmp_path)
    assert undisturbed.returncode == 0, undisturbed.stderr
    weights = [(folder.with_name(name) / "weights.safetensors").read_bytes() for name in ("davidnet", "undisturbed")]
    assert weights[0] == weights[1]
    assert [path.name for path in folder.parent.iterdir()] in (["davidnet", "undisturbed"], ["undisturbed", "davidnet"])


def test_a_restart_must_find_its_run(sprintnet: Command) -> None:
    refused = sprintnet(*SLOW, TORCHELASTIC_MAX_RESTARTS="2")
    assert refused.returncode == 2
    assert refused.stderr == "sprintnet: --name: is needed with torchrun --max-restarts: a restart finds its run by it\n"


def test_sigterm_saves_the_state_and_resume_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "train" / "davidnet"
    process = subprocess.Popen(
        [*TORCHRUN, "-m", "sprintnet", *SLOW[:-2], "checkpoint_seconds=1000", "--no-report"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: (folder / "checkpoint.safetensors").exists(), 120)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "SIGTERM: the state is saved in" in errors
    words = [*SLOW[:-2], "checkpoint_seconds=1000", "--no-report", "--resume"]
    resumed = run(*TORCHRUN, "-m", "sprintnet", *words, folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.dropout=0.1"], r"model\.dropout=0\.1: is for a single process"),
        (["batch_size=2"], r"batch_size=2: fewer images in a batch than the 3 processes"),
    ],
)
def test_what_several_processes_cannot_do(settings: list[str], message: str) -> None:
    runtime = Runtime(torch.device("cpu"), "fp32", 1, ranks=Ranks(0, 3))
    images = load_splits(DataSettings(TINY[0].removeprefix("data.name=")), lambda line: None)["train"]
    with pytest.raises(SettingsError, match=message):
        build_step(load_config("davidnet", settings), images, runtime)


def test_a_single_process_exchanges_nothing() -> None:
    values = torch.arange(3.0)
    assert ALONE.sum(values) is values
    assert ALONE.share("text") == "text"
    ALONE.share_tensors([values])
