"""How a kernel in C becomes a shared library: the instruction sets that it is compiled for, and the compiler's options.

The wheel's build (hatch_build.py) runs this file alone, so it imports nothing but the standard library.
"""

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

COMPILER = "gcc"
OPTIONS = ("-O3", "-fPIC", "-fopenmp")
COMPILE_SECONDS = 60.0


class InstructionSet(NamedTuple):
    """What a library is compiled for: a name for its file, the compiler's options, the processor's features that it needs."""

    name: str
    options: tuple[str, ...]
    features: frozenset[str]


AVX2 = InstructionSet("avx2", ("-march=x86-64-v3",), frozenset({"avx2", "fma", "bmi2"}))
AVX512 = InstructionSet("avx512", ("-march=x86-64-v4",), frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}))
AVX512_BF16 = InstructionSet("avx512_bf16", (*AVX512.options, "-mavx512bf16"), AVX512.features | {"avx512_bf16"})
ASIMD = InstructionSet("asimd", ("-march=armv8-a",), frozenset({"asimd"}))
AMX_BF16 = InstructionSet("amx_bf16", (*AVX512_BF16.options, "-mamx-tile", "-mamx-bf16"), AVX512_BF16.features | {"amx_bf16"})


class UnavailableError(Exception):
    """Why there is no library of a kernel."""


def instruction_sets(kernel: str) -> tuple[InstructionSet, ...]:
    """Returns the instruction sets that a kernel is compiled for, the newest first."""
    if kernel.endswith("_amx"):
        return (AMX_BF16,)
    if kernel.endswith("_fp32"):
        return (ASIMD,) if platform.machine() == "aarch64" else (AVX512, AVX2)
    return (AVX512_BF16,)


def compile_library(source: Path, instructions: InstructionSet, library: Path) -> None:
    """Compiles a C source; the library is there complete or not at all. Raises UnavailableError with the compiler's message."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        compiled, linked = Path(folder) / "compiled.o", Path(folder) / "linked.so"
        run_compiler(*OPTIONS, *instructions.options, "-c", str(source), "-o", str(compiled))
        run_compiler("-shared", str(compiled), "-o", str(linked))  # -fopenmp would add the compiler's OpenMP to PyTorch's
        linked.replace(library)


def run_compiler(*arguments: str) -> str:
    """Returns what the compiler printed. Raises UnavailableError where it is missing or fails."""
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise UnavailableError(f"{COMPILER} is not installed")
    try:
        done = subprocess.run([compiler, *arguments], capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{COMPILER} took longer than {COMPILE_SECONDS:.0f} s") from None
    if done.returncode:
        raise UnavailableError(f"{COMPILER}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
