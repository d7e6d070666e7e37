"""Processes of a study: waited for, counted, and what they leave."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def weights(study: Path) -> list[bytes]:
    return [(study / f"seed-{seed}" / "weights.safetensors").read_bytes() for seed in range(3)]


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.02)


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Returns the processes of a study's runs."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    return list(map(int, found.split()))


def is_alive(process: int) -> bool:
    """Returns whether a process runs; one that has ended and was not waited for (a zombie) does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
