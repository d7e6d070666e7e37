"""The limits on this process's cores, and the CPU time within each, as Linux shows them."""

import os
import sys
from pathlib import Path

import pytest

from sprintnet.runs.cores import CpuLimit, available_cores, cpu_limits, usable_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/", {}, 8),
        ("0::/", {"cpu.max": "max 100000\n"}, 8),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/", {"cpu.max": "2000 100000\n"}, 1),
        ("0::/a/b", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n", "cpu.max": "max 100000\n"}, 3),
        ("0::/not/mounted", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/", {"cpu.max": "9900000 100000\n"}, 8),
        ("3:cpu,cpuacct:/a\n0::/", {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3),
        ("3:cpuset:/\n2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("", {}, 8),
    ],
)
def test_a_control_groups_quota_limits_the_cores(
    groups: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    write(tmp_path, {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}})
    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/a", {"a/cpu.max": "150000 100000\n", "a/cpu.stat": "usage_usec 2500000\nuser_usec 2000000\n"}),
        (
            "3:cpu,cpuacct:/a",
            {
                "cpu/a/cpu.cfs_quota_us": "150000\n",
                "cpu/a/cpu.cfs_period_us": "100000\n",
                "cpu/a/cpuacct.usage": "2500000000\n",
            },
        ),
    ],
)
def test_cpu_time_is_that_on_the_cores_of_the_mask_and_that_of_each_group_with_a_quota(
    groups: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    stat = "cpu 9 9 9 9 9 9 9 0 0 0\n" + "".join(f"cpu{core} {core}00 1 2 7777 888 3 4 0 0 0\n" for core in range(3))
    write(tmp_path, {"proc/stat": stat, "proc/self/cgroup": groups})
    write(tmp_path / "sys/fs/cgroup", files)
    ticks = os.sysconf("SC_CLK_TCK")
    assert cpu_limits(tmp_path) == [CpuLimit(2, (200 + 2 * (1 + 2 + 3 + 4)) / ticks), CpuLimit(2, 2.5)]


def test_without_files_the_cores_are_the_mask_and_nothing_else_is_known() -> None:
    assert cpu_limits(Path("/nowhere")) == [CpuLimit(len(os.sched_getaffinity(0)), 0.0)]


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("100000", None), ("", None), ("0", None), ("many", None)])
def test_threads_are_at_most_what_openmp_is_told(monkeypatch: pytest.MonkeyPatch, asked: str, threads: int | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert usable_threads() == (threads or available_cores())
