"""A study on a Ray cluster of two nodes, real processes on this machine: equal bits, whatever is killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import SAMPLE, TINY, Command
from processes import is_alive, wait_until, weights
from sprintnet.cluster import _call_on_node, address_of
from sprintnet.errors import ArgumentError
from sprintnet.runtime import select_runtime

STUDY = ["study", "davidnet", *TINY, "--seeds", "3"]
SLOW = [*STUDY, "epochs=20", "checkpoint_seconds=0"]
FAST_DETECTION = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}


class RayCluster:
    """Two nodes of one CPU each; a killed one can be replaced."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "_system_config": FAST_DETECTION}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def start(self, folder: Path, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-W", "error", "-m", "sprintnet", *words, "--on", f"ray:{self.cluster.address}"]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kill_a_node(self) -> None:
        """Kills a node without grace, and adds another."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster, none of whose processes is left in the end."""
    started = RayCluster()
    nodes = started.cluster.list_all_nodes()
    processes = [info.process.pid for node in nodes for each in node.all_processes.values() for info in each]
    assert processes
    yield started
    started.cluster.shutdown()
    wait_until(lambda: not any(map(is_alive, processes)))


def await_two_runs(process: "subprocess.Popen[str]", study: Path) -> None:
    """Waits until the first two runs of a study have a checkpoint."""

    def has_begun() -> bool:
        assert process.poll() is None, process.communicate()
        return all((study / f"seed-{seed}" / "checkpoint.safetensors").exists() for seed in (0, 1))

    wait_until(has_begun, 60)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[bytes]]:
    """The weights of the same studies, one run after another in one process: by epochs."""
    from conftest import call

    found = {}
    chosen = select_runtime("cpu", "auto", 1).precision  # runs on a cluster are told which, as nodes may differ
    for epochs, words in ((2, STUDY), (20, SLOW)):
        folder = tmp_path_factory.mktemp("undisturbed")
        done = call(folder, *words, f"precision={chosen}")
        assert done.returncode == 0, done.stderr
        found[epochs] = weights(folder / "runs" / "study" / "davidnet")
    return found


def test_runs_on_a_cluster_have_the_bits_of_runs_here(
    cluster: RayCluster, undisturbed: dict[int, list[bytes]], tmp_path: Path
) -> None:
    process = cluster.start(tmp_path, *STUDY)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert f"on ray:{cluster.cluster.address}; what each prints: runs/study/davidnet/*/log.txt\n" in output
    assert [line.partition(":")[0] for line in output.splitlines() if " of 3:" in line] == ["1 of 3", "2 of 3", "3 of 3"]
    study = tmp_path / "runs" / "study" / "davidnet"
    assert weights(study) == undisturbed[2]
    assert not list(tmp_path.glob(".sprintnet-shared-*"))


def test_a_killed_node_costs_nothing_but_time(cluster: RayCluster, undisturbed: dict[int, list[bytes]], tmp_path: Path) -> None:
    process, study = cluster.start(tmp_path, *SLOW), tmp_path / "runs" / "study" / "davidnet"
    await_two_runs(process, study)
    cluster.kill_a_node()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert weights(study) == undisturbed[20]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_study_whose_driver_is_ended_goes_on_by_the_same_command(
    cluster: RayCluster, undisturbed: dict[int, list[bytes]], tmp_path: Path, number: signal.Signals
) -> None:
    process, study = cluster.start(tmp_path, *SLOW), tmp_path / "runs" / "study" / "davidnet"
    await_two_runs(process, study)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert errors.count("\n") == (number != signal.SIGKILL), errors
    again = cluster.start(tmp_path, *SLOW, "--resume")
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert weights(study) == undisturbed[20]


def test_what_a_run_cannot_do_is_one_message_with_its_node(cluster: RayCluster, tmp_path: Path) -> None:
    process = cluster.start(tmp_path, *STUDY, "augment.cutout=40")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.startswith("sprintnet: augment.cutout=40: larger than the images; use at most half their side (on node ")
    assert errors.count("\n") == 1


def test_shards_of_predictions_are_the_whole(cluster: RayCluster, sprintnet: Command, tmp_path: Path) -> None:
    assert sprintnet("train", "davidnet", *TINY, "--no-report").returncode == 0
    assert sprintnet("export", "davidnet").returncode == 0
    model = str(tmp_path / "runs/train/davidnet/export/model.onnx")
    whole = sprintnet("predict", model, str(SAMPLE / "test"), "--output", "whole.csv")
    assert whole.returncode == 0, whole.stderr
    process = cluster.start(tmp_path, "predict", model, str(SAMPLE / "test"), "--output", "all.csv", "--shards", "3")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output == "3 tables: all-1-of-3.csv to all-3-of-3.csv\n"
    header, *rows = (tmp_path / "whole.csv").read_text("utf-8").splitlines()
    tables = [(tmp_path / f"all-{part}-of-3.csv").read_text("utf-8").splitlines() for part in (1, 2, 3)]
    assert [table[0] for table in tables] == [header] * 3
    assert sorted(row for table in tables for row in table[1:]) == sorted(rows)
    refused = sprintnet("predict", model, str(SAMPLE / "test"), "--on", "ray")
    assert refused.returncode == 2
    assert "--on ray: needs --output and --shards N, files or folders by name, and no --shard" in refused.stderr


def test_what_a_node_cannot_import_is_one_message(cluster: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def work():\n    return 0, ''\n")
    script = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import only_here, pathlib; pathlib.Path(only_here.__file__).unlink()
from sprintnet.cluster import Call, call_all, connected
from sprintnet.errors import SprintNetError
on = "ray:{cluster.cluster.address}"
try:
    with connected(on):
        list(call_all(only_here.work, [Call("a call", ())], on))
except SprintNetError as error:
    print(error.exit_code, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.startswith("2 a call: a node cannot import what it is to call; install the same version"), done.stderr


def test_no_node_has_room(cluster: RayCluster, tmp_path: Path) -> None:
    process = cluster.start(tmp_path, *STUDY, "threads=64")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "no node has the 64 CPUs of runs/study/davidnet/seed-0; set fewer threads, or add a node" in errors
    assert errors.count("\n") == 1


def test_no_cluster(sprintnet: Command, tmp_path: Path) -> None:
    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-m", "sprintnet", *STUDY, "--on", "ray:127.0.0.1:1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.startswith("sprintnet: --on ray:127.0.0.1:1: no Ray cluster at 127.0.0.1:1 (")
    assert process.stderr.count("\n") == 1
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("on", ["slurm", "ray:", "ray://10.0.0.1:10001"])
def test_addresses_that_are_none(on: str) -> None:
    with pytest.raises(ArgumentError, match=r"^on="):
        address_of(on)


def test_nodes_must_see_the_folder_and_have_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / ".sprintnet-shared-1"
    code, message = _call_on_node(lambda: (0, ""), (), str(mark), {})
    assert code == 2
    assert "does not see the same folder; start the command in one that all nodes share" in message
    mark.touch()
    other = {"commit": "abc", "code_sha256": "other", "torch": "1.0"}
    code, message = _call_on_node(lambda: (0, ""), (), str(mark), other)
    assert code == 2
    assert ", not abc; torch 2" in message
    assert ", not 1.0); install the same version of sprintnet there, with the same packages" in message
    assert _call_on_node(lambda number: (number, "full disk"), (1,), str(mark), {})[1].startswith("full disk (on node ")
