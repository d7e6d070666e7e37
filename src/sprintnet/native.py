"""Kernels in C, compiled for this machine when they are first needed, and kept in the cache."""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sprintnet.files import cache_folder
from sprintnet.machine import cpu_flags

COMPILER = "gcc"
FLAGS = ("-O3", "-march=native", "-fPIC", "-shared", "-fopenmp", "-Wl,--as-needed")
COMPILE_SECONDS = 60.0


@cache
def compiler() -> str | None:
    """Returns the name and version of the compiler that makes kernels here, or None where there is none that can.

    It takes gcc, and a PyTorch in this process whose threads are those of GNU's OpenMP: the kernels run in these, since two
    pools of threads on the same cores would wait for each other.
    """
    found = shutil.which(COMPILER)
    if found is None or _loaded_openmp() is None:
        return None
    try:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=COMPILE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0]


@cache
def compiled(source: Path) -> ctypes.CDLL | None:
    """Returns the library made from a file of C, or None where none can be made: PyTorch's own operations do its work then.

    Besides the compiler it takes a writable cache, and a processor with the kernel's instructions.
    """
    version, openmp = compiler(), _loaded_openmp()
    if version is None:
        return None
    command = [COMPILER, *FLAGS, str(source), str(openmp)]
    try:
        made_from = (source.read_bytes(), *map(str.encode, (version, *command, *sorted(cpu_flags()))))
        folder = cache_folder() / "compiled"
        library = folder / f"{source.stem}-{hashlib.sha256(b' '.join(made_from)).hexdigest()[:16]}.so"
        if not library.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:  # two processes at once make the same file twice
                new = Path(scratch) / library.name
                subprocess.run([*command, "-o", str(new)], capture_output=True, timeout=COMPILE_SECONDS, check=True)
                new.replace(library)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError):
        return None


def call(source: Path, function: str, *arguments: Any) -> None:
    """Calls a function of a library that was made: whole numbers as int64_t, tensors and structures by their address."""
    library = compiled(source)
    assert library is not None
    getattr(library, function)(*map(_as_c, arguments))


def _as_c(argument: Any) -> Any:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else ctypes.c_void_p(argument.data_ptr())


def _loaded_openmp() -> Path | None:
    """Returns GNU's OpenMP library as this process has it loaded."""
    try:
        mapped = Path("/proc/self/maps").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    paths = (line.split(maxsplit=5)[-1] for line in mapped)
    return next((Path(path) for path in paths if "libgomp" in path), None)
