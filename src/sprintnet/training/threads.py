"""The number of CPU threads: as many as cores, and one more while another process takes a core from them."""

import time
from dataclasses import dataclass

import torch

from sprintnet.runtime import Runtime

PREEMPTIONS = 50
"""Times a second that a core alone takes a thread off: about 20 on an idle machine, over 100 beside a busy process."""


@dataclass(frozen=True)
class Usage:
    """What this process has used so far: the clock and its CPU time in seconds, and how often it was preempted."""

    wall: float
    cpu: float
    preemptions: int

    def is_crowded_since(self, start: "Usage", threads: int) -> bool:
        """Returns whether another process took CPU time from this one's threads, one on each core.

        A busy process leaves n threads n / (n + 1) of n cores; a thread that merely waits is not preempted.
        """
        seconds = self.wall - start.wall
        share = (self.cpu - start.cpu) / seconds / threads
        rate = (self.preemptions - start.preemptions) / seconds / threads
        return share < (threads + 0.5) / (threads + 1) and rate > PREEMPTIONS


def usage() -> Usage:
    """Returns what this process has used so far."""
    import resource  # not on Windows, where nothing adapts

    used = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(time.monotonic(), used.ru_utime + used.ru_stime, used.ru_nivcsw)


class Threads:
    """Sets PyTorch's threads between steps, and on leaving back to the runtime's; does nothing where the user chose a number.

    Threads wait for each other at the end of every operation, so one that has lost its core stops them all. One more
    thread than cores gives each a smaller part, and the system moves the parts to whichever core is free.
    """

    def __init__(self, runtime: Runtime, window: float = 1.0, hold: float = 60.0):
        self.runtime, self.window, self.hold = runtime, window, hold
        self._start = usage() if runtime.adapts_threads else None
        self._is_crowded = False

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        if self._start:
            torch.set_num_threads(self.runtime.threads)

    def adapt(self) -> bool:
        """Looks back over the last `window` seconds and returns whether a thread was added just now.

        It stays for `hold` seconds before it must prove itself.
        """
        if not self._start:
            return False
        now = usage()
        if now.wall - self._start.wall < (self.hold if self._is_crowded else self.window):
            return False
        self._is_crowded = not self._is_crowded and now.is_crowded_since(self._start, self.runtime.threads)
        torch.set_num_threads(self.runtime.threads + self._is_crowded)
        self._start = now
        return self._is_crowded
