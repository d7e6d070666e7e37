"""Fewer CPU threads than runtime.py chose, while other processes keep cores busy."""

import time

import torch

from sprintnet.runs.cores import cpu_time
from sprintnet.runtime import Runtime


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
