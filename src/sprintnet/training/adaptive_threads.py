"""Fewer CPU threads than runtime.py chose, while other processes keep cores busy."""

import time
from dataclasses import dataclass

import torch

from sprintnet.runs.cores import CpuLimit, cpu_limits
from sprintnet.runtime import Runtime


@dataclass(frozen=True)
class CpuTime:
    """Seconds so far: on the clock and of this process; of all processes, within each limit on its cores."""

    wall: float
    own: float
    limits: list[CpuLimit]

    def free_cores_since(self, start: "CpuTime") -> int:
        """Returns how many cores other processes left to this one: the fewest of all limits."""
        wall, own = self.wall - start.wall, self.own - start.own
        if len(start.limits) != len(self.limits):  # a quota was set or lifted since
            return min(limit.cores for limit in self.limits)
        pairs = zip(start.limits, self.limits, strict=True)
        return min(now.cores - round((now.busy - before.busy - own) / wall) for before, now in pairs)


def cpu_time() -> CpuTime:
    """Returns the CPU time used so far."""
    return CpuTime(time.monotonic(), time.process_time(), cpu_limits())


class AdaptiveThreads:
    """Adapts PyTorch's threads between steps and restores the runtime's on exit; does nothing where the user chose a number.

    Threads wait for each other at the end of every operation, so one that has lost its core stops all of them. One thread less,
    which leaves that core to the other process, was about three times as fast on two cores of an AMD EPYC.
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
        if not self._start or time.monotonic() - self._start.wall < self.window:
            return False
        now = cpu_time()
        threads = max(1, min(self.runtime.threads, now.free_cores_since(self._start)))
        torch.set_num_threads(threads)
        self._start = now
        return threads < self.runtime.threads
