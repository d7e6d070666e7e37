"""The number of CPU threads: one a core, less the cores that other processes keep busy."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from sprintnet.runtime import Runtime

USER, NICE, SYSTEM, IRQ, SOFT_IRQ = 0, 1, 2, 5, 6  # columns of /proc/stat: man 5 proc_stat


@dataclass(frozen=True)
class Usage:
    """The clock, the CPU time of this process, and that of all processes on the cores it may use; in seconds."""

    wall: float
    own: float
    all: float

    def taken_since(self, start: "Usage") -> float:
        """Returns how many cores other processes kept busy."""
        return ((self.all - start.all) - (self.own - start.own)) / (self.wall - start.wall)


def usage() -> Usage:
    """Returns what has been used so far (on Linux)."""
    allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text("ascii").splitlines()]
    ticks = [list(map(int, columns)) for name, *columns in lines if name in allowed]
    busy = sum(core[column] for core in ticks for column in (USER, NICE, SYSTEM, IRQ, SOFT_IRQ))
    return Usage(time.monotonic(), time.process_time(), busy / os.sysconf("SC_CLK_TCK"))


class Threads:
    """Sets PyTorch's threads between steps, and on leaving back to the runtime's; does nothing where the user chose a number.

    Threads wait for each other at the end of every operation, so one that has lost its core stops them all: a thread less,
    which leaves a core to the other process, computes two to three times as much (LOG.md).
    """

    def __init__(self, runtime: Runtime, window: float = 1.0):
        self.runtime, self.window = runtime, window
        self._start = usage() if runtime.adapts_threads else None

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        if self._start:
            torch.set_num_threads(self.runtime.threads)

    def adapt(self) -> bool:
        """Looks back over the last `window` seconds, if these have passed, and returns whether there are fewer threads now."""
        if not self._start or (now := usage()).wall - self._start.wall < self.window:
            return False
        left = len(os.sched_getaffinity(0)) - round(now.taken_since(self._start))
        threads = max(1, min(self.runtime.threads, left))
        torch.set_num_threads(threads)
        self._start = now
        return threads < self.runtime.threads
