"""The CPU cores that this process may use, and how busy all processes keep them."""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

USER, NICE, SYSTEM, IRQ, SOFT_IRQ = 0, 1, 2, 5, 6  # columns of /proc/stat: man 5 proc_stat


class CpuLimit(NamedTuple):
    """A limit that this process shares with others: the cores of its affinity mask, or the quota of a control group."""

    cores: int
    """CPUs that may be busy at a time, rounded up."""
    busy: float
    """CPU seconds so far of all processes under this limit; 0 where they are unknown, as if there were no others."""


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


def available_cores(root: Path = Path("/")) -> int:
    """Returns how many CPUs this process may keep busy: those of its affinity mask, at most the quota of its cgroups."""
    return min(limit.cores for limit in cpu_limits(root))


def usable_threads() -> int:
    """Returns how many threads this process may start: one for each available core, at most OMP_NUM_THREADS."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cores(), int(asked)) if asked.isdecimal() and int(asked) else available_cores()


def cpu_time() -> CpuTime:
    """Returns the CPU time used so far."""
    return CpuTime(time.monotonic(), time.process_time(), cpu_limits())


def idle_cores(seconds: float = 0.1) -> int:
    """Returns how many cores other processes leave to this one, at least one, as they do in the next `seconds`."""
    start = cpu_time()
    time.sleep(seconds)
    return max(1, cpu_time().free_cores_since(start))


def cpu_limits(root: Path = Path("/")) -> list[CpuLimit]:
    """Returns all limits on this process: its affinity mask, then the quotas of its control groups (cgroup v1 and v2)."""
    return [_affinity(root), *_quotas(root)]


def _affinity(root: Path) -> CpuLimit:
    if sys.platform != "linux":
        return CpuLimit(os.cpu_count() or 1, 0.0)
    cores, busy = os.sched_getaffinity(0), 0.0
    with suppress(OSError):
        lines = [line.split() for line in (root / "proc/stat").read_text("ascii").splitlines()]
        ticks = [list(map(int, columns)) for name, *columns in lines if name in {f"cpu{number}" for number in cores}]
        busy = sum(core[column] for core in ticks for column in (USER, NICE, SYSTEM, IRQ, SOFT_IRQ)) / os.sysconf("SC_CLK_TCK")
    return CpuLimit(len(cores), busy)


def _quotas(root: Path) -> Iterator[CpuLimit]:
    """Yields the quotas of all control groups above this process."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            group, mount = PurePosixPath(name), root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            for folder in (mount / parent.relative_to("/") for parent in (group, *group.parents)):
                files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
                with suppress(OSError, ValueError):  # a group without a limit: no file, "max" or -1
                    quota, period = map(int, " ".join((folder / file).read_text("utf-8") for file in files).split())
                    if quota > 0:
                        yield CpuLimit(math.ceil(quota / period), _busy(folder))


def _busy(group: Path) -> float:
    """Returns the CPU seconds of all processes in a control group, 0 where they are unknown."""
    with suppress(OSError, ValueError):
        return int((group / "cpuacct.usage").read_text("ascii")) / 1e9  # v1
    with suppress(OSError, ValueError, KeyError):
        return int(dict(map(str.split, (group / "cpu.stat").read_text("ascii").splitlines()))["usage_usec"]) / 1e6  # v2
    return 0.0
