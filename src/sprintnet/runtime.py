"""Device, precision, threads and seeds: decided once for a run, never at import."""

import ctypes
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sprintnet.errors import SettingsError
from sprintnet.kernels import build
from sprintnet.runs.environment import cpu_flags

# mallopt's parameters, from glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER_TRIM = -1  # a threshold, at most 2 GiB, would still hand back parts of a larger heap
GROW_BY = 2**28

Module = TypeVar("Module", bound=nn.Module)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Where and in which number format a run computes."""

    device: torch.device
    precision: str
    threads: int
    adapts_threads: bool = False
    """Whether cores may be left to other processes that keep them busy."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context in which the network's forward pass runs: reduced precision over fp32 weights, or nothing."""
        return torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32")

    def place(self, model: Module) -> Module:
        """Returns the network on the device, in channels_last."""
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def kernels_available(self) -> bool:
        """Whether training takes the kernels in C: on a CPU in bf16, where they can be made."""
        return self.device.type == "cpu" and self.precision == "bf16" and not build.unavailable_reason()

    def peak_gib(self) -> float | None:
        """Returns the most memory that this process has held, in GiB: of the GPU if it computes there; None where unknown."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        try:
            status = Path("/proc/self/status").read_text("utf-8")
        except OSError:
            return None
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**20

    def describe(self) -> dict[str, Any]:
        """Returns the part of a run's environment record that PyTorch knows."""
        is_cuda = self.device.type == "cuda"
        return {
            "device": self.device.type,
            "gpu": torch.cuda.get_device_name(self.device) if is_cuda else None,
            "cuda": torch.version.cuda if is_cuda else None,
            "precision": self.precision,
            "threads": self.threads,
            "kernels": self.kernels_available,
        }


def start(device: str, precision: str, threads: int, seed: int | None) -> Runtime:
    """Returns the Runtime for these settings, after setting PyTorch's threads and, with a seed, its generators.

    Raises SettingsError for a device or a precision that this machine lacks.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device=cuda: PyTorch sees no GPU here; use device=auto or device=cpu")
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    if chosen == "cpu":
        _keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    if seed is not None:
        torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True  # a resumed run must end in the same bits
    torch.backends.cudnn.benchmark = False
    return Runtime(
        torch.device(chosen),
        _best_precision(chosen) if precision == "auto" else precision,
        torch.get_num_threads(),
        adapts_threads=chosen == "cpu" and not threads and sys.platform == "linux",
    )


def _keep_freed_memory() -> None:
    """Tells glibc's allocator to keep what is freed.

    A training step frees hundreds of megabytes and asks for them again; handed back to the system in between, each page
    costs a fault. Other C libraries have no mallopt, and keep their own ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER_TRIM), (M_TOP_PAD, GROW_BY)):
            mallopt(parameter, value)


def _best_precision(device: str) -> str:
    if device == "cuda":
        return "fp16"
    return "bf16" if multiplies_bf16(device) else "fp32"


@cache
def multiplies_bf16(device: str) -> bool:
    """Returns whether products of bf16 matrices are fast on `cpu` or `cuda` here."""
    return device == "cuda" or bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})
