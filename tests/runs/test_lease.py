"""The lease of a run folder: one process trains there, also where hosts share the folder but not their locks."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import Timeout

from conftest import TINY, Command
from sprintnet.config import load_config
from sprintnet.errors import SettingsError
from sprintnet.runs import lease as leases
from sprintnet.runs.folder import RunFolder, new_run
from sprintnet.training import train as pipeline

OTHER_HOST = """
import socket, sys
socket.gethostname = lambda: "node7"
from sprintnet.runs import lease as leases
from sprintnet.runs.folder import RunFolder
leases.LEASE_SECONDS = float(sys.argv[2])
lease = RunFolder(sys.argv[1]).lease()
lease.acquire(blocking=False)
print("acquired", flush=True)
sys.stdin.read()
lease.release()
"""
"""A process that holds the lease, on a host of another name, whose processes cannot be looked up here."""


@pytest.fixture
def lease_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """A short lease."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    return 2.0


def other_host(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", OTHER_HOST, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "acquired\n"
    return process


def test_a_process_of_another_host_that_lives_keeps_its_folder(tmp_path: Path, lease_seconds: float) -> None:
    with other_host(tmp_path / "run", lease_seconds) as holder:
        with pytest.raises(SettingsError, match="another process is training here"):
            pipeline.train(load_config("davidnet", TINY), RunFolder(tmp_path / "run", is_quiet=True))
        holder.communicate(timeout=30)
    log = (tmp_path / "run" / "log.txt").read_text("utf-8")
    assert "was left by pid " in log
    assert " on node7, or it still trains here: waiting 2 s for a sign of life" in log
    assert not (tmp_path / "run" / "config.toml").exists()


def test_the_folder_of_a_killed_host_is_taken_once_its_lease_has_run_out(tmp_path: Path, lease_seconds: float) -> None:
    with other_host(tmp_path / "run", lease_seconds) as holder:
        holder.kill()
    result = pipeline.train(load_config("davidnet", TINY), RunFolder(tmp_path / "run", is_quiet=True))
    assert result.metrics["epochs"] == 2
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_process_that_was_taken_for_dead_ends_and_leaves_the_run_to_the_other(
    tmp_path: Path, lease_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run", is_quiet=True)
    before: list[bytes] = []

    def lose(row: object) -> None:
        """What a host does that has seen no sign of life; this process notices it at the next renewal."""
        if not before:
            run.lock.unlink()
            run.lock.write_text("taken", "utf-8")
            before.append(run.checkpoint.read_bytes())
            time.sleep(lease_seconds)

    with pytest.raises(SettingsError, match="another process has continued the run meanwhile; this one ends"):
        pipeline.train(load_config("davidnet", TINY), run, on_epoch=lose)
    assert run.checkpoint.read_bytes() == before[0]
    assert not run.metrics.exists()


def test_a_killed_process_of_this_host_is_not_waited_for(tmp_path: Path, sprintnet: Command) -> None:
    words = ["train", "davidnet", *TINY, "epochs=30", "checkpoint_seconds=0", "--no-report"]
    process = subprocess.Popen([sys.executable, "-m", "sprintnet", *words], cwd=tmp_path, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "runs" / "train" / "davidnet" / "checkpoint.safetensors"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.with_name(".lock").exists()
    resumed = sprintnet(*words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "waiting" not in resumed.stdout


def test_a_process_that_was_killed_before_it_wrote_its_record_holds_nothing(tmp_path: Path, lease_seconds: float) -> None:
    run, said = RunFolder(tmp_path / "run"), list[str]()
    run.path.mkdir()
    run.lock.touch()
    lease = run.lease()
    leases.acquire(lease, said.append)
    assert said == [
        f"{run.path}: was left by a process that left no record, or it still trains here: waiting 2 s for a sign of life"
    ]
    assert lease.is_locked
    assert [file.name for file in run.path.iterdir()] == [".lock"]
    lease.release()


def test_a_process_that_writes_its_record_late_keeps_the_lease(tmp_path: Path, lease_seconds: float) -> None:
    run = RunFolder(tmp_path)
    with run.lease().acquire(blocking=False):
        record = run.lock.read_text("utf-8")
        run.lock.write_bytes(b"")
        threading.Timer(1, lambda: run.lock.write_text(record, "utf-8")).start()
        with pytest.raises(Timeout):
            leases.acquire(run.lease(), lambda line: None)
        assert run.lock.read_text("utf-8") == record


def test_a_record_that_takes_the_place_of_an_empty_file_is_not_removed(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    file.write_text("a record", "utf-8")
    leases._remove_empty(file)
    assert file.read_text("utf-8") == "a record"
    assert list(tmp_path.iterdir()) == [file]


def test_two_starts_of_one_name_reserve_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (new_run("name", exact=False, resume=False) for _ in range(2))
    assert [run.path.name for run in (first, second)] == ["name", "name-2"]
    with pytest.raises(Timeout):
        first.lease().acquire(blocking=False)
