"""Fewer CPU threads than runtime.py chose, while other processes keep cores busy."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from sprintnet.runtime import Runtime

USER, NICE, SYSTEM, IRQ, SOFT_IRQ = 0, 1, 2, 5, 6  # columns of /proc/stat: man 5 proc_stat


@dataclass(frozen=True)
class CpuTime:
    """Seconds so far: on the clock, of this process, and of all processes on the cores that it may use."""

    wall: float
    own: float
    all: float

    def cores_taken_since(self, start: "CpuTime") -> float:
        """Returns how many cores other processes kept busy."""
        return ((self.all - start.all) - (self.own - start.own)) / (self.wall - start.wall)


def cpu_time() -> CpuTime | None:
    """Returns the CPU time used so far, None where /proc/stat cannot be read."""
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text("ascii").splitlines()]
    except OSError:
        return None
    allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = [list(map(int, columns)) for name, *columns in lines if name in allowed]
    busy = sum(core[column] for core in ticks for column in (USER, NICE, SYSTEM, IRQ, SOFT_IRQ))
    return CpuTime(time.monotonic(), time.process_time(), busy / os.sysconf("SC_CLK_TCK"))


class AdaptiveThreads:
    """Adapts PyTorch's threads between steps and restores the runtime's on exit; does nothing where the user chose a number.

    Threads wait for each other at the end of every operation, so one that has lost its core stops all of them. One thread less,
    which leaves that core to the other process, is two to three times as fast (LOG.md).
    """

    def __init__(self, runtime: Runtime, window: float = 1.0):
        self.runtime, self.window = runtime, window
        self._start = cpu_time() if runtime.adapts_threads else None

    def __enter__(self) -> "AdaptiveThreads":
        return self

    def __exit__(self, *_: object) -> None:
        if self._start:
            torch.set_num_threads(self.runtime.threads)

    def adapt(self) -> bool:
        """Adapts to the last `window` seconds, once they have passed; returns whether there are fewer threads now."""
        if not self._start or time.monotonic() - self._start.wall < self.window or not (now := cpu_time()):
            return False
        free = len(os.sched_getaffinity(0)) - round(now.cores_taken_since(self._start))
        threads = max(1, min(self.runtime.threads, free))
        torch.set_num_threads(threads)
        self._start = now
        return threads < self.runtime.threads
