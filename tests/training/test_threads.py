"""Threads: what others take by hand, then a real busy process, and back when it has gone."""

import os
import subprocess
import sys
import time

import pytest
import torch

from sprintnet.runtime import Runtime, start
from sprintnet.training.threads import Threads, Usage, usage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing adapts where there is no /proc/stat")
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
BUSY = [sys.executable, "-c", "while True: pass"]


def test_what_others_take_is_all_that_is_used_less_the_own() -> None:
    start = Usage(wall=10, own=5, all=100)
    assert Usage(12, 5 + 3.9, 100 + 3.95).taken_since(start) == pytest.approx(0.025)  # alone on two cores
    assert Usage(12, 5 + 2, 100 + 4).taken_since(start) == pytest.approx(1)  # beside one busy process


def test_usage_sees_what_another_process_uses() -> None:
    before = usage()
    started = time.monotonic()
    process = subprocess.Popen(BUSY)
    try:
        time.sleep(2)
    finally:
        process.kill()
        process.wait()
    after = usage()
    assert after.wall - before.wall == pytest.approx(time.monotonic() - started, abs=0.2)
    assert after.taken_since(before) > 0.3
    assert after.own - before.own < 1


@pytest.mark.parametrize(
    ("taken", "expected"),
    [([0.1, 0.3], [8, 8]), ([1.2, 0.9, 0.1], [7, 7, 8]), ([3.4, 7.8, 30.0], [5, 1, 1]), ([-0.2], [8])],
)
def test_each_core_that_others_take_is_a_thread_less(
    monkeypatch: pytest.MonkeyPatch, taken: list[float], expected: list[int]
) -> None:
    numbers: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    moments = [Usage(0, 0, 0)]
    for cores in taken:
        last = moments[-1]
        moments.append(Usage(last.wall + 1, last.own + 4, last.all + 4 + cores))
    monkeypatch.setattr("sprintnet.training.threads.usage", lambda: moments.pop(0))
    with Threads(Runtime(torch.device("cpu"), "fp32", 8, adapts_threads=True)) as threads:
        assert [threads.adapt() for _ in taken] == [number < 8 for number in expected]
    assert numbers == [*expected, 8]


def test_fewer_threads_than_cores_are_not_less_where_cores_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    moments = [Usage(0, 0, 0), Usage(0.5, 0, 0), Usage(1, 4, 7)]
    monkeypatch.setattr("sprintnet.training.threads.usage", lambda: moments.pop(0))
    with Threads(Runtime(torch.device("cpu"), "fp32", 4, adapts_threads=True)) as threads:
        assert not threads.adapt()  # too early to say
        assert not threads.adapt()


@pytest.mark.skipif(CORES == 1, reason="one core has one thread")
def test_a_real_busy_process_costs_a_thread() -> None:
    runtime = Runtime(torch.device("cpu"), "fp32", CORES, adapts_threads=True)
    process = subprocess.Popen(BUSY, start_new_session=True)
    try:
        with Threads(runtime) as threads:
            time.sleep(1.2)
            assert threads.adapt()
            assert torch.get_num_threads() < CORES
        assert torch.get_num_threads() == CORES
    finally:
        process.kill()
        process.wait()


def test_a_number_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprintnet.training.threads.usage", lambda: pytest.fail("nothing to look at"))
    before = torch.get_num_threads()
    try:
        with Threads(start("cpu", "fp32", 1, 0), window=0) as threads:
            assert not threads.adapt()
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert start("cpu", "fp32", 0, 0).adapts_threads
