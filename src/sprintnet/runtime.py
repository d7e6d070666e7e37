"""Device, precision, threads and seeds: decided once for a run, never at import."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from sprintnet.errors import SettingsError
from sprintnet.run import cpu_flags

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Where and in which number format a run computes."""

    device: torch.device
    precision: str
    threads: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context in which the network's forward pass runs: reduced precision over fp32 weights, or nothing."""
        return torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32")

    def describe(self) -> dict[str, Any]:
        """Returns the part of a run's environment record that PyTorch knows."""
        is_cuda = self.device.type == "cuda"
        return {
            "device": self.device.type,
            "gpu": torch.cuda.get_device_name(self.device) if is_cuda else None,
            "cuda": torch.version.cuda if is_cuda else None,
            "precision": self.precision,
            "threads": self.threads,
        }


def start(device: str, precision: str, threads: int, seed: int) -> Runtime:
    """Returns the Runtime for these settings, after seeding PyTorch and setting its threads.

    Raises SettingsError for a device or a precision that this machine lacks.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device=cuda: PyTorch sees no GPU here; use device=auto or device=cpu")
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True  # a resumed run must end in the same bits
    torch.backends.cudnn.benchmark = False
    return Runtime(torch.device(chosen), _best_precision(chosen) if precision == "auto" else precision, torch.get_num_threads())


def _best_precision(device: str) -> str:
    if device == "cuda":
        return "fp16"
    return "bf16" if cpu_flags() & {"amx_bf16", "avx512_bf16"} else "fp32"
