"""Threads: what counts as crowded, then a real busy process on every core."""

import os
import subprocess
import sys
import time

import pytest
import torch

from sprintnet.runtime import Runtime, start
from sprintnet.training.threads import Threads, Usage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows counts no preemptions; nothing adapts there")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("threads", "cpu", "preemptions", "is_crowded"),
    [
        (2, 1.99, 39, False),  # alone, as measured
        (2, 1.01, 257, True),  # beside one busy process, as measured
        (2, 1.33, 257, True),  # a fair share of two cores
        (2, 1.01, 39, False),  # waiting for something else
        (8, 7.11, 900, True),
        (8, 7.90, 900, False),
    ],
)
def test_crowded_is_less_than_the_threads_ask_for_and_taken_by_others(
    threads: int, cpu: float, preemptions: int, is_crowded: bool
) -> None:
    start = Usage(10, 5, 1000)
    assert Usage(11, 5 + cpu, 1000 + preemptions).is_crowded_since(start, threads) is is_crowded
    assert Usage(13, 5 + 3 * cpu, 1000 + 3 * preemptions).is_crowded_since(start, threads) is is_crowded


@pytest.mark.skipif(CORES > 8, reason="a few busy processes do not crowd so many cores")
def test_a_thread_more_while_others_compete_and_back_afterwards() -> None:
    runtime = Runtime(torch.device("cpu"), "fp32", torch.get_num_threads(), adapts_threads=True)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * CORES)]
    matrix = torch.randn(512, 512)
    try:
        with Threads(runtime, window=0.5, hold=0) as threads:
            deadline = time.monotonic() + 60
            while torch.get_num_threads() == runtime.threads:
                assert time.monotonic() < deadline
                matrix @ matrix
                threads.adapt()
            assert torch.get_num_threads() == runtime.threads + 1
            threads.adapt()  # the hold is over: back to prove itself
            assert torch.get_num_threads() == runtime.threads
            torch.set_num_threads(runtime.threads + 1)
        assert torch.get_num_threads() == runtime.threads
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_the_extra_thread_comes_stays_for_its_hold_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    moments = iter([Usage(0, 0, 0), Usage(0.5, 0.6, 60), Usage(1.1, 1.2, 250), Usage(30, 40, 9000), Usage(62, 90, 9999)])
    monkeypatch.setattr("sprintnet.training.threads.usage", lambda: next(moments))
    with Threads(Runtime(torch.device("cpu"), "fp32", 2, adapts_threads=True)) as threads:
        # too early to say; crowded; held; back to prove itself
        assert [threads.adapt() for _ in range(4)] == [False, True, False, False]
    assert numbers == [3, 2, 2]


def test_a_number_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprintnet.training.threads.usage", lambda: pytest.fail("nothing to look at"))
    before = torch.get_num_threads()
    try:
        with Threads(start("cpu", "fp32", 1, 0), window=0, hold=0) as threads:
            assert not threads.adapt()
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert start("cpu", "fp32", 0, 0).adapts_threads
