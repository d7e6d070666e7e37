"""Kernels for ARM on another processor: compiled by a cross compiler, each call a process of the emulator QEMU."""

import ctypes
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from sprintnet.kernels import build, compiler

COMPILER, EMULATOR, SYSTEM = "aarch64-linux-gnu-gcc", "qemu-aarch64", Path("/usr/aarch64-linux-gnu")
OPENMP = SYSTEM / "lib" / "libgomp.so.1"
NEEDED = (Path("/usr/bin", COMPILER), Path("/usr/bin", EMULATOR), SYSTEM / "include" / "stdint.h", OPENMP)
PACKAGES = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
CALLER = Path(__file__).parent / "kernels" / "call_function.c"
ALIGNMENT = 64


class Library(ctypes.CDLL):
    """A library for ARM whose functions take integers, tensors, structures and None, as build.call does."""

    caller: Path

    def __init__(self, path: str, mode: int = 0):
        self.path = path  # this processor cannot load it

    def __getattr__(self, function: str) -> Any:
        return partial(self._call, function)

    def _call(self, function: str, *arguments: Any) -> int:
        words, memory, places = [], bytearray(), []
        for argument in arguments:
            if argument is None or isinstance(argument, int):
                words.append(str(argument or 0))
                continue
            view = as_bytes(argument)
            places.append((len(memory), view))
            words.append(f"@{len(memory)}")
            memory += view.raw + bytes(-len(view) % ALIGNMENT)
        with tempfile.NamedTemporaryFile() as file:
            file.write(memory or b"\0")
            file.flush()
            command = [EMULATOR, "-L", SYSTEM, self.caller, self.path, function, file.name, *words]
            finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            file.seek(0)
            memory[:] = file.read()
        for place, view in places:
            view.raw = bytes(memory[place : place + len(view)])
        return int(finished.stdout)


def as_bytes(argument: Tensor | ctypes.Structure) -> Any:
    """Returns the memory of a dense tensor or of a structure."""
    if isinstance(argument, ctypes.Structure):
        return (ctypes.c_char * ctypes.sizeof(argument)).from_buffer(argument)
    return (ctypes.c_char * (argument.numel() * argument.element_size())).from_address(argument.data_ptr())


def compile_caller(folder: Path) -> Path:
    """Returns the program that calls a function, compiled."""
    program = folder / CALLER.stem
    openmp = "-fopenmp", "-Wl,--no-as-needed"  # for the libraries, which are linked with none
    subprocess.run([COMPILER, "-O1", "-Wall", "-Werror", CALLER, *openmp, "-o", program], check=True)
    return program


def emulate(monkeypatch: pytest.MonkeyPatch, caller: Path) -> None:
    """Makes build.py one for an ARM processor without any feature but vectors of 16 bytes."""
    monkeypatch.setattr(Library, "caller", caller, raising=False)
    monkeypatch.setattr(build, "cpu_flags", lambda: frozenset({"asimd"}))
    monkeypatch.setattr(compiler, "COMPILER", COMPILER)
    monkeypatch.setattr(build, "_openmp", lambda: OPENMP)
    monkeypatch.setattr(build, "_as_c", lambda argument: argument)
    monkeypatch.setattr(ctypes, "CDLL", Library)
