"""AdaptiveThreads: what others take by hand, then a real busy process, and back when it has gone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sprintnet.runs.cores import CpuLimit, CpuTime, cpu_time, idle_cores
from sprintnet.runtime import Runtime, select_runtime
from sprintnet.training import adaptive_threads as threads_module
from sprintnet.training.adaptive_threads import AdaptiveThreads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing adapts where there is no /proc/stat")
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
BUSY = [sys.executable, "-c", "while True: pass"]


def adapting(threads: int) -> Runtime:
    return Runtime(torch.device("cpu"), "fp32", threads, adapts_threads=True)


def used(wall: float, own: float, *limits: tuple[int, float]) -> CpuTime:
    return CpuTime(wall, own, [CpuLimit(*limit) for limit in limits])


def test_free_cores_are_those_that_others_leave_within_the_tightest_limit() -> None:
    def free(*limits: tuple[int, float]) -> int:  # cores, seconds that all processes used while this one used 4 of 2
        start = used(10, 5, *((cores, 100) for cores, _ in limits))
        return used(12, 5 + 4, *((cores, 100 + busy) for cores, busy in limits)).free_cores_since(start)

    assert free((2, 3.95)) == 2  # alone on two cores
    assert free((2, 4 + 2)) == 1  # beside one busy process
    assert free((64, 4 + 2 * 40), (2, 4)) == 2  # others on the host, outside of the container, leave cores
    assert free((64, 4 + 2 * 40), (2, 4 + 2)) == 1  # one of them is in the container
    assert free((64, 4 + 2 * 63), (4, 4)) == 1  # the host is full
    assert free((8, 4), (4, 0)) >= 4  # a group whose use is unknown


def test_cpu_time_counts_another_process_as_others() -> None:
    before = cpu_time()
    process = subprocess.Popen(BUSY)
    try:
        time.sleep(2)
    finally:
        process.kill()
        process.wait()
    after = cpu_time()
    others = after.limits[0].busy - before.limits[0].busy - (after.own - before.own)
    assert others / (after.wall - before.wall) > 0.3


@pytest.mark.parametrize(
    ("taken", "expected"),
    [([0.1, 0.3], [8, 8]), ([1.2, 0.9, 0.1], [7, 7, 8]), ([3.4, 7.8, 30.0], [5, 1, 1]), ([-0.2], [8])],
)
def test_each_core_that_others_take_is_a_thread_less(
    monkeypatch: pytest.MonkeyPatch, taken: list[float], expected: list[int]
) -> None:
    numbers: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    moments = [used(0, 0, (8, 0))]
    for cores in taken:
        last = moments[-1]
        moments.append(used(last.wall + 1, last.own + 4, (8, last.limits[0].busy + 4 + cores)))
    monkeypatch.setattr(threads_module, "cpu_time", lambda: moments.pop(0))
    with AdaptiveThreads(adapting(8), window=0) as threads:
        assert [threads.adapt() for _ in taken] == [number < 8 for number in expected]
    assert numbers == [*expected, 8]


def test_fewer_threads_than_cores_are_not_less_where_cores_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    moments = [used(0, 0, (8, 0)), used(1, 4, (8, 7))]
    monkeypatch.setattr(threads_module, "cpu_time", lambda: moments.pop(0))
    try:
        with AdaptiveThreads(adapting(4), window=0) as threads:
            assert not threads.adapt()
            assert not moments
    finally:
        torch.set_num_threads(before)


def test_proc_stat_is_read_once_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[CpuTime] = []
    monkeypatch.setattr(threads_module, "cpu_time", lambda: read.append(cpu_time()) or read[-1])
    with AdaptiveThreads(adapting(CORES), window=1000) as threads:
        assert not any(threads.adapt() for _ in range(100))
    assert len(read) == 1


def test_without_proc_stat_the_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path, *_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", unreadable)
    with AdaptiveThreads(adapting(CORES), window=0) as threads:
        assert not threads.adapt()


@pytest.mark.skipif(CORES == 1, reason="one core has one thread")
def test_a_real_busy_process_costs_a_thread() -> None:
    before = torch.get_num_threads()
    process = subprocess.Popen(BUSY, start_new_session=True)
    try:
        with AdaptiveThreads(adapting(CORES)) as threads:
            time.sleep(1.2)
            assert threads.adapt()
            assert torch.get_num_threads() < CORES
        assert torch.get_num_threads() == CORES
    finally:
        process.kill()
        process.wait()
        torch.set_num_threads(before)


@pytest.mark.skipif(CORES == 1, reason="one core has one thread")
def test_a_model_that_is_loaded_leaves_busy_cores_to_others() -> None:
    process = subprocess.Popen(BUSY, start_new_session=True)
    try:
        time.sleep(0.5)
        assert adapting(CORES).on_idle_cores().threads < CORES
        assert idle_cores() < CORES
        chosen = Runtime(torch.device("cpu"), "fp32", CORES)
        assert chosen.on_idle_cores() is chosen
    finally:
        process.kill()
        process.wait()


def test_a_number_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "cpu_time", lambda: pytest.fail("nothing to look at"))
    runtime = select_runtime("cpu", "fp32", 1)
    with runtime.activated(), AdaptiveThreads(runtime, window=0) as threads:
        assert not threads.adapt()
        assert torch.get_num_threads() == 1
    assert select_runtime("cpu", "fp32", 0).adapts_threads
