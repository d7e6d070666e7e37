"""The C kernels (csrc/): libraries that the wheel brings along, or compiled at first use and cached.

They serve training on a CPU in bf16 or fp32, and predictions in fp32; where they are unavailable, PyTorch's own operations do
the work.
"""

import ctypes
import hashlib
import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from sprintnet.errors import SettingsError
from sprintnet.kernels.compiler import (
    AMX_BF16,
    OPTIONS,
    InstructionSet,
    UnavailableError,
    compile_library,
    instruction_sets,
    run_compiler,
)
from sprintnet.runs.environment import cpu_flags
from sprintnet.runs.io import cache_folder

SOURCES = Path(__file__).parent / "csrc"
PACKAGED = Path(__file__).parent / "compiled"
"""The libraries of a wheel; a source tree has none."""
PROCESSORS = {"bf16": ("amx_bf16", "avx512_bf16"), "fp32": ("avx512f", "avx2", "asimd")}
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18
"""Linux hands out the tile registers on request: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)."""

FP32_LANES, BF16_LANES, BLOCK_ROWS, BATCH_PARTS = 16, 32, 8, 64
"""As in bf16.h and parts.h."""


def load_library(name: str) -> ctypes.CDLL | None:
    """Returns the library of csrc/NAME.c, or None where it is unavailable."""
    library = _library(name, SOURCES)
    return library if isinstance(library, ctypes.CDLL) else None


def unavailable_reason(precision: str) -> str:
    """Returns why a kernel for this precision is unavailable on this processor; an empty text where all are."""
    if precision not in PROCESSORS:
        return f"there are none for {precision}"
    built = _build_all(precision)
    supported = [library for name, library in built.items() if instruction_set(name)]
    return next((reason for reason in supported or built.values() if isinstance(reason, str)), "")


def available_libraries(precision: str) -> list[str]:
    """Returns the names of the libraries that this precision may use here."""
    return [name for name, library in _build_all(precision).items() if not isinstance(library, str)]


def _build_all(precision: str) -> dict[str, ctypes.CDLL | str]:
    """Returns each library for a precision, or why it is unavailable; builds what is missing, at the same time."""
    if precision not in PROCESSORS:
        return {}
    names = [path.stem for path in sorted(SOURCES.glob("*.c")) if path.stem.endswith("_fp32") == (precision == "fp32")]
    with ThreadPoolExecutor() as compilers:
        return dict(zip(names, compilers.map(lambda name: _library(name, SOURCES), names), strict=True))


def processor(precision: str) -> str | None:
    """Returns the kind of this processor for bf16 or fp32: the newest feature that kernels are made for."""
    return next((name for name in PROCESSORS.get(precision, ()) if name in cpu_flags()), None)


def instruction_set(name: str) -> InstructionSet | None:
    """Returns the newest instruction set of this processor that a kernel is compiled for, or None."""
    return next((each for each in instruction_sets(name) if each.features <= cpu_flags()), None)


def call(name: str, function: str, *arguments: Any) -> int:
    """Calls a function of an available library: integers as int64_t, tensors and structures by address; None is a null pointer.

    Returns its result, an int64_t, which has no meaning where the function returns none.
    """
    library = load_library(name)
    if library is None:
        raise RuntimeError(f"kernel {name} is unavailable")
    called = getattr(library, function)
    called.restype = ctypes.c_int64
    return int(called(*map(_as_c, arguments)))


def _as_c(argument: Any) -> Any:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if argument is None:
        return None
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else ctypes.c_void_p(argument.data_ptr())


@cache
def _library(name: str, sources: Path) -> ctypes.CDLL | str:
    """Returns a library, or why there is none; cached, so that a run computes in one way throughout."""
    try:
        instructions = instruction_set(name)
        if instructions is None:
            raise UnavailableError(f"the processor has no {instruction_sets(name)[-1].name}")
        if instructions is AMX_BF16:
            _request_tiles()
        openmp = _openmp()
        ctypes.CDLL(str(openmp), mode=ctypes.RTLD_GLOBAL)  # where the library, linked with none, finds its functions
        packaged = PACKAGED / f"{name}-{instructions.name}.so"
        if packaged.exists():
            with suppress(OSError):  # it may need a newer C library than there is here
                return ctypes.CDLL(str(packaged))
        library = _build(sources / f"{name}.c", instructions)
        try:
            return ctypes.CDLL(str(library))
        except OSError:
            library.unlink(missing_ok=True)  # perhaps damaged: the next run rebuilds it
            raise
    except (UnavailableError, OSError, SettingsError) as error:  # the last: no folder for the cache
        return str(error)


def _build(source: Path, instructions: InstructionSet) -> Path:
    """Returns the library of a source in the cache; compiles it where it is missing."""
    library = _folder() / f"{source.stem}-{instructions.name}-{_fingerprint(source.parent, instructions)}.so"
    if not library.exists():
        with FileLock(library.with_suffix(".lock")):  # another process may be building it
            if not library.exists():
                compile_library(source, instructions, library)
    return library


def _fingerprint(sources: Path, instructions: InstructionSet) -> str:
    """Returns a digest of what a library depends on: sources, compiler, options."""
    code = [path.read_bytes() for path in sorted(sources.iterdir()) if path.suffix in {".c", ".h"}]
    tools = (run_compiler("--version"), *OPTIONS, *instructions.options)
    return hashlib.sha256(b"\0".join([*code, *map(str.encode, tools)])).hexdigest()[:16]


@cache
def _request_tiles() -> None:
    """Asks the system for the tile registers of AMX, for this process and its threads."""
    if ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA):
        raise UnavailableError("the system does not permit AMX")


def _folder() -> Path:
    """Returns the folder of libraries, which nobody else may write: their code runs in this process."""
    folder = cache_folder() / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise UnavailableError(f"{folder} can be written by other users; remove it")
    return folder


def _openmp() -> Path:
    """Returns the OpenMP library that PyTorch loaded into this process; a second thread pool would compete for the cores."""
    loaded = {Path(line.split(maxsplit=5)[-1]) for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()}
    found = importlib.util.find_spec("torch")
    torch = Path(found.origin).resolve().parent if found and found.origin else None
    for path in sorted(loaded):
        if path.name.startswith("libgomp") and torch in (path.resolve().parent.parent, path.parent.with_suffix("")):
            return path
    raise UnavailableError("PyTorch does not use GNU OpenMP")
