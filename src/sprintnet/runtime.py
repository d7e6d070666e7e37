"""Device, precision, threads and seeds: chosen once for a run, in force inside `activated`, never at import."""

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sprintnet.errors import SettingsError
from sprintnet.kernels import build
from sprintnet.ranks import ALONE, Ranks
from sprintnet.runs.cores import available_cores, idle_cores
from sprintnet.runs.environment import cpu_flags

# mallopt's parameters, from glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER_TRIM = -1  # a threshold, at most 2 GiB, would still hand back parts of a larger heap
GROW_BY = 2**28

Module = TypeVar("Module", bound=nn.Module)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """The device, number format, threads and processes of a run. Creating one changes no global state; `activated` does."""

    device: torch.device
    precision: str
    threads: int
    adapts_threads: bool = False
    """Whether cores may be left to other processes that keep them busy."""
    deterministic: bool = True
    """Whether cuDNN takes deterministic kernels only, and never chooses by trial."""
    ranks: Ranks = ALONE
    """The processes that train together."""

    @contextmanager
    def activated(self, seed: int | None = None) -> Iterator[None]:
        """Sets PyTorch's threads and cuDNN's flags and, with a seed, its generators; restores all of them on exit.

        With a seed, which training has, glibc's allocator also keeps freed memory, until the process ends.
        """
        threads = torch.get_num_threads()
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices, enabled=seed is not None, device_type=self.device.type):
            if seed is not None:
                torch.manual_seed(seed)
                if self.device.type == "cpu":
                    _keep_freed_memory()
            try:
                torch.set_num_threads(self.threads)
                with self._cudnn_flags():
                    yield
            finally:
                torch.set_num_threads(threads)

    @contextmanager
    def _cudnn_flags(self) -> Iterator[None]:
        cudnn = torch.backends.cudnn
        before = cudnn.deterministic, cudnn.benchmark
        convolutions: Any = cudnn.conv  # type: ignore[attr-defined]
        precision = convolutions.fp32_precision if self.device.type == "cuda" else None
        try:
            cudnn.deterministic, cudnn.benchmark = self.deterministic, not self.deterministic
            if precision:
                convolutions.fp32_precision = "ieee"  # not TF32
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before
            if precision:
                convolutions.fp32_precision = precision

    def on_idle_cores(self) -> "Runtime":
        """Returns the runtime without the threads whose cores other processes keep busy now, unless the user chose a number.

        Training adapts in every second instead.
        """
        return replace(self, threads=min(self.threads, idle_cores())) if self.adapts_threads else self

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context of the forward pass: reduced precision over fp32 weights, or nothing for fp32."""
        return torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32")

    def place(self, model: Module) -> Module:
        """Returns the network on the device, in channels_last."""
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def kernels(self) -> list[str]:
        """The libraries of compiled kernels that this precision may use: on a CPU, where they can be built."""
        return build.available_libraries(self.precision) if self.device.type == "cpu" else []

    def describe(self) -> dict[str, Any]:
        """Returns the part of a run's environment record that PyTorch knows."""
        is_cuda = self.device.type == "cuda"
        apple = "Apple GPU" if self.device.type == "mps" else None  # PyTorch does not know its name
        return {
            "device": self.device.type,
            "gpu": torch.cuda.get_device_name(self.device) if is_cuda else apple,
            "cuda": torch.version.cuda if is_cuda else None,
            "precision": self.precision,
            "threads": self.threads,
            "processes": self.ranks.world,
            "kernels": self.kernels,
        }


def select_runtime(device: str, precision: str, threads: int, *, deterministic: bool = True) -> Runtime:
    """Returns the Runtime for these settings; raises SettingsError for a device that this machine lacks.

    `threads` 0 is PyTorch's number, at most `available_cores`. PyTorch's number is all cores, or what OMP_NUM_THREADS or
    `torch.set_num_threads` has set: whoever calls these limits PyTorch in the whole process, training included.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not available.get(device, True):
        kind = "Apple GPU" if device == "mps" else "GPU"
        raise SettingsError(f"device={device}: PyTorch sees no {kind} here; use device=auto or device=cpu")
    chosen = next(name for name in available if available[name]) if device == "auto" else device
    return Runtime(
        torch.device(chosen),
        _best_precision(chosen) if precision == "auto" else precision,
        threads or min(torch.get_num_threads(), available_cores()),
        adapts_threads=chosen == "cpu" and not threads and sys.platform == "linux",
        deterministic=deterministic,
    )


class PeakMemory:
    """The most memory held since its creation: by this process, or by PyTorch on the GPU where CUDA computes."""

    def __init__(self, device: torch.device):
        self.device, self._before = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5", "ascii")  # resets VmHWM: man 5 proc_pid_clear_refs
        except OSError:
            self._before = _most_resident() or 0

    def gib(self) -> float | None:
        """Returns the peak in GiB, None where it is unknown: not reported (mps), or below an earlier peak of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        if self.device.type == "mps":
            return None
        peak = _most_resident() or 0
        return peak / 2**30 if peak > self._before else None


def _most_resident() -> int | None:
    """Returns the process's largest resident set so far, in bytes."""
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8")):
            return int(found[1]) * 1024
    with suppress(ImportError):  # Windows has no such module
        import resource

        # not first: after fork and exec it includes the parent's
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return None


def _keep_freed_memory() -> None:
    """Tells glibc's allocator to keep freed memory.

    A training step frees hundreds of megabytes and allocates them again; each page that was returned to the system costs a page
    fault. Other C libraries have no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER_TRIM), (M_TOP_PAD, GROW_BY)):
            mallopt(parameter, value)


def _best_precision(device: str) -> str:
    if has_fast_bf16(device):
        return "bf16"
    return "fp16" if device == "cuda" else "fp32"


@cache
def has_fast_bf16(device: str) -> bool:
    """Returns whether bf16 matrix products are fast on a device (`cpu`, `cuda` or `mps`) here; on mps it is not known."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)  # Ampere
    return device == "cpu" and bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})
